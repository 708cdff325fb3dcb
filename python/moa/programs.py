"""The compiled programs: where they are, and the wheel's console scripts. Those of
compiled programs become the program they are named after."""

import os
import shutil
import sys
from pathlib import Path

from .extras import run_program

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


def cubins() -> Path:
    """Folder of the finished cubins that come with moa-compile; absent in a build tree."""
    return FOLDER.parent / "cubins"


def _become(name: str):
    program = str(FOLDER / name)
    os.execv(program, [program, *sys.argv[1:]])


def moa_compile():
    """Run moa-compile with the arguments of this process."""
    _become("moa-compile")


def moa_run():
    """Run moa-run with the arguments of this process."""
    _become("moa-run")


def moa_plan() -> int:
    """Run moa-plan, which needs packages that an extra brings."""

    def load():
        from .plan.cli import main

        return main

    return run_program("moa-plan", load)
