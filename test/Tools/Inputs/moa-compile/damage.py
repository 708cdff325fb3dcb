"""Damage every cache entry of a folder: `damage.py flip|cut FOLDER`."""

import pathlib
import sys

entries = sorted(pathlib.Path(sys.argv[2]).glob("*.moa-cache"))
assert entries, f"expected entries in {sys.argv[2]}, found none"
for entry in entries:
    data = bytearray(entry.read_bytes())
    if sys.argv[1] == "flip":
        data[len(data) * 3 // 4] ^= 1
    else:
        del data[len(data) // 2 :]
    entry.write_bytes(data)
