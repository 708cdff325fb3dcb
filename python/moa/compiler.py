"""Compile plans: a typed front of the `moa-compile` program.

The compiler runs as a program of its own, so that LLVM never shares a process
with the LLVMs that other Python packages bring.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import programs
from .errors import CompileError


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A compiled plan: a `.moa` file and what compiling it told."""

    path: Path
    stats: dict


def find_compiler() -> str:
    """Path of moa-compile: of this wheel, of this build tree, or on PATH."""
    found = programs.find("moa-compile")
    if found:
        return found
    raise CompileError(
        f"moa-compile is neither in {programs.FOLDER}, nor in {programs.BUILT}, nor on PATH; "
        "run `make build`, or install the wheel of `make wheel`"
    )


def cache_dir() -> Path:
    """Folder of compiled artifacts: $XDG_CACHE_HOME/moa or ~/.cache/moa."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "moa"


def shape_of(config) -> str:
    """Attention geometry of a Hugging Face config, and the soft cap of its scores, as
    moa-compile takes it.

    `config`: a PreTrainedConfig, its dictionary, a path of a config.json, or
    already a string "layers=..,q_heads=..".
    """
    if isinstance(config, (str, Path)):
        return str(config)
    get = config.get if isinstance(config, dict) else lambda k, d=None: getattr(config, k, d)
    try:
        heads = int(get("num_attention_heads"))
        layers = int(get("num_hidden_layers"))
        head_dim = get("head_dim") or int(get("hidden_size")) // heads
    except TypeError as error:
        raise CompileError(
            "the model config lacks num_hidden_layers, num_attention_heads or "
            "hidden_size; pass 'layers=..,q_heads=..,kv_heads=..,head_dim=..'"
        ) from error
    kv_heads = get("num_key_value_heads") or heads
    cap = get("attn_logit_softcapping")
    more = "" if cap is None else f",soft_cap={cap}"
    return f"layers={layers},q_heads={heads},kv_heads={kv_heads},head_dim={head_dim}{more}"


def compile(
    plan,
    model_config,
    targets=("cpu",),
    *,
    dtype: str = "bf16",
    max_length: int | None = None,
    rope: str | None = None,
    out=None,
) -> Artifact:
    """Compile a plan for a model; cached by plan, structure, target and version.

    plan: path of a plan file, or its content as a dictionary.
    model_config: see `shape_of`.
    dtype: "f32", "f16" or "bf16": type of queries, keys, values and outputs.
    max_length: longest sequence served, in tokens.
    rope: "half" or "interleaved", with ":DIM" where part of a head is rotated:
        also a kernel for moa.runtime.Cache.set_rope.
    out: where to put the `.moa` file; None keeps it in the cache folder.
    Raises CompileError with the compiler's message.
    """
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="moa-") as scratch:
        if isinstance(plan, dict):
            path = Path(scratch) / "plan.json"
            path.write_text(json.dumps(plan))
            plan = path
        target = Path(out) if out is not None else Path(scratch) / "out.moa"
        command = [
            find_compiler(), str(plan), "--model", shape_of(model_config),
            "-o", str(target), "--target", ",".join(targets), "--dtype", dtype,
            "--cache-dir", str(folder), "--stats",
        ]  # fmt: skip
        if max_length is not None:
            command += ["--max-length", str(max_length)]
        if rope is not None:
            command += ["--rope", rope]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise CompileError(done.stderr.strip() or "moa-compile failed")
        stats = json.loads(done.stdout)
        if out is None:
            import hashlib

            kept = folder / f"{hashlib.sha256(target.read_bytes()).hexdigest()[:32]}.moa"
            if not kept.exists():
                temporary = kept.with_suffix(f".{os.getpid()}.tmp")
                shutil.copyfile(target, temporary)
                os.replace(temporary, kept)
            target = kept
    return Artifact(path=target, stats=stats)
