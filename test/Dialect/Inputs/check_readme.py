"""Checks that a level's README names all of its operations and passes.

Usage: check_readme.py README OPERATIONS.td [PASSES.td]. Prints what is
nowhere in code marks, then counts; exit code 1 where something is missing.
"""

import re
import sys
from pathlib import Path

OPERATION = re.compile(r'^def \w+Op : \w+Op<"(\w+)"', re.MULTILINE)
PASS = re.compile(r': Pass<"([\w-]+)"')

readme, operations, *passes = (Path(name).read_text(encoding="utf-8") for name in sys.argv[1:])
prose = re.sub(r"^```.*?^```$", "", readme, flags=re.DOTALL | re.MULTILINE)
codes = [code for line in prose.splitlines() for code in re.findall(r"`([^`]+)`", line)]
# The first word of each piece of code, without the dialect.
named = {re.sub(r"^\w+\.", "", code.split()[0]) for code in codes}
names = OPERATION.findall(operations) + [n for text in passes for n in PASS.findall(text)]
missing = [name for name in names if name not in named]
for name in missing:
    print(f"nothing names '{name}'")
print(f"{len(names)} names, {len(missing)} missing")
sys.exit(bool(missing))
