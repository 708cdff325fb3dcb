"""The packages that `pip install 'moa-mlir[EXTRA]'` brings, and what to say when
one is missing. pyproject.toml holds the same ranges; a test compares them."""

import sys
from collections.abc import Callable

#: Extra -> package -> the versions it works with.
EXTRAS = {
    "plan": {"numpy": ">=2", "highspy": ">=1.12"},
    "hf": {
        "torch": ">=2.11",
        "transformers": ">=5.16,<5.24",
        "accelerate": ">=1.1",
        "gguf": ">=0.19",
    },
    "serve": {"fastapi": ">=0.115", "uvicorn": ">=0.30"},
}


def extra_of(package: str) -> str | None:
    """The extra that brings a package, or None."""
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)


def range_of(package: str) -> str | None:
    """The versions of a package that are supported, or None for one we do not use."""
    extra = extra_of(package)
    return EXTRAS[extra][package] if extra else None


def _numbers(version: str) -> tuple[int, ...]:
    """Leading numbers: (2, 13, 0) of "2.13.0+cpu"; zeros at the end do not count."""
    numbers = []
    for part in version.split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def is_supported(package: str, version: str) -> bool:
    """Whether a version lies in the supported range; True where there is none."""
    for bound in (range_of(package) or "").split(","):
        if bound.startswith(">=") and _numbers(version) < _numbers(bound[2:]):
            return False
        if bound.startswith("<") and _numbers(version) >= _numbers(bound[1:]):
            return False
    return True


def run_program(name: str, load: Callable[[], Callable[[], int]]) -> int:
    """Run a program's main function, which `load` imports. A missing package of
    an extra becomes one line on the standard error, and exit code 2."""
    try:
        return load()()
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        extra = extra_of(package)
        if extra is None:
            raise
        print(
            f"{name}: error: expected the package {package}, found none; "
            f"pip install 'moa-mlir[{extra}]'",
            file=sys.stderr,
        )
        return 2
