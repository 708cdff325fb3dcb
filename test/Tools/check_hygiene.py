"""Checks hand-written files: size, headers, leftovers, paths of one machine.

Usage: check_hygiene.py ROOT. Exit code 0 without faults, 1 with, 2 where nothing
was there to check.
"""

import os
import re
import sys
from pathlib import Path

# Most lines of a file: longer ones are split by theme.
LIMITS = {".mlir": 200, ".test": 200}
LIMIT = 600
SUFFIXES = {
    ".h", ".hpp", ".c", ".cpp", ".td", ".py", ".sh", ".txt", ".cmake", ".md",
    ".mlir", ".test", ".json", ".yml", ".yaml", ".toml", ".in",
}  # fmt: skip
NAMES = {"Makefile", "run"}
# The first line of code files names file and language; the next ones the licence.
LICENSED = {".h", ".hpp", ".c", ".cpp", ".td"}
SPDX = "SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception"
# Spelled in two pieces, so that this file does not find itself.
LEFTOVER = re.compile(r"\b(TO" r"DO|FIX" r"ME|HA" r"CK|XX" r"X)\b")
MACHINE = re.compile(r"(?<![\w.$}])/(work|root|farm|home/\w+)/|\.\./shar" r"ed\b")
# Numbers and texts kept as data.
DATA = re.compile(r"^(test/Inputs/|test/.*/Inputs/|LICENSE$)")


def files_of(root: Path):
    """Yields the files of a checkout, without build trees and hidden folders."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name in (".ci", ".github") or not name.startswith((".", "build", "__pycache__"))
        )
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix in SUFFIXES or name in NAMES:
                yield path


def check_file(relative: str, text: str, suffix: str) -> list[str]:
    """Returns the faults of one file."""
    faults = []
    lines = text.splitlines()
    if DATA.match(relative):
        return faults
    limit = LIMITS.get(suffix, LIMIT)
    if len(lines) > limit:
        faults.append(f"{relative}:{limit}: has {len(lines)} lines, at most {limit}")
    if suffix in LICENSED and not any(SPDX in line for line in lines[:6]):
        faults.append(f"{relative}:1: expected '{SPDX}' in the first 6 lines")
    if text and not text.endswith("\n"):
        faults.append(f"{relative}:{len(lines)}: expected a newline at the end")
    for number, line in enumerate(lines, 1):
        if match := LEFTOVER.search(line):
            faults.append(f"{relative}:{number}: leftover '{match[0]}'")
        if match := MACHINE.search(line):
            faults.append(f"{relative}:{number}: path of one machine '{match[0]}'")
        if line != line.rstrip():
            faults.append(f"{relative}:{number}: space at the end of the line")
    return faults


def main() -> int:
    root = Path(sys.argv[1]).resolve()
    faults, count = [], 0
    for path in files_of(root):
        relative = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        count += 1
        faults += check_file(relative, text, path.suffix)
    for fault in faults:
        print(fault)
    print(f"{count} files, {len(faults)} faults")
    if not count:
        print(f"error: expected files below {root}, found none")
        return 2
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
