"""Installs a wheel into a fresh environment and uses it as its user would.

Usage: check_wheel.py WHEEL [SITE_PACKAGES]. Compiles a plan, runs the artifact
against float64, and looks at what the programs link. With SITE_PACKAGES, a
folder that holds torch and transformers, also loads a small random model with
`moa.hf.load` and generates. Nothing of the build tree is on any path. Exits 1,
with the output of what failed.
"""

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent.absolute()
PLAN = ROOT / "examples" / "plans" / "smollm2-135m.json"
SHAPE = "layers=30,q_heads=9,kv_heads=3,head_dim=64"

COMPILE = f"""
import moa
artifact = moa.compile({str(PLAN)!r}, {SHAPE!r}, dtype="f32", out="python.moa")
assert artifact.stats["kernels"], artifact.stats
module = moa.runtime.Module(moa.runtime.Context(), "python.moa")
print("moa", moa.__version__, "from", moa.__file__)
"""

GENERATE = f"""
import sys
sys.path.append(sys.argv[1])
import torch, transformers
config = transformers.LlamaConfig(
    vocab_size=64, hidden_size=576, intermediate_size=64, num_hidden_layers=30,
    num_attention_heads=9, num_key_value_heads=3, head_dim=64,
    max_position_embeddings=4096)
transformers.LlamaForCausalLM(config).save_pretrained("model")
import moa.hf
model = moa.hf.load("model", plan={str(PLAN)!r})
out = model.generate(torch.arange(1, 33)[None], max_new_tokens=4, do_sample=False,
                     pad_token_id=0)
assert out.shape == (1, 36), out.shape
print("generated", out[0, 32:].tolist())
"""


def main():
    wheel = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        venv.create(work / "venv", with_pip=True)
        bin = work / "venv" / "bin"
        clean = {"PATH": f"{bin}:/usr/bin:/bin", "HOME": folder, "LC_ALL": "C.UTF-8"}

        def run(*command):
            done = subprocess.run(
                [str(part) for part in command],
                cwd=work,
                env=clean,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            if done.returncode:
                sys.exit(f"{command[0]} exited with {done.returncode}:\n{done.stdout}")
            return done.stdout

        run(bin / "python", "-m", "pip", "install", "-q", "--no-index", wheel)
        print(run("moa-compile", "--version").strip())
        run("moa-compile", PLAN, "--model", SHAPE, "--dtype", "f32", "-o", "plan.moa")
        print(run("moa-run", "plan.moa", "--layer", "12", "--prompt", "700", "--check").strip())
        print(run(bin / "python", "-c", COMPILE).strip())
        if len(sys.argv) > 2:
            print(run(bin / "python", "-c", GENERATE, sys.argv[2]).strip().splitlines()[-1])

        package = next((work / "venv").glob("lib/python*/site-packages/moa"))
        for file in [*package.glob("bin/*"), *package.glob("lib/*"), *package.glob("*.so")]:
            linked = run("ldd", file)
            if re.search(r"LLVM|MLIR|not found", linked):
                sys.exit(f"{file.name} must not need LLVM or what is missing:\n{linked}")
    print(f"{wheel.name}: {os.path.getsize(wheel) / 1e6:.1f} MB, works on its own")


if __name__ == "__main__":
    main()
