"""Prints line coverage by folder, of each part and in total, from llvm-cov's export.

Usage: coverage_report.py COVERAGE.json [--min PERCENT]. Exit code 1 when the
total is below PERCENT, 2 when the export names no file.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("--min", type=float, default=0.0)
    args = parser.parse_args()
    folders = defaultdict(lambda: [0, 0])
    parts = defaultdict(lambda: [0, 0])  # The first folder of a path.
    files = []
    for file in json.loads(args.export.read_text())["data"][0]["files"]:
        path = Path(file["filename"])
        if not path.is_relative_to(ROOT):
            continue
        lines = file["summary"]["lines"]
        relative = path.relative_to(ROOT)
        files.append((lines["count"] - lines["covered"], lines["percent"], relative))
        for sums in (folders[relative.parent.as_posix()], parts[relative.parts[0]]):
            sums[0] += lines["covered"]
            sums[1] += lines["count"]
    if not files:
        print(f"error: expected files below {ROOT} in {args.export}, found none")
        return 2
    covered, count = (sum(column) for column in zip(*parts.values(), strict=True))
    width = max(len(folder) for folder in folders)
    for folder, (hit, lines) in sorted(folders.items()):
        print(f"{folder:{width}}  {hit:6} of {lines:6} lines  {hit / max(lines, 1):7.1%}")
    print("files with the most lines not run:")
    for missed, percent, relative in sorted(files, reverse=True)[:8]:
        print(f"  {missed:5} lines  {percent:5.1f}%  {relative}")
    for part, (hit, lines) in sorted(parts.items()):
        print(f"{part}: {hit} of {lines} lines, {hit / max(lines, 1):.1%}")
    total = 100.0 * covered / count
    print(f"total: {covered} of {count} lines, {total:.1f}%")
    if total < args.min:
        print(f"error: expected at least {args.min}%, found {total:.1f}%")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
