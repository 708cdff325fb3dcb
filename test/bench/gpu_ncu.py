"""Counters of the prefill, decode and prepare kernels by Nsight Compute, as JSON.

    python test/bench/gpu_ncu.py --artifacts DIR --output FILE

starts itself again under `ncu --clock-control none` and notes of each kernel: its
duration and clock, the rate of DRAM and the part of reads that L2 has, how busy the
tensor pipe and the issue slots are, the occupancy, and what the warps wait for
(average warps stalled a cycle of issue, the five longest). The file is one of
record.py without records, its counters under `nsight`. Caches are flushed before
each kernel, and each is run several times, once a group of counters: durations are
of one run, but not those of a benchmark. `steady_sm_ghz` and `steady_watts` are what
nvidia-smi reads while calls of prefill, or layers of decode, follow each other.
"""

import argparse
import concurrent.futures
import contextlib
import csv
import io
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import record

SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "WarpStateStats", "Occupancy")
#: Our name of a counter, Nsight Compute's (the first that is there), and a factor
#: from its base unit.
COUNTERS = {
    "duration_us": (r"gpu__time_duration\.sum", 1e-3),
    "dram_tb_per_s": (r"dram__bytes(_read)?\.sum\.per_second", 1e-12),
    "dram_percent": (r"(gpu__dram_throughput|dram__throughput)\.avg\.pct_of_peak.*", 1),
    "tensor_pipe_percent": (r"sm__(inst_executed_)?pipe_tensor.*pct_of_peak_sustained.*", 1),
    "sm_percent": (r"sm__throughput\.avg\.pct_of_peak.*", 1),
    "issue_percent": (r"smsp__issue_active\.avg\.pct_of_peak_sustained_active", 1),
    "l2_hit_percent": (r"lts__t_sector_hit_rate\.pct", 1),
    "sm_ghz": (r"sm__cycles_elapsed\.avg\.per_second", 1e-9),
    "occupancy_percent": (r"sm__warps_active\.avg\.pct_of_peak_sustained_active", 1),
    "registers": (r"launch__registers_per_thread", 1),
    "grid": (r"launch__grid_size", 1),
}  # fmt: skip
STALL = re.compile(
    r"smsp__average_warps?_(?:issue_stalled|latency_issue_stalled)_(\w+?)"
    r"(?:_per_issue_active)?\.(?:ratio|pct)"
)
#: Asked for beside the sections.
METRICS = (
    "dram__bytes.sum.per_second,lts__t_sector_hit_rate.pct,"
    "sm__cycles_elapsed.avg.per_second,smsp__issue_active.avg.pct_of_peak_sustained_active"
)
CASES = (
    "prefill:8192,prefill:65536,decode:1x8192,decode:16x8192,decode:16x32768,"
    "prepare:1x8192,prepare:16x8192"
)
#: Seconds that calls follow each other before clock and power are read, and while.
WARM, STEADY = 0.5, 1.0


