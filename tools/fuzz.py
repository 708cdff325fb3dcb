"""Builds the fuzz targets and runs each over its corpus and new inputs.

    tools/fuzz.py [--seconds N] [--check] [--jobs N] [--only TARGET] [--junit FILE]
    tools/fuzz.py --keep FOLDER

A target is a `moa_add_fuzz_target` of test/fuzz/CMakeLists.txt. First its corpus
in the tree runs, then it looks for new inputs for the time given, from seeds of
the tests' inputs and those that earlier runs found (test/fuzz/seeds.tar.xz). With
--check, as make check has it, the same inputs are tried every time: as many as most
machines try in a minute. --keep makes the seeds anew of these and of what lies in
FOLDER/TARGET, build-fuzz/work after a run: of each target a few inputs that reach
all code that any of them reaches.
What it finds lies in build-fuzz/found/TARGET-*; reproduce it with
`build-fuzz/bin/moa-fuzz-TARGET FILE` and the options this program prints.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build-fuzz"
FUZZ = ROOT / "test" / "fuzz"
SEEDS = FUZZ / "seeds.tar.xz"  # TARGET/NAME
# The libraries of LLVM are those of the distribution, without checks: containers
# that cross to them and memory pools they share with inline code of their headers
# would look wrong, so these two checks are off.
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_container_overflow=0:allow_user_poisoning=0"
    ":allocator_may_return_null=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
LIMITS = ["-timeout=10", "-rss_limit_mb=2048", "-malloc_limit_mb=512"]
MOST_BYTES = {"snapshot": 65536}  # Pages of two layers; 16384 elsewhere.
MOST_SEED_BYTES = 8 << 10
#: Inputs that --check tries of each target, in about half a minute each.
CHECKED_RUNS = {"artifact": 200000, "snapshot": 100000, "plan": 80000, "model": 200000,
                "roundtrip": 3000, "pipeline": 5000}  # fmt: skip


def targets() -> list[str]:
    text = (FUZZ / "CMakeLists.txt").read_text()
    return re.findall(r"^moa_add_fuzz_target\((\w+)", text, re.MULTILINE)


def add_seed(folder: Path, name: str, data: bytes) -> None:
    if len(data) <= MOST_SEED_BYTES:
        (folder / name).write_bytes(data)


def make_seeds(target: str) -> Path:
    """Writes the small inputs of the tests as seeds, one for each `// -----`, and SEEDS."""
    folder = BUILD / "seeds" / target
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    patterns = {
        "plan": ["Inputs/plans/*.json", "Tools/Inputs/moa-compile/*.json"],
        "model": ["Tools/Inputs/moa-compile/*.json"],
        "roundtrip": ["Dialect/*/*.mlir", "Conversion/*/*.mlir"],
        "pipeline": ["Pipelines/*.mlir", "Dialect/Moa/*.mlir", "Conversion/MoaToTile/*.mlir"],
    }
    for pattern in patterns.get(target, []):
        for file in (ROOT / "test").glob(pattern):
            for i, part in enumerate(file.read_bytes().split(b"// -----")):
                add_seed(folder, f"{file.stem}-{i}", part)
    with tarfile.open(SEEDS) as archive:
        for member in archive.getmembers():
            of, _, name = member.name.partition("/")
            if of == target:
                (folder / name).write_bytes(archive.extractfile(member).read())
    return folder


def keep(chosen: list[str], found: Path) -> None:
    """Writes SEEDS: the least inputs by which each target reaches what it has reached."""
    kept = BUILD / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    for target in chosen:
        (kept / target).mkdir(parents=True)
        command = [str(BUILD / "bin" / f"moa-fuzz-{target}"), *limits_of(target)]
        command += ["-set_cover_merge=1", "-use_counters=0"]
        folders = [kept / target, make_seeds(target), found / target]
        command += [str(folder) for folder in folders if folder.is_dir()]
        subprocess.run(command, env=os.environ | OPTIONS, capture_output=True, check=True)
    with tarfile.open(SEEDS, "w:xz") as archive:
        for file in sorted(kept.glob("*/*")):
            facts = tarfile.TarInfo(str(file.relative_to(kept)))
            facts.size = file.stat().st_size
            with file.open("rb") as data:
                archive.addfile(facts, data)
    print(f"{SEEDS}: {SEEDS.stat().st_size} bytes")


def limits_of(target: str) -> list[str]:
    return [*LIMITS, f"-max_len={MOST_BYTES.get(target, 16384)}"]


def run_target(target: str, seconds: int, check: bool) -> tuple[str, str, str]:
    """The target, its failure or "", and one line on what it did."""
    program = str(BUILD / "bin" / f"moa-fuzz-{target}")
    env = os.environ | OPTIONS
    found = BUILD / "found"
    work = BUILD / ("check" if check else "work") / target
    if check:
        shutil.rmtree(work, ignore_errors=True)
    for folder in (found, work):
        folder.mkdir(parents=True, exist_ok=True)
    corpus = FUZZ / "corpus" / target
    corpora = [str(folder) for folder in (corpus, make_seeds(target)) if folder.is_dir()]
    common = [program, *limits_of(target), f"-artifact_prefix={found}/{target}-"]
    kept = sorted(str(file) for file in corpus.glob("*"))
    commands = [[*common, *kept]] if kept else []
    if seconds:
        commands.append([*common, f"-max_total_time={seconds}", "-print_final_stats=1"])
        if check:
            commands[-1] += ["-seed=1", f"-runs={CHECKED_RUNS[target]}"]
        commands[-1] += [str(work), *corpora]
    text = ""
    for command in commands:
        run = subprocess.run(command, env=env, capture_output=True, check=False)
        text = run.stderr.decode(errors="replace")
        if run.returncode:
            return target, " ".join(command[:-1]) + "\n" + text[-6000:], ""
    counts = dict(re.findall(r"stat::(\w+):\s+(\d+)", text))
    executed = counts.get("number_of_executed_units", "0")
    rate = counts.get("average_exec_per_sec", "0")
    return target, "", f"{len(kept)} kept inputs, {executed} runs, {rate} a second"


def write_junit(path: Path, results: list[tuple[str, str, str]]) -> None:
    suite = ElementTree.Element("testsuite", name="fuzz")
    for target, failure, _ in results:
        case = ElementTree.SubElement(suite, "testcase", classname="fuzz", name=target)
        if failure:
            ElementTree.SubElement(case, "failure", message="see the output")
    ElementTree.ElementTree(suite).write(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = int(os.environ.get("FUZZ_SECONDS", "60"))
    parser.add_argument("--seconds", type=int, default=default, help="for each target")
    parser.add_argument("--check", action="store_true", help="the same inputs every time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=targets(), action="append", help="repeatable")
    parser.add_argument("--junit", type=Path, help="write the results as JUnit XML")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make the seeds anew")
    args = parser.parse_args()
    if args.keep and args.only:
        parser.error("--keep makes the seeds of all targets: expected no --only")
    chosen = args.only or targets()
    programs = [f"moa-fuzz-{target}" for target in chosen]
    for command in (
        ["cmake", "--preset", "fuzz"],
        ["cmake", "--build", str(BUILD), "-j", str(args.jobs), "--target", *programs],
    ):
        if subprocess.run(command, check=False, cwd=ROOT).returncode:
            return 1
    if args.keep:
        keep(chosen, args.keep)
        return 0
    print("options: " + " ".join(f"{k}={v}" for k, v in OPTIONS.items()))
    results = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for result in pool.map(lambda name: run_target(name, args.seconds, args.check), chosen):
            target, failure, line = result
            print(f"FAILED {target}: {failure}" if failure else f"{target}: {line}", flush=True)
            results.append(result)
    if args.junit:
        write_junit(args.junit, results)
    return 1 if any(failure for _, failure, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
