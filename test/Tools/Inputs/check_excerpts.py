"""Checks the MLIR shown in a document against what the tools print.

Usage: check_excerpts.py DOCUMENT OUTPUT... The i-th ```mlir block of DOCUMENT is
compared with the i-th OUTPUT file: its runs of lines, parted by `...`, must each
stand in the file as they are, in order. Prints the first run that does not.
"""

import re
import sys

document, *outputs = sys.argv[1:]
with open(document) as file:
    blocks = re.findall(r"^```mlir\n(.*?)^```$", file.read(), re.M | re.S)
if len(blocks) != len(outputs):
    sys.exit(f"expected {len(outputs)} mlir blocks in {document}, found {len(blocks)}")
for block, path in zip(blocks, outputs):
    with open(path) as file:
        text = file.read()
    position = 0
    for run in re.split(r"^\.\.\.\n", block, flags=re.M):
        position = text.find(run, position)
        if position < 0:
            sys.exit(f"{path} does not hold, after what stands before it:\n{run}")
        position += len(run)
print(f"{len(blocks)} blocks as printed")
