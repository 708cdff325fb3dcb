"""Installs a wheel into a fresh environment and uses it as its user would.

Usage: check_wheel.py WHEEL [SITE_PACKAGES]. Asks the doctor, compiles a plan, runs
the artifact against float64, takes GPU kernels from the wheel's cubins, and looks
at what the programs link. With SITE_PACKAGES, a folder that holds torch and
transformers, also runs the example of README.md where its model is unpacked
(`make demo`), and the same with a small random model. Nothing of the build tree is
on any path. Exits 1, with the output of what failed.
"""

import json
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
PUBLISHED = ROOT / "test" / "Inputs" / "plans" / "llama-3-8b-moa.json"
PUBLISHED_SHAPE = "layers=32,q_heads=32,kv_heads=8,head_dim=128"
MODEL = ROOT / "build" / "models" / "SmolLM2-135M-Instruct"
MOST_BYTES = 64 * 2**20
EXTRAS = {"plan", "hf", "serve"}

COMPILE = f"""
import moa
artifact = moa.compile({str(PLAN)!r}, {SHAPE!r}, dtype="f32", out="python.moa")
assert artifact.stats["kernels"], artifact.stats
module = moa.runtime.Module(moa.runtime.Context(), "python.moa")
print("moa", moa.__version__, "from", moa.__file__)
"""

METADATA = """
import importlib.metadata
print(*importlib.metadata.metadata("moa-mlir").get_all("Provides-Extra"))
"""

