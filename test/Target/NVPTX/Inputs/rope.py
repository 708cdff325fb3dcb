"""Compile rope kernels of every head size, type and layout; print their spills.

Usage: rope.py PLAN OUT.moa. One line a layout, type and chip.
"""

import json
import subprocess
import sys

plan, out = sys.argv[1:]
DIMS = (64, 80, 96, 128, 192, 256)
for layout in ("half", "interleaved"):
    for dtype in ("bf16", "f16", "f32"):
        facts = {"sm_80": [], "sm_90a": []}
        for dim in DIMS:
            model = f"layers=30,q_heads=9,kv_heads=3,head_dim={dim}"
            command = ["moa-compile", plan, "--model", model, "--dtype", dtype]
            # Decode compiles fast, and not at all in f32.
            command += ["--phase", "decode,append", "--rope", layout]
            command += ["--target", "sm_80,sm_90a", "-o", out, "--stats"]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            for kernel in json.loads(result.stdout)["kernels"]:
                if kernel["kind"] == "rope":
                    facts[kernel["target"]].append(
                        f"{kernel['spill_bytes']}/{kernel['shared_bytes']}"
                    )
        for chip, values in facts.items():
            print(layout, dtype, chip, *values)
