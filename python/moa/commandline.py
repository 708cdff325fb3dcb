"""What the command lines `moa` and `moa-plan` share: how a subcommand is added, and
wrong usage as one line. Imports nothing but argparse, so that help costs nothing."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Wrong usage is one line, as every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def add_command(parts: Any, name: str, module: ModuleType) -> None:
    """Adds a subcommand to what `add_subparsers` gave.

    module: has a docstring, `add_arguments(parser)` and `run(args) -> int`.
    """
    doc = module.__doc__ or ""
    part = parts.add_parser(
        name, help=doc.splitlines()[0], description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    module.add_arguments(part)
    part.set_defaults(run=module.run)
