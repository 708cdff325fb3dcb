"""What this machine has, and whether attention runs on it.

Looks at devices, programs, packages and cache folders, compiles a small plan and
compares attention on each device with float64. The text is for bug reports.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from . import _runtime, compiler, extras, programs
from .errors import Error

#: Two layers; heads with windows and without, so that each mask class occurs.
PLAN = {
    "format": "moa-plan", "version": 1,
    "alphas": [[0, 0, 0, 0], [64, 64, -64, 0]],
    "betas": [[1, 1, 1, 1], [0.25, 0.25, 0.5, 1]],
}  # fmt: skip
SHAPE = "layers=2,q_heads=4,kv_heads=2,head_dim=64"
#: Seconds that a program of the self-test may take.
TIMEOUT_S = 300
#: Instruction sets of /proc/cpuinfo that kernels are compiled for.
LEVELS = {
    "x86-64-v3": {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"},
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "avx512-bf16": {"avx512_bf16"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print what was found; 0 if attention runs on some device, else 1."""
    found = examine()
    print(json.dumps(found, indent=1) if args.json else text_of(found))
    return 0 if found["works"] else 1


def examine() -> dict[str, Any]:
    """All that the report says, with units in the key names."""
    with tempfile.TemporaryDirectory(prefix="moa-doctor-") as folder:
        cpu = {**_cpu(), "attention": _attention(Path(folder), "cpu", "f32", "cpu")}
        cuda = _cuda(Path(folder))
    works = [
        name
        for name, device in [("cpu", cpu), *((d["device"], d) for d in cuda["devices"])]
        if device["attention"]["works"]
    ]
    return {
        "works": works,
        "moa": _versions(),
        "system": _system(),
        "cpu": cpu,
        "cuda": cuda,
        "ptxas": _ptxas(),
        "packages": _packages(),
        "folders": {
            "cubins": _folder(programs.cubins()),
            "artifacts": _folder(compiler.cache_dir()),
            "driver": _folder(_driver_cache()),
        },
    }


def _versions() -> dict[str, Any]:
    return {
        "version": _runtime.__version__,
        "c_abi_version": _runtime.C_ABI_VERSION,
        "artifact_version": _runtime.ARTIFACT_VERSION,
        "kernel_abi_version": _runtime.KERNEL_ABI_VERSION,
        "folder": str(Path(__file__).parent),
    }


def _system() -> dict[str, Any]:
    return {
        "os": platform.platform(),
        "c_library": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
    }


def _cpu() -> dict[str, Any]:
    """Name and instruction sets; threads are those a context takes by itself."""
    fields = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass  # Says less, works the same.
    flags = set(fields.get("flags", "").split())
    return {
        "name": fields.get("model name", platform.machine()),
        "features": [name for name, needed in LEVELS.items() if needed <= flags],
        "threads": _runtime.Context().info["processors"],
    }


