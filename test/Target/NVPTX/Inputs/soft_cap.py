"""Compile the kernels of a model with a soft cap, and print how each takes tanh.

`soft_cap.py PLAN FOLDER DTYPE KV DIM...`, a line a kernel that attends and a chip:
    NAME CHIP spilled N approximate|exact
of a kernel whose PTX has the GPU's own tanh, or divides by the rational function's
denominator; both or neither is an error. KV is what heads keep of pages: 16, or
e4m3. PLAN is one for 30 layers of 9 heads.
"""

import json
import pathlib
import subprocess
import sys

FORMS = {(True, False): "approximate", (False, True): "exact"}


def main(plan, folder, dtype, kv, *dims):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"format": "moa-plan", "version": 1}
    if kv != "16":
        kept["kv"] = {"format": kv}
    (folder / "plan.json").write_text(json.dumps(json.loads(pathlib.Path(plan).read_text()) | kept))
    for dim in dims:
        model = f"layers=30,q_heads=9,kv_heads=3,head_dim={dim},soft_cap=50"
        dump = folder / dim
        command = ["moa-compile", str(folder / "plan.json"), "--model", model, "--dtype", dtype]
        command += ["--phase", "prefill,decode", "--target", "sm_90a,sm_80", "--cubins", "none"]
        command += ["--dump-dir", str(dump), "--stats", "-o", f"{dump}.moa"]
        made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        for kernel in json.loads(made.stdout)["kernels"]:
            name, chip = kernel["name"], kernel["target"]
            if "_cap50" not in name:
                continue
            ptx = (dump / f"{name}.{chip}.ptx").read_text()
            form = FORMS.get(("tanh.approx.f32" in ptx, "div.approx.f32" in ptx), "error")
            print(name, chip, "spilled", kernel["spill_bytes"], form, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