GENERATE = f"""
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


class Installed:
    """The wheel in an environment of its own, below `work`."""

    def __init__(self, wheel, work):
        self.work = work
        venv.create(work / "venv", with_pip=True)
        self.bin = work / "venv" / "bin"
        self.python = self.bin / "python"
        self.environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(work), "LC_ALL": "C.UTF-8",
        }  # fmt: skip
        self.run(self.python, "-m", "pip", "install", "-q", "--no-index", wheel)
        self.package = next((work / "venv").glob("lib/python*/site-packages/moa"))

    def ask(self, *command, cwd=None):
        """Exit code, standard output, standard error."""
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd or self.work,
            env=self.environment,
            text=True,
            capture_output=True,
        )
        return done.returncode, done.stdout, done.stderr

    def run(self, *command, cwd=None):
        """Standard output of a command that must succeed."""
        code, out, error = self.ask(*command, cwd=cwd)
        if code:
            sys.exit(f"{command[0]} exited with {code}:\n{out}{error}")
        return out


def expect(condition, message):
    if not condition:
        sys.exit(message)


def check_commands(wheel):
    print(wheel.run("moa-compile", "--version").strip())
    wheel.run("moa-compile", PLAN, "--model", SHAPE, "--dtype", "f32", "-o", "plan.moa")
    print(
        wheel.run("moa-run", "plan.moa", "--layer", "12", "--prompt", "700", "--check").strip()
    )
    print(wheel.run(wheel.python, "-c", COMPILE).strip())


def check_doctor(wheel):
    found = json.loads(wheel.run(wheel.python, "-m", "moa.doctor", "--json"))
    expect("cpu" in found["works"], f"expected attention on the CPU, found {found}")
    expect(
        Path(found["moa"]["folder"]) == wheel.package,
        f"expected the doctor of {wheel.package}, found that of {found['moa']['folder']}",
    )
    expect(found["folders"]["cubins"]["files"], "expected cubins in the wheel, found none")
    print("doctor: attention runs on", ", ".join(found["works"]))


def check_extras(wheel):
    """Extras are named; without them, what needs them says so in one line."""
    extras = set(wheel.run(wheel.python, "-c", METADATA).split())
    expect(extras >= EXTRAS, f"expected the extras {EXTRAS}, found {extras}")
    code, out, error = wheel.ask("moa-plan", "check", PLAN)
    line = error.strip()
    expect(
        code == 2 and not out and "\n" not in line and "pip install 'moa-mlir[plan]'" in line,
        f"expected moa-plan to exit with 2 and one line, found {code} and:\n{out}{error}",
    )
    print(line)


def check_cubins(wheel):
    """GPU kernels of a published plan come as cubins where there is no ptxas, in 8
    bits too; those of a rare structure, as PTX, with a remark."""
    has_ptxas = wheel.ask("moa-compile", "--print-ptxas")[0] == 0
    hide = ["--ptxas", "none"] if has_ptxas else []
    targets = ["--target", "sm_90a,sm_80", *hide, "--stats", "-o", "gpu.moa"]
    kv8 = wheel.work / "kv8.json"
    rules = json.loads(PUBLISHED.read_text())
    kept = {"format": "moa-plan", "version": 1, "kv": {"format": "int8"}}
    kv8.write_text(json.dumps({**kept, **rules}))
    for plan, dtype in ((PUBLISHED, "bf16"), (PUBLISHED, "f16"), (kv8, "bf16")):
        shape = ["--model", PUBLISHED_SHAPE, "--dtype", dtype]
        stats = json.loads(wheel.run("moa-compile", plan, *shape, *targets))
        lacking = [k["name"] for k in stats["kernels"] if "ptxas" not in k]
        expect(not lacking, f"expected a cubin of every {dtype} kernel, found PTX of {lacking}")
    made = {kernel["ptxas"] for kernel in stats["kernels"]}
    print(f"cubins of {len(stats['kernels'])} kernels, by ptxas {', '.join(made)}")

    rare = wheel.work / "rare.json"
    rare.write_text(json.dumps({"alphas": [[0] * 11], "betas": [[1] * 11]}))
    shape = "layers=1,q_heads=11,kv_heads=1,head_dim=64"
    code, out, error = wheel.ask("moa-compile", rare, "--model", shape, *targets)
    kernels = json.loads(out)["kernels"] if code == 0 else []
    lacking = [kernel["kind"] for kernel in kernels if "ptxas" not in kernel]
    expect(
        lacking and set(lacking) == {"decode"},
        f"expected PTX of the decode kernels of 11 heads, found {lacking}:\n{error}",
    )
    expect(
        has_ptxas or "GPU kernels are left as PTX: expected ptxas" in error,
        f"expected a remark about PTX, found:\n{error}",
    )


def check_models(wheel, site_packages):
    head = f"import sys\nsys.path.append({site_packages!r})\n"
    print(wheel.run(wheel.python, "-c", head + GENERATE).strip().splitlines()[-1])
    if not MODEL.exists():
        print(f"the example of README.md is left out: {MODEL} is not there (make demo)")
        return
    readme = (ROOT / "README.md").read_text()
    example = re.search(r"```python\n(import moa\.hf.*?)```", readme, re.DOTALL)[1]
    print(wheel.run(wheel.python, "-c", head + example, cwd=ROOT).strip())


def check_links(wheel):
    """No LLVM, nothing missing, and no C++ library of this machine."""
    package = wheel.package
    for file in [*package.glob("bin/*"), *package.glob("lib/*"), *package.glob("*.so")]:
        code, out, error = wheel.ask("ldd", file)
        expect(
            code == 0 or "not a dynamic executable" in error,
            f"ldd {file.name} exited with {code}:\n{error}",
        )
        expect(
            not re.search(r"LLVM|MLIR|libstdc|not found", out),
            f"{file.name} must not need LLVM, libstdc++ or what is missing:\n{out}",
        )


def main():
    wheel = Path(sys.argv[1]).absolute()
    size = os.path.getsize(wheel)
    expect(size < MOST_BYTES, f"expected less than {MOST_BYTES} bytes, found {size}")
    with tempfile.TemporaryDirectory() as folder:
        installed = Installed(wheel, Path(folder))
        check_commands(installed)
        check_doctor(installed)
        check_extras(installed)
        check_cubins(installed)
        check_links(installed)
        if len(sys.argv) > 2:
            check_models(installed, sys.argv[2])
    print(f"{wheel.name}: {size / 1e6:.1f} MB, works on its own")


if __name__ == "__main__":
    main()
