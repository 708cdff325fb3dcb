"""Prints how tools/run_checks.py counts a report: read-junit.py ROOT REPORT."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(sys.argv[1]) / "tools"))
from run_checks import read_junit

result = read_junit(Path(sys.argv[2]))
print(f"passed={result.passed} skipped={result.skipped} failures={result.failures}")
