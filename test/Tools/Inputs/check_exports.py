"""Checks that a library exports what its headers declare, documented.

Usage: check_exports.py PREFIX LIBRARY. Declarations are the MOA_API ones of
PREFIX/include/moa/*.h: each is exported, and its `///` comment says what it does
and ends with the threads that may call it and the version that it came with.
Nothing else is exported. Exit code 0 without faults, 1 with, 2 where nothing was
there to check.
"""

import re
import subprocess
import sys
from pathlib import Path

DECLARATION = re.compile(r"((?:^///.*\n)*)^MOA_API\b[^;(]*?\b(moa_\w+)\(", re.MULTILINE)
# How a comment ends, behind at least a sentence.
END = re.compile(
    r"[.)] Threads: (any|the cache's|the last that uses it)\. Since: \d+\.\d+$"
)


def main() -> int:
    prefix, library = Path(sys.argv[1]), sys.argv[2]
    documents = {}
    for header in sorted((prefix / "include" / "moa").glob("*.h")):
        for document, name in DECLARATION.findall(header.read_text(encoding="utf-8")):
            documents[name] = " ".join(document.replace("///", "").split())
    if not documents:
        print(f"error: expected declarations in {prefix}/include/moa, found none")
        return 2
    symbols = subprocess.run(
        ["llvm-nm", "-D", "--defined-only", "--format=just-symbols", library],
        capture_output=True, check=True, text=True,
    ).stdout.split()  # fmt: skip
    faults = [f"{name}: exported, but no header declares it" for name in symbols
              if name not in documents]  # fmt: skip
    for name, document in sorted(documents.items()):
        if name not in symbols:
            faults.append(f"{name}: declared, but not exported")
        if not document:
            faults.append(f"{name}: no documentation")
        elif not END.search(document):
            faults.append(
                f"{name}: expected 'What it does. Threads: WHOSE. Since: VERSION', "
                f"found '...{document[-60:]}'"
            )
    for fault in faults:
        print(fault)
    print(f"{len(documents)} declared, {len(symbols)} exported, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
