"""Which transformers this package works with; checked when `moa.hf` is imported."""

from __future__ import annotations

import importlib.metadata

from ..errors import IncompatibleError
from ..extras import EXTRAS, is_supported

RANGE = EXTRAS["hf"]["transformers"]


def check_transformers(found: str | None = None) -> None:
    """Raises moa.errors.IncompatibleError where transformers is absent or out of range.

    found: its version, None for the one that is installed.
    """
    if found is None:
        try:
            found = importlib.metadata.version("transformers")
        except importlib.metadata.PackageNotFoundError as error:
            raise IncompatibleError(
                f"moa.hf needs transformers, which is not installed: "
                f"pip install 'transformers{RANGE}'"
            ) from error
    if not is_supported("transformers", found):
        raise IncompatibleError(
            f"moa.hf works with transformers {RANGE}, found {found}: "
            f"pip install 'transformers{RANGE}'"
        )
