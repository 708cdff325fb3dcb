"""The one JSON form of benchmark results: makes, checks, writes and reads it.

A file tells of one run on one device; each of its records is one measurement by
one method, with the unit in the names of its keys. README.md beside this file
lists the keys.

    python test/bench/record.py A.json B.json -o ALL.json

joins files of one device, commit and setting; the first names the suite.
"""

import argparse
import datetime
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

SCHEMA = 2
#: Keys of a file, with the types of their values; None where it was not noted.
FILE = {
    "schema": int, "suite": str, "date": str, "commit": str, "device": str,
    "driver": str, "chip": str, "versions": dict, "setting": dict, "records": list,
}  # fmt: skip
UNKNOWN = {"date", "commit", "driver", "chip"}
#: What a file may have besides.
MORE = {"ceilings": dict, "nsight": list}
CASE = {
    "kind": str, "who": str, "method": str, "mask": str, "plan": str, "dtype": str,
    "batch": int, "length": int, "q_heads": int, "kv_heads": int, "head_dim": int,
    "prompt": int, "tokens": int, "max_tokens": int, "new": int,
    "case": str, "kv": str, "layers": int, "rules": int, "rules_per_layer": int,
    "objectives": int, "decode_parts": int, "soft_cap": float,
}  # fmt: skip
KINDS = {"prefill", "decode", "prepare", "generate", "model", "serve", "optimize", "quality",
         "profile", "compile"}  # fmt: skip
METHODS = {"clean", "do_bench", "graph", "steps", "queued", "fastest", "median", "wall",
           "masks", "cold", "cached"}  # fmt: skip
MASKS = {"plan", "causal"}
#: Results end in a unit, or are one of these.
UNITS = ("_us", "_ms", "_s", "_per_s", "_mb", "_bytes", "_layers", "_tokens", "_items",
         "_nats")  # fmt: skip
PLAIN = {"us", "max_rel_err", "density", "fraction_of_matmul", "fraction_of_read",
         "fraction_of_floor", "captured", "gap_at_difference", "gap", "median_gap", "objective",
         "plans", "requests", "errors", "closed_by_clients", "preemptions", "most_running",
         "most_waiting", "of_bf16", "ratio_to_one_by_one", "asked", "predicted"}  # fmt: skip


def driver_version():
    """Version of the NVIDIA driver, or None where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.split("\n")[0].strip() or None if done.returncode == 0 else None


def processor():
    """Name of the CPU, as the system tells it."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else platform.machine()


def versions(*packages):
    """Versions of Python and of the named packages, None for absent ones."""
    found = {"python": platform.python_version()}
    for name in packages:
        module = sys.modules.get(name)
        try:
            found[name] = getattr(module, "__version__", None) or importlib.metadata.version(
                name
            )
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def new_file(suite, device, *, setting, chip=None, commit=None, packages=("moa", "torch")):
    """A file without records. `setting`: what all its records have in common."""
    return {
        "schema": SCHEMA, "suite": suite,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit, "device": device, "driver": driver_version(), "chip": chip,
        "versions": versions(*packages), "setting": setting, "records": [],
    }  # fmt: skip


def faults(file):
    """What is wrong with a file, one line a fault."""
    found = []
    for key, kind in FILE.items():
        value = file.get(key)
        if not isinstance(value, kind) and not (value is None and key in UNKNOWN):
            found.append(f"{key}: expected {kind.__name__}, found {value!r}")
    for key in file.keys() - FILE.keys():
        if not isinstance(file[key], MORE.get(key, ())):
            found.append(f"{key}: not a key of a file, or of another type")
    if file.get("schema") != SCHEMA:
        found.append(f"schema: expected {SCHEMA}, found {file.get('schema')!r}")
    for i, record in enumerate(file.get("records") or []):
        found += [f"record {i}: {fault}" for fault in record_faults(record)]
    return found


def record_faults(record):
    """What is wrong with a record, one line a fault."""
    found = []
    for key, known in (("kind", KINDS), ("method", METHODS), ("mask", MASKS)):
        if key == "method" and "skipped" in record:
            continue
        if record.get(key) not in known:
            found.append(f"{key}: expected one of {sorted(known)}, found {record.get(key)!r}")
    if "who" not in record:
        found.append("who: expected a name, found none")
    if "skipped" in record and not (isinstance(record["skipped"], str) and record["skipped"]):
        found.append("skipped: expected a reason")
    results = 0
    for key, value in record.items():
        if key in CASE:
            if not isinstance(value, CASE[key]):
                found.append(f"{key}: expected {CASE[key].__name__}, found {value!r}")
        elif key != "skipped":
            results += 1
            if not (key in PLAIN or key.endswith(UNITS)):
                found.append(f"{key}: a result needs a unit at its end")
            if value is not None and not isinstance(value, (int, float)):
                found.append(f"{key}: expected a number, found {value!r}")
    if not results and "skipped" not in record:
        found.append("expected a result or a reason to skip it, found neither")
    return found


def check(file, name):
    found = faults(file)
    if found:
        raise ValueError(f"{name}: {found[0]} ({len(found)} faults)")
    return file


def write(file, path):
    """Writes a file; a record a line, so that two runs compare well."""
    path = Path(path)
    check(file, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps(
        {k: v for k, v in file.items() if k not in ("records", "nsight")}, indent=1
    )
    parts = [head[:-2]]
    for key in ("records", "nsight"):
        if key in file:
            lines = ",\n".join("  " + json.dumps(line) for line in file[key])
            parts.append(f' "{key}": [\n{lines}\n ]' if lines else f' "{key}": []')
    path.write_text(",\n".join(parts) + "\n}\n")
    return path


def read(path):
    """A file of any suite, checked."""
    return check(json.loads(Path(path).read_text()), path)


def join(files):
    """One file of the records and counters of several of one run's circumstances."""
    first, *others = files
    joined = {**first, "records": [], "nsight": []}
    for file in files:
        joined["records"] += file["records"]
        joined["nsight"] += file.get("nsight", [])
    if not joined["nsight"]:
        del joined["nsight"]
    for other in others:
        for key in ("device", "driver", "commit", "setting"):
            if other[key] != first[key]:
                raise ValueError(f"{key}: expected {first[key]!r} in all, found {other[key]!r}")
    return joined


def main() -> int:
    parser = argparse.ArgumentParser(description="Joins results of one device.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    try:
        print(f"written to {write(join([read(path) for path in args.files]), args.output)}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
