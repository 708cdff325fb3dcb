"""Run ordinary transformers models under a plan: `load`, `Cache`."""

from .versions import check_transformers

check_transformers()

from .cache import Cache  # noqa: E402
from .load import load  # noqa: E402

__all__ = ["Cache", "load"]
