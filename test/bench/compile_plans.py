"""How long `moa-compile` takes for the published plans, and what it makes of them.

    build/venv/bin/python test/bench/compile_plans.py --output FILE

compiles each plan of test/Inputs/plans in bf16 to the CPU, sm_80 and sm_90a: `cold`
with an empty cache and without finished cubins, so that LLVM and ptxas do all of it,
`cached` the same again, the median of five. Exits 1 where a kernel spills or an
artifact has more than 4 MiB. Needs ptxas.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record

from moa import programs

PLANS = Path(__file__).resolve().parents[1] / "Inputs/plans"
#: Layers, query heads, KV heads and head size of each model.
MODELS = {
    "smollm2": (30, 9, 3, 64), "llama-3.2-1b": (16, 32, 8, 64),
    "llama-3.2-3b": (28, 24, 8, 128), "llama-3-8b": (32, 32, 8, 128),
    "llama-3-70b": (80, 64, 8, 128), "vicuna-7b": (32, 32, 32, 128),
    "vicuna-13b": (40, 40, 40, 128),
}  # fmt: skip
TARGETS = "cpu,sm_80,sm_90a"
MOST_BYTES = 4 << 20
CACHED = 5


def timed(command):
    """Microseconds by the clock, seconds of all processors, statistics."""
    begun, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    us = (time.perf_counter() - begun) * 1e6
    if done.returncode != 0:
        raise SystemExit(f"error: {' '.join(map(str, command))}:\n{done.stderr[-2000:]}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return us, spent, json.loads(done.stdout)


def measure(name, targets=TARGETS):
    """Records of one plan, cold and cached."""
    model = name.rsplit("-", 1)[0]
    layers, q_heads, kv_heads, dim = MODELS[model]
    case = {"kind": "compile", "who": "ours", "mask": "plan", "plan": name, "dtype": "bf16",
            "layers": layers, "q_heads": q_heads, "kv_heads": kv_heads,
            "head_dim": dim}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "out.moa"
        command = [
            programs.find("moa-compile"), PLANS / f"{name}.json", "--model",
            f"layers={layers},q_heads={q_heads},kv_heads={kv_heads},head_dim={dim}",
            "--dtype", "bf16", "--target", targets, "--cubins", "none", "--cache-dir",
            Path(folder) / "cache", "-o", artifact, "--stats",
        ]  # fmt: skip
        us, spent, stats = timed(command)
        on_gpu = [kernel for kernel in stats["kernels"] if kernel["target"].startswith("sm_")]
        if any(kernel["spill_bytes"] is None for kernel in on_gpu):
            raise SystemExit("error: expected ptxas of a CUDA toolkit, found none")
        spills = sum(kernel["spill_bytes"] for kernel in on_gpu)
        made = {"artifact_bytes": artifact.stat().st_size, "spill_bytes": spills}
        cold = {**case, "method": "cold", "us": us, "processor_s": spent, **made}
        again = [timed(command) for _ in range(CACHED)]
        if stats["cache_hit"] or not all(stats["cache_hit"] for _, _, stats in again):
            raise SystemExit(f"error: {name}: expected a hit in each run but the first")
        us, spent = (statistics.median(run[i] for run in again) for i in (0, 1))
        return [cold, {**case, "method": "cached", "us": us, "processor_s": spent, **made}]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/bench/compile.json"))
    parser.add_argument("--commit", help="that the compiler is of")
    parser.add_argument("--plans", help="of test/Inputs/plans, without .json; else all")
    args = parser.parse_args()
    names = sorted(path.stem for path in PLANS.glob("*.json"))
    file = record.new_file(
        "compile", record.processor(), commit=args.commit, packages=("moa",),
        setting={"targets": TARGETS, "cores": len(os.sched_getaffinity(0))},
    )  # fmt: skip
    bad = False
    for name in args.plans.split(",") if args.plans else names:
        cold, cached = measure(name)
        file["records"] += [cold, cached]
        wrong = cold["spill_bytes"] or cold["artifact_bytes"] > MOST_BYTES
        bad |= bool(wrong)
        print(
            f"{name:22} cold {cold['us'] * 1e-6:5.2f} s ({cold['processor_s']:5.2f} s of"
            f" processors), cached {cached['us'] * 1e-3:4.0f} ms,"
            f" {cold['artifact_bytes'] / 2**20:.2f} MiB, {cold['spill_bytes']} bytes spilled"
            + ("; expected none and at most 4 MiB" if wrong else ""),
            flush=True,
        )
    print(f"written to {record.write(file, args.output)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