def _cuda(folder: Path) -> dict[str, Any]:
    """The driver and each of its devices; `reason` where there is none."""
    found: dict[str, Any] = {"driver_version": _driver_release(), "devices": []}
    while True:
        name = f"cuda:{len(found['devices'])}"
        try:
            info = _runtime.Context(device=name).info
        except Error as error:
            if not found["devices"]:
                found["reason"] = str(error)
            return found
        found["cuda_version"] = _cuda_version(info["driver_version"])
        found["devices"].append(
            {
                "device": name,
                "name": info["name"],
                "compute_capability": "{}.{}".format(*info["capability"]),
                "memory_bytes": info["memory_bytes"],
                "multiprocessors": info["processors"],
                "attention": _attention(folder, name, "bf16", "sm_90a,sm_80"),
            }
        )


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _driver_release() -> str | None:
    """The NVIDIA driver's own version, as its kernel module states it."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text().split()
    except OSError:
        return None
    return next((word for word in words if word[0].isdigit() and "." in word), None)


def _attention(folder: Path, device: str, dtype: str, targets: str) -> dict[str, Any]:
    """Compiles the plan without the cache, and lets moa-run compare with float64."""
    start = time.perf_counter()
    artifact = folder / f"{dtype}.moa"
    try:
        if not artifact.exists():
            plan = folder / "plan.json"
            plan.write_text(json.dumps(PLAN))
            _run(
                "moa-compile", str(plan), "--model", SHAPE, "--dtype", dtype,
                "--target", targets, "-o", str(artifact),
            )  # fmt: skip
        module = _runtime.Module(_runtime.Context(device=device), str(artifact)).info
        checked = _run(
            "moa-run", str(artifact), "--device", device, "--prompt", "700", "--check", "--json"
        )
        return {
            "works": True,
            "dtype": dtype,
            "code": module["chip"],
            "remark": module["remark"],
            "max_rel_err": json.loads(checked)["check"]["max_rel_err"],
            "seconds": round(time.perf_counter() - start, 2),
        }
    except Error as error:
        return {"works": False, "reason": str(error)}


def _run(name: str, *arguments: str) -> str:
    """Standard output of a program of ours; raises Error with what it complains of."""
    program = programs.find(name)
    if program is None:
        raise Error(f"{name} is not in this installation; install the wheel again")
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Error(f"cannot run {program}: {error}") from error
    if done.returncode < 0:
        raise Error(f"{name} was ended by signal {-done.returncode}; please report it")
    if done.returncode:
        raise Error(done.stderr.strip() or f"{name} exited with {done.returncode}")
    return done.stdout


def _ptxas() -> dict[str, Any]:
    try:
        path, _, version = _run("moa-compile", "--print-ptxas").strip().rpartition(" ")
    except Error as error:
        return {"reason": str(error).removeprefix("moa-compile: error: ")}
    return {"path": path, "version": version}


def _packages() -> list[dict[str, Any]]:
    """Packages of the extras; `version` is None where one is not installed."""
    found = []
    for extra, packages in extras.EXTRAS.items():
        for name, supported in packages.items():
            try:
                version = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                version = None
            inside = version is None or extras.is_supported(name, version)
            found.append(
                {
                    "name": name, "version": version, "supported": supported,
                    "is_supported": inside, "extra": extra,
                }
            )  # fmt: skip
    return found


def _driver_cache() -> Path:
    """Where the CUDA driver keeps what it compiled of PTX."""
    return Path(os.environ.get("CUDA_CACHE_PATH") or Path.home() / ".nv" / "ComputeCache")


def _folder(path: Path) -> dict[str, Any]:
    """Number and size of the files below a folder; 0 where it is missing."""
    files = total = 0
    for parent, _, names in os.walk(path):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
                files += 1
            except OSError:
                continue  # Gone meanwhile.
    return {"folder": str(path), "files": files, "total_bytes": total}


def text_of(found: dict[str, Any]) -> str:
    """The report for people."""
    moa, system, cpu, cuda = (found[key] for key in ("moa", "system", "cpu", "cuda"))
    abis = (
        f"C ABI {moa['c_abi_version']}, artifacts {moa['artifact_version']}, "
        f"kernel ABI {moa['kernel_abi_version']}"
    )
    features = " ".join(cpu["features"]) or "no AVX2"
    rows = [
        ("moa", f"{moa['version']} ({abis}), {moa['folder']}"),
        ("system", f"{system['os']}, {system['c_library']}, Python {system['python']}"),
        ("cpu", f"{cpu['name']}; {features}; {cpu['threads']} threads"),
        ("", _text_of_attention(cpu["attention"])),
    ]
    if "reason" in cuda:
        rows.append(("cuda", f"none: {cuda['reason']}"))
    else:
        release = cuda["driver_version"] or "of unknown version"
        rows.append(("cuda", f"driver {release}, CUDA {cuda['cuda_version']}"))
    for device in cuda["devices"]:
        rows.append(
            (
                device["device"],
                f"{device['name']}, compute capability {device['compute_capability']}, "
                f"{_size(device['memory_bytes'])}, {device['multiprocessors']} multiprocessors",
            )
        )
        rows.append(("", _text_of_attention(device["attention"])))
    ptxas = found["ptxas"]
    rows.append(
        ("ptxas", f"none: {ptxas['reason']}" if "reason" in ptxas else " ".join(ptxas.values()))
    )
    for name, folder in found["folders"].items():
        size = _size(folder["total_bytes"])
        rows.append((name, f"{folder['files']} files, {size}, {folder['folder']}"))
    rows += [(package["name"], _text_of_package(package)) for package in found["packages"]]
    works = ", ".join(found["works"])
    rows.append(("attention", f"runs on {works}" if works else "runs on no device; see above"))
    return "\n".join(f"{name:<13}{text}" for name, text in rows)


def _text_of_attention(attention: dict[str, Any]) -> str:
    if not attention["works"]:
        return f"attention fails: {attention['reason']}"
    text = (
        f"attention works in {attention['dtype']} by {attention['code']}: largest relative "
        f"error {attention['max_rel_err']:.2g}, {attention['seconds']} s"
    )
    return f"{text}; {attention['remark']}" if attention["remark"] else text


def _text_of_package(package: dict[str, Any]) -> str:
    cure = f"pip install 'moa-mlir[{package['extra']}]'"
    if package["version"] is None:
        return f"none; {cure}"
    if not package["is_supported"]:
        return f"{package['version']} is outside {package['supported']}; {cure}"
    return package["version"]


def _size(count: int) -> str:
    """Bytes with a unit that leaves few digits."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(prog="moa doctor", description=__doc__)
    add_arguments(_parser)
    sys.exit(run(_parser.parse_args()))
