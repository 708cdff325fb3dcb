"""Run ordinary transformers models under a plan: `load`, `Cache`."""

from .cache import Cache
from .load import load

__all__ = ["Cache", "load"]
