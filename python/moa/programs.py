"""Console scripts of the wheel: each becomes the program it is named after."""

import os
import sys
from pathlib import Path

# Programs that a wheel carries; absent in a build tree.
FOLDER = Path(__file__).parent.absolute() / "bin"


def _become(name: str):
    program = str(FOLDER / name)
    os.execv(program, [program, *sys.argv[1:]])


def moa_compile():
    """Run moa-compile with the arguments of this process."""
    _become("moa-compile")


def moa_run():
    """Run moa-run with the arguments of this process."""
    _become("moa-run")
