"""The compiled programs: where they are, and the wheel's console scripts, each of
which becomes the program it is named after."""

import os
import shutil
import sys
from pathlib import Path

# Programs that a wheel carries; absent in a build tree.
FOLDER = Path(__file__).parent.absolute() / "bin"
# Those of the build tree that this package lies in.
BUILT = FOLDER.parents[2] / "bin"


def find(name: str) -> str | None:
    """Path of a program: of this wheel, of this build tree, or on PATH."""
    for folder in (FOLDER, BUILT):
        if (folder / name).is_file():
            return str(folder / name)
    return shutil.which(name)


def _become(name: str):
    program = str(FOLDER / name)
    os.execv(program, [program, *sys.argv[1:]])


def moa_compile():
    """Run moa-compile with the arguments of this process."""
    _become("moa-compile")


def moa_run():
    """Run moa-run with the arguments of this process."""
    _become("moa-run")
