"""Compile what 8-bit KV needs for every head size, and print what the code is made of.

`kv8.py PLAN DTYPE CHIP NVDISASM FOLDER`, a line a kernel that reads or makes codes:
    NAME spilled N local N HGMMA N HMMA N LDSM N MOVM N UTMALDG N UBLKCP N LDGSTS N
`local` counts instructions of local memory. PLAN is one for 30 layers of 9 heads; all its
KV heads keep e4m3.
"""

import collections
import json
import pathlib
import re
import shutil
import sys

from matrix import run
from sass import class_of, instructions

SHAPES = ((64, 9), (80, 3), (96, 3), (128, 3), (128, 1), (192, 3), (256, 3))
CLASSES = ("HGMMA", "HMMA", "LDSM", "MOVM", "UTMALDG", "UBLKCP", "LDGSTS")


def cubins(folder):
    """(kernel, path of its cubin) of all that the compiler has left there."""
    for entry in list(folder.iterdir()):
        code = entry.read_bytes()
        code = code[code.index(b"\x7fELF") :]
        path = entry.with_suffix(".cubin")
        path.write_bytes(code)
        yield re.search(rb"\.text\.(\w+)\0", code)[1].decode(), path


def main(plan, dtype, chip, nvdisasm, folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rules = json.loads(pathlib.Path(plan).read_text())
    kept = {"format": "moa-plan", "version": 1, "kv": {"format": "e4m3"}}
    kept |= {key: rules[key][:1] for key in ("alphas", "betas")}
    (folder / "plan.json").write_text(json.dumps(kept))
    for dim, kv_heads in SHAPES:
        shutil.rmtree(folder / "cubins", ignore_errors=True)
        model = f"layers=1,q_heads=9,kv_heads={kv_heads},head_dim={dim}"
        command = ["moa-compile", folder / "plan.json", "--model", model, "--dtype", dtype]
        command += ["--phase", "prefill,decode", "--target", chip, "-o", folder / "out.moa"]
        made = run(*command, "--stats", "--cubins", folder / "cubins")
        if made.returncode:
            print(made.stderr)
            continue
        paths = dict(cubins(folder / "cubins"))
        for kernel in json.loads(made.stdout)["kernels"]:
            if kernel["kind"] in ("prefill", "decode", "quantise"):
                found = instructions(nvdisasm, paths[kernel["name"]])
                counts = collections.Counter(class_of(opcode) for opcode, _ in found)
                listed = " ".join(f"{name} {counts[name]}" for name in CLASSES)
                print(kernel["name"], "spilled", kernel["spill_bytes"], "local",
                      counts["LDL"] + counts["STL"], listed, flush=True)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
