"""Compile decode for every head size and group, and print what the code is made of.

`decode.py PLAN DTYPE CHIP NVDISASM FOLDER`, a line a head size and group:
    D GROUP spilled N local N HMMA N LDSM N MOVM N UTMALDG N LDGSTS N
`local` counts instructions of local memory. PLAN is one for 30 layers of 9 heads.
"""

import json
import pathlib
import re
import sys

from matrix import run


def facts_of(command, nvdisasm, stem):
    cubin = f"{stem}.cubin"
    made = run(*command, "--emit", "cubin", "-o", cubin, "--stats")
    if made.returncode:
        return made.stderr
    here = pathlib.Path(__file__).parent
    sass = run(sys.executable, str(here / "sass.py"), nvdisasm, cubin).stdout
    counts = dict(re.findall(r"^count (\S+) (\d+)$", sass, re.M))
    local = sum(int(counts.get(name, 0)) for name in ("LDL", "STL"))
    classes = ("HMMA", "LDSM", "MOVM", "UTMALDG", "LDGSTS")
    listed = " ".join(f"{name} {counts.get(name, 0)}" for name in classes)
    stats = json.loads(made.stdout)["kernels"][0]
    return f"spilled {stats['spill_bytes']} local {local} {listed}"


def main(plan, dtype, chip, nvdisasm, folder):
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    for dim in (64, 80, 96, 128, 192, 256):
        for kv_heads in (9, 3, 1):
            model = f"layers=30,q_heads=9,kv_heads={kv_heads},head_dim={dim}"
            command = ["moa-compile", plan, "--model", model, "--dtype", dtype]
            command += ["--phase", "decode", "--target", chip]
            facts = facts_of(command, nvdisasm, f"{folder}/{dim}-{kv_heads}")
            print(dim, 9 // kv_heads, facts, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
