"""Runs every test of a build tree and sums the results.

Streams the output of lit, ctest and pytest, then prints what failed and, as the
last line, "N passed, N failed[, N skipped]". Exit code 0 only when nothing
failed and each runner found tests: a runner that finds none, or that ends
without a readable result, counts as a failure.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Result:
    """Counts of one runner; `failures` names each failed test."""

    passed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)


def read_junit(path: Path) -> Result:
    """Reads the JUnit file that lit, ctest and pytest each write."""
    result = Result()
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
        children = {child.tag: child.get("message", "") for child in case}
        status = case.get("status", "run")
        # ctest writes "notrun" both for a test that skipped itself (SKIP_...) and
        # for one whose program was not built; only the first is a choice.
        not_run = status == "notrun" and "SKIP_" not in children.get("skipped", "")
        if children.keys() & {"failure", "error"} or status == "fail" or not_run:
            result.failures.append(name)
        elif "skipped" in children or status == "disabled":
            result.skipped += 1
        else:
            result.passed += 1
    return result


def run(name: str, command: list[str], report: Path, env: dict) -> Result:
    """Runs one runner with its output streamed, and reads its report."""
    print(f"\n== {name}: {' '.join(command)}", flush=True)
    report.unlink(missing_ok=True)
    try:
        code = subprocess.run(command, check=False, env=env).returncode
    except OSError as error:
        return Result(failures=[f"{name}: cannot start {command[0]}: {error}"])
    try:
        result = read_junit(report)
    except (OSError, ElementTree.ParseError) as error:
        return Result(failures=[f"{name}: exit code {code} and no readable result: {error}"])
    if not (result.passed or result.skipped or result.failures):
        result.failures.append(f"{name}: expected tests, found none")
    elif code != 0 and not result.failures:
        result.failures.append(f"{name}: exit code {code} though no test failed")
    return result


# Tests of what meets transformers; they run with the newest version that is supported
# and with the oldest.
MEETS_TRANSFORMERS = (
    "test_hf.py", "test_hf_compile.py", "test_hf_families.py", "test_hf_graph.py",
    "test_hf_library.py", "test_hf_misuse.py", "test_hf_modes.py", "test_hf_padding.py",
    "test_engine.py", "test_modelfiles.py", "test_transformers_serve.py",
)  # fmt: skip


def run_oldest(report: Path, env: dict) -> Result:
    """The tests of moa.hf with the packages of tools/requirements-oldest.txt."""
    packages = Path(sys.prefix) / "oldest"
    if not (packages / "transformers").is_dir():
        return Result(failures=[f"oldest: expected {packages}, found none: run tools/setup.sh"])
    env = env | {"PYTHONPATH": f"{packages}{os.pathsep}{env['PYTHONPATH']}"}
    tests = [str(ROOT / "test" / "python" / name) for name in MEETS_TRANSFORMERS]
    command = [sys.executable, "-m", "pytest", *tests, "-q", "-p", "no:cacheprovider"]
    return run("oldest", [*command, "--junitxml", str(report)], report, env)


# Tests of the runtime for each sanitizer, as a regular expression of ctest.
# Kernels of compiled plans run as they are, machine code without checks. ASan
# and UBSan take all that is not long; TSan what has threads.
SANITIZED = {
    "asan": "Reader|^Batch|^Cache|Work|Pool|Prefix|Merge|Shared|Fault|Span|Step"
    "|Api|Allocator|RangeHooks|Cuda(Attend|Batch|Device)|RuntimeCpp|Refused"
    "|x86_64_v3_(Sinks|ShortWindows|Turns|RaggedBatch|Strides)",
    "tsan": r"^Batch|^Cache\.(Out|Seq)|ThreadPool|Shared|RangeHooks|RuntimeCpp|Refused"
    r"|Bits\.DoNotDepend.*v3",
}
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "halt_on_error=1:detect_leaks=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


def run_sanitized(name: str, jobs: str, report: Path, env: dict) -> Result:
    """Builds the preset of a sanitizer and runs the tests chosen for it."""
    build = ROOT / f"build-{name}"
    for command in (["cmake", "--preset", name], ["cmake", "--build", str(build), "-j", jobs]):
        print(f"\n== {name}: {' '.join(command)}", flush=True)
        if subprocess.run(command, check=False, cwd=ROOT).returncode:
            return Result(failures=[f"{name}: {' '.join(command)} failed"])
    command = ["ctest", "--test-dir", str(build), "--output-on-failure", "-j", jobs]
    command += ["-R", SANITIZED[name], "--output-junit", str(report)]
    return run(name, command, report, env | SANITIZER_OPTIONS)


def run_types(report: Path, env: dict) -> Result:
    """Type-checks what pyproject.toml names, as strictly as it says."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(report.parent / "mypy"), "--junit-xml", str(report)]
    return run("types", command, report, env)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--only",
        choices=("lit", "unit", "python", "oldest", "types", *SANITIZED, "fuzz"),
        action="append",
        help="repeatable",
    )
    args = parser.parse_args()
    build = args.build.resolve()
    reports = build / "test-results"
    reports.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ, MOA_BUILD_DIR=str(build), PYTHONPATH=str(build / "python"))
    jobs = str(args.jobs)
    # The interpreter that runs this file is the one of the private environment.
    lit = [sys.executable, "-c", "from lit.main import main; main()"]
    commands = {
        "lit": [*lit, "-v", f"-j{jobs}", str(build / "test"), "--xunit-xml-output"],
        "unit": ["ctest", "--test-dir", str(build), "--output-on-failure", "-j", jobs]
        + ["--output-junit"],
        "python": [sys.executable, "-m", "pytest", str(ROOT / "test" / "python"), "-q"]
        + ["-o", f"cache_dir={build}/.pytest_cache", "--junitxml"],
        "fuzz": [
            sys.executable,
            str(ROOT / "tools" / "fuzz.py"),
            "--check",
            "--jobs",
            jobs,
            "--junit",
        ],
    }
    results = {}
    for name in args.only or (*commands, "oldest", "types", *SANITIZED):
        report = reports / f"{name}.xml"
        if name == "types":
            results[name] = run_types(report, env)
        elif name == "oldest":
            results[name] = run_oldest(report, env)
        elif name in SANITIZED:
            results[name] = run_sanitized(name, jobs, report, env)
        else:
            results[name] = run(name, [*commands[name], str(report)], report, env)

    print()
    for name, result in results.items():
        for failure in result.failures:
            print(f"FAILED {name}: {failure}")
    for name, result in results.items():
        print(
            f"{name}: {result.passed} passed, {len(result.failures)} failed, "
            f"{result.skipped} skipped"
        )
    failed = sum(len(result.failures) for result in results.values())
    skipped = sum(result.skipped for result in results.values())
    passed = sum(result.passed for result in results.values())
    tail = f", {skipped} skipped" if skipped else ""
    print(f"{passed} passed, {failed} failed{tail}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
