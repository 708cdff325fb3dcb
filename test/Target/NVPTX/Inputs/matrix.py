"""Compile one kind of kernel for every head size, and print what the code is made of.

`matrix.py PLAN KIND DTYPE CHIP NVDISASM FOLDER`, a line a head size:
    D registers N spilled N HGMMA N UTMALDG N local N overlap N hazards N
and for chips without asynchronous products
    D registers N spilled N shared N HMMA N LDSM N LDGSTS N local N
`local` counts instructions of local memory, `overlap` the most exponentials that run
beside a product, `hazards` what ptx_lint.py finds. PLAN is one for 30 layers of 9 heads.
"""

import json
import pathlib
import re
import subprocess
import sys


def run(*command):
    return subprocess.run(command, capture_output=True, text=True)


def facts_of(command, nvdisasm, stem):
    """The line of one head size, or what went wrong."""
    cubin, ptx = f"{stem}.cubin", f"{stem}.ptx"
    made = run(*command, "--emit", "cubin", "-o", cubin, "--stats")
    text = run(*command, "--emit", "ptx", "-o", ptx)
    if made.returncode or text.returncode:
        return made.stderr + text.stderr
    here = pathlib.Path(__file__).parent
    sass = run(sys.executable, str(here / "sass.py"), nvdisasm, cubin).stdout
    lint = run(sys.executable, str(here / "ptx_lint.py"), ptx).stdout
    counts = dict(re.findall(r"^count (\S+) (\d+)$", sass, re.M))
    overlap = re.search(r"^largest overlap MUFU (\d+)$", sass, re.M)
    hazards = re.search(r"(\d+) hazards$", lint, re.M)
    stats = json.loads(made.stdout)["kernels"][0]
    local = sum(int(counts.get(name, 0)) for name in ("LDL", "STL"))
    size = f"registers {stats['registers']} spilled {stats['spill_bytes']} "
    if "HGMMA" not in counts:
        classes = ("HMMA", "LDSM", "LDGSTS")
        listed = " ".join(f"{name} {counts.get(name, 0)}" for name in classes)
        return f"{size}shared {stats['shared_bytes']} {listed} local {local}"
    return (
        f"{size}HGMMA {counts['HGMMA']} UTMALDG {counts.get('UTMALDG', 0)} local {local} "
        f"overlap {overlap and overlap[1]} hazards {hazards and hazards[1]}"
    )


def main(plan, kind, dtype, chip, nvdisasm, folder):
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    for dim in (64, 80, 96, 128, 192, 256):
        model = f"layers=30,q_heads=9,kv_heads=3,head_dim={dim}"
        command = ["moa-compile", plan, "--model", model, "--dtype", dtype]
        command += ["--phase", kind, "--target", chip]
        print(dim, facts_of(command, nvdisasm, f"{folder}/{dim}"), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
