"""Compile wide decode kernels of every head size, group and type; print their spills.

`decode_wide.py PLAN OUT.moa`, a line a type, chip and group: the name of the last
kernel, then SPILLED/SHARED bytes of each head size. PLAN is one for 30 layers of 9 heads.
"""

import json
import subprocess
import sys

DIMS = (64, 80, 96, 128, 192, 256)


def main(plan, out):
    for dtype in ("bf16", "f16"):
        for kv_heads in (9, 3):
            facts = {"sm_80": [], "sm_90a": []}
            for dim in DIMS:
                model = f"layers=30,q_heads=9,kv_heads={kv_heads},head_dim={dim}"
                command = ["moa-compile", plan, "--model", model, "--dtype", dtype]
                command += ["--phase", "decode", "--target", "sm_80,sm_90a"]
                command += ["-o", out, "--stats"]
                result = subprocess.run(command, check=True, capture_output=True, text=True)
                for kernel in json.loads(result.stdout)["kernels"]:
                    if kernel["name"].endswith("_c16"):
                        fact = f"{kernel['spill_bytes']}/{kernel['shared_bytes']}"
                        facts[kernel["target"]].append((kernel["name"], fact))
            for chip, values in facts.items():
                print(chip, values[-1][0], *(fact for _, fact in values), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
