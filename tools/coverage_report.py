"""Prints line coverage by folder and in total, from the export of llvm-cov.

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
    files = []
    for file in json.loads(args.export.read_text())["data"][0]["files"]:
        path = Path(file["filename"])
        if not path.is_relative_to(ROOT):
            continue
        lines = file["summary"]["lines"]
        relative = path.relative_to(ROOT)
        files.append((lines["count"] - lines["covered"], lines["percent"], relative))
        for key in (relative.parent.as_posix(), "total"):
            folders[key][0] += lines["covered"]
            folders[key][1] += lines["count"]
    if not files:
        print(f"error: expected files below {ROOT} in {args.export}, found none")
        return 2
    covered, count = folders.pop("total")
    width = max(len(folder) for folder in folders)
    for folder, (hit, lines) in sorted(folders.items()):
        print(f"{folder:{width}}  {hit:6} of {lines:6} lines  {hit / max(lines, 1):7.1%}")
    print("files with the most lines not run:")
    for missed, percent, relative in sorted(files, reverse=True)[:8]:
        print(f"  {missed:5} lines  {percent:5.1f}%  {relative}")
    total = 100.0 * covered / count
    print(f"total: {covered} of {count} lines, {total:.1f}%")
    if total < args.min:
        print(f"error: expected at least {args.min}%, found {total:.1f}%")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