def number(text):
    """A value of ncu's CSV, or None where it is none."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def parse(text):
    """Counters of each kernel from the raw page of ncu as CSV in base units."""
    # Output of the program and of ncu stands ahead of the table.
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        raise ValueError("expected a table of ncu, found none")
    rows = list(csv.DictReader(io.StringIO("\n".join(lines[start:]))))
    found = []
    for row in rows[1:]:  # The first has the units.
        values = {name: number(value or "") for name, value in row.items() if name}
        kernel = {"kernel": row["Kernel Name"]}
        for name, (pattern, factor) in COUNTERS.items():
            matches = [key for key in values if re.fullmatch(pattern, key)]
            numbers = [values[key] for key in matches if values[key] is not None]
            # Of several pipes of tensor operations, the busy one.
            if numbers:
                kernel[name] = max(numbers) * factor
        stalls = {}
        for key, value in values.items():
            match = STALL.fullmatch(key)
            if match and value is not None and not match[1].endswith("not_issued"):
                stalls[match[1]] = max(value, stalls.get(match[1], 0))
        longest = sorted(stalls.items(), key=lambda item: -item[1])[:5]
        kernel["stalled_warps"] = dict(longest)
        found.append(kernel)
    return found


def runs(artifacts, cases):
    """Of each case the call whose kernels are counted, and one that may be repeated:
    a call of prefill or a layer of decode; None for a preparation."""
    import torch
    from gpu_decode import Decode
    from gpu_model import Model, need_artifact
    from gpu_prefill import LAYER, Prefill

    torch.manual_seed(0)
    models = {}
    for case in cases:
        kind, size = case.split(":")
        # One launch prepares all layers.
        name = "layers" if kind == "prepare" else "one"
        if name not in models:
            models[name] = Model(need_artifact(artifacts, name))
        model = models[name]
        prefill = decode = again = None
        if kind == "prefill":
            prefill = Prefill(model, int(size))
            again = prefill.sequence()
            entry = prefill.entry(again)
            yield lambda: model.attend(prefill.cache, LAYER, entry), prefill.replay
        else:
            batch, length = map(int, size.split("x"))
            decode = Decode(model, batch, length, steps=2)
            # Steps with nothing new in them are what there is most of.
            decode.begin()
            decode.batch.end()
            if kind == "decode":
                decode.begin()
                yield lambda: decode.attend(0), model.captured(lambda: decode.attend(0))
            else:
                yield decode.begin, None
        # Frees the pages before the next case takes some.
        prefill = decode = again = entry = None
        torch.cuda.empty_cache()


def launch(artifacts, cases):
    """What runs under ncu: each case once, between marks of the profiler."""
    import torch

    for run, _ in runs(artifacts, cases):
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        run()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


def parse_smi(text):
    """Medians of clock and power, of lines "MHz, W"."""
    readings = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            clock, watts = map(float, line.split(","))
            readings.append((clock * 1e-3, watts))
    if not readings:
        raise ValueError(f"expected lines of clock and power of nvidia-smi, found {text!r}")
    clocks, watts = zip(*readings)
    return {
        "steady_sm_ghz": statistics.median(clocks),
        "steady_watts": statistics.median(watts),
    }


def steady(run):
    """Clock and power while `run` follows itself."""
    import torch

    def repeat():
        end = time.perf_counter() + WARM + STEADY
        while time.perf_counter() < end:
            for _ in range(20):
                run()
            torch.cuda.synchronize()

    command = [
        "nvidia-smi", "--query-gpu=clocks.sm,power.draw.instant",
        "--format=csv,noheader,nounits", f"--id={torch.cuda.current_device()}",
    ]  # fmt: skip
    text = ""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        repeated = pool.submit(repeat)
        time.sleep(WARM)
        while not repeated.done():
            text += subprocess.run(command, capture_output=True, text=True).stdout
        repeated.result()
    return parse_smi(text)


def profile(args):
    """ncu's table of all cases."""
    ncu = shutil.which("ncu")
    if not ncu:
        raise SystemExit("error: expected ncu of a CUDA toolkit in PATH, found none")
    sections = [part for name in SECTIONS for part in ("--section", name)]
    command = [
        ncu, "--clock-control", "none", "--profile-from-start", "off", "--csv", "--page", "raw",
        "--print-units", "base", "--kernel-name", "regex:prefill|decode|prepare", *sections,
        "--metrics", METRICS,
        sys.executable, __file__, "--launch", "--artifacts", str(args.artifacts),
        "--cases", args.cases,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"error: ncu failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("build/bench/artifacts"))
    parser.add_argument("--output", type=Path, default=Path("build/bench/nsight-gpu.json"))
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--commit", help="that the artifacts and the package are of")
    parser.add_argument("--launch", action="store_true", help="used when started by ncu")
    args = parser.parse_args()
    cases = args.cases.split(",")
    import torch
    from gpu_model import need_cuda

    need_cuda()
    if args.launch:
        launch(args.artifacts, cases)
        return 0
    text = profile(args)
    kernels = parse(text)
    if len(kernels) != len(cases):
        print(f"error: expected a kernel of each of {len(cases)} cases, found {len(kernels)}")
        return 1
    file = record.new_file(
        "nsight-gpu", torch.cuda.get_device_name(), commit=args.commit,
        packages=("moa", "torch"),
        setting={"shape": "llama-3-8b", "plan": "llama-3-8b-moa.json", "layer": 16},
    )  # fmt: skip
    file["nsight"] = [{"case": case, **kernel} for case, kernel in zip(cases, kernels)]
    record.write(file, args.output)
    for kernel, (_, run) in zip(file["nsight"], runs(args.artifacts, cases)):
        kernel.update(steady(run) if run else {})
        print(kernel, flush=True)
    print(f"written to {record.write(file, args.output)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
