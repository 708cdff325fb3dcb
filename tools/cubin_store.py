"""Assembles the GPU kernels of common structures, for a wheel.

Usage: cubin_store.py MOA_COMPILE PTXAS OUT. A kernel holds nothing of a plan, so
one plan a structure makes the cubins of all. OUT is replaced, whole or not at all.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

#: Head size -> query heads of a KV head. Published models have them: 64 SmolLM2,
#: Llama-3.2-1B, Qwen2.5-0.5B; 80 Phi-2; 96 Phi-3; 128 most; 256 Gemma.
GROUPS = {
    64: (1, 2, 3, 4, 5, 6, 7, 8),
    80: (1, 2, 4, 8),
    96: (1, 2, 4, 8),
    128: (1, 2, 3, 4, 5, 6, 7, 8, 12, 16),
    192: (1, 2, 4, 8),
    256: (1, 2, 4, 8),
}
#: The same of KV heads that keep 8 bits, in bf16.
GROUPS_KV8 = {64: range(1, 9), 128: range(1, 9)}
#: (head size, query heads of a KV head, soft cap): Gemma 2 of 2B and 9B, of 27B.
CAPPED = ((256, 2, 50), (128, 2, 50))
TARGETS = "sm_90a,sm_80"


def structures():
    """(dtype, head size, group, phases, more of the plan, more of the model) of each
    compilation, each kernel once."""
    for head_dim, groups in GROUPS.items():
        yield "f32", head_dim, 1, "prefill,append", {}, ""  # No decode kernel in f32.
        for dtype in ("bf16", "f16"):
            yield dtype, head_dim, groups[0], "prefill,append,decode", {}, ""
            for group in groups[1:]:
                yield dtype, head_dim, group, "decode", {}, ""
    kept = {"kv": {"format": "e4m3"}}
    for head_dim, groups in GROUPS_KV8.items():
        yield "bf16", head_dim, groups[0], "prefill,append,decode", kept, ""
        for group in groups[1:]:
            yield "bf16", head_dim, group, "decode", kept, ""
    for head_dim, group, cap in CAPPED:
        more = f",soft_cap={cap}"
        yield "f32", head_dim, 1, "prefill", {}, more
        for dtype in ("bf16", "f16"):
            yield dtype, head_dim, group, "prefill,decode", {}, more


def compile_one(compiler, ptxas, store, folder, structure):
    """Adds the kernels of one structure to the store; returns what went wrong."""
    dtype, head_dim, group, phases, more, of_model = structure
    shape = f"layers=1,q_heads={group},kv_heads=1,head_dim={head_dim}{of_model}"
    plan = folder / f"{dtype}-{head_dim}-{group}-{'-'.join(more)}{of_model}.json"
    rules = {"alphas": [[0] * group], "betas": [[1] * group], **more}
    plan.write_text(json.dumps({"format": "moa-plan", "version": 1, **rules}))
    done = subprocess.run(
        [
            compiler, plan, "--model", shape,
            "--dtype", dtype, "--phase", phases, "--target", TARGETS, "--jobs", "1",
            "--ptxas", ptxas, "--cubins", store, "-o", os.devnull,
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode or "warning:" in done.stderr:
        return f"{dtype}, {shape}: {done.stderr.strip()}"
    return None


def main():
    compiler, ptxas, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="cubins-") as folder:
        folder = Path(folder)
        store = folder / "store"
        jobs = int(os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or os.cpu_count() or 1)
        with ThreadPoolExecutor(jobs) as pool:
            failures = pool.map(
                lambda structure: compile_one(compiler, ptxas, store, folder, structure),
                structures(),
            )
            wrong = [failure for failure in failures if failure]
        if wrong:
            sys.exit("\n".join(wrong))
        shutil.rmtree(out, ignore_errors=True)
        store.rename(out)
    sizes = [entry.stat().st_size for entry in out.iterdir()]
    print(f"{len(sizes)} cubins, {sum(sizes) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
