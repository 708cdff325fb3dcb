"""Attention with per-head spans over an elastic KV cache, compiled.

`moa.compile` makes an artifact from a plan, `moa.hf.load` runs a transformers
model under one, `moa.runtime` is the runtime itself, `moa.ops` its attention as
operators of torch.
"""

from . import errors, runtime
from ._runtime import __version__
from .compiler import Artifact, compile
from .errors import Error

__all__ = [
    "Artifact",
    "Cache",
    "Error",
    "__version__",
    "compile",
    "errors",
    "hf",
    "ops",
    "runtime",
]


def __getattr__(name):
    # torch and transformers take seconds to import: only when they are asked for.
    if name in ("Cache", "hf", "ops"):
        import importlib

        if name == "Cache":
            return importlib.import_module(".hf", __name__).Cache
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'moa' has no attribute '{name}'")
