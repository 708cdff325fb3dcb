"""Compile what 8-bit KV needs for head sizes and groups, and print what it takes.

`kv8.py PLAN DTYPE CHIP FOLDER`, a line a kernel that unpacks or makes codes:
    NAME registers N spilled N
PLAN is one for 30 layers of 9 heads; all its KV heads keep e4m3.
"""

import json
import pathlib
import subprocess
import sys

SHAPES = ((64, 9), (80, 3), (128, 3), (128, 1), (192, 3), (256, 3))


def main(plan, dtype, chip, folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rules = json.loads(pathlib.Path(plan).read_text())
    kept = {"format": "moa-plan", "version": 1, "kv": {"format": "e4m3"}}
    kept |= {key: rules[key][:1] for key in ("alphas", "betas")}
    (folder / "plan.json").write_text(json.dumps(kept))
    for dim, kv_heads in SHAPES:
        model = f"layers=1,q_heads=9,kv_heads={kv_heads},head_dim={dim}"
        command = ["moa-compile", folder / "plan.json", "--model", model, "--dtype", dtype]
        command += ["--phase", "decode", "--target", chip, "-o", folder / "out.moa", "--stats"]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            print(made.stderr)
            continue
        for kernel in json.loads(made.stdout)["kernels"]:
            if kernel["kind"] in ("decode", "quantise"):
                print(kernel["name"], "registers", kernel["registers"], "spilled",
                      kernel["spill_bytes"], flush=True)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
