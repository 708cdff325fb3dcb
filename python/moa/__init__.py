"""Attention with per-head spans over an elastic KV cache, compiled.

`moa.compile` makes an artifact from a plan, `moa.hf.load` runs a transformers
model under one, `moa.runtime` is the runtime itself.
"""

from . import errors, runtime
from ._runtime import __version__
from .compiler import Artifact, compile
from .errors import Error

__all__ = ["Artifact", "Error", "__version__", "compile", "errors", "hf", "runtime"]


def __getattr__(name):
    # transformers takes seconds to import: only when it is asked for.
    if name == "hf":
        import importlib

        return importlib.import_module(".hf", __name__)
    raise AttributeError(f"module 'moa' has no attribute '{name}'")
