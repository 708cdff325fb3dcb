"""Which transformers this package works with; checked when `moa.hf` is imported."""

from __future__ import annotations

import importlib.metadata

from ..errors import IncompatibleError

#: The first minor version that works, and the first that is not tried yet.
OLDEST, BEHIND = (5, 16), (5, 24)
RANGE = f">={OLDEST[0]}.{OLDEST[1]},<{BEHIND[0]}.{BEHIND[1]}"


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
    numbers = found.split(".")
    try:
        version = int(numbers[0]), int(numbers[1])
    except (IndexError, ValueError):
        version = (0, 0)
    if not OLDEST <= version < BEHIND:
        raise IncompatibleError(
            f"moa.hf works with transformers {RANGE}, found {found}: "
            f"pip install 'transformers{RANGE}'"
        )
