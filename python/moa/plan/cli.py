"""`moa-plan`: parses the command line, runs one subcommand, reports errors.

A subcommand is a module of `commands` with a docstring, `add_arguments(parser)`
and `run(args) -> int`; its name is the module's, `_` written `-`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType

from ..commandline import Parser, add_command
from . import commands
from .errors import PlannerError


def subcommands() -> dict[str, ModuleType]:
    """Modules of the subcommands by name, in alphabetical order."""
    names = sorted(found.name for found in pkgutil.iter_modules(commands.__path__))
    return {
        name.replace("_", "-"): importlib.import_module(f"{commands.__name__}.{name}")
        for name in names
    }


def build_parser() -> Parser:
    parser = Parser(prog="moa-plan", description="Make, check and compare span plans.")
    parts = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in subcommands().items():
        add_command(parts, name, module)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0; 1 where the subcommand says so; 2 with one line and the cure for a
    wrong input; 130 after Ctrl-C."""
    try:
        args = build_parser().parse_args(arguments)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except PlannerError as error:
        print(f"moa-plan: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()  # Whoever read our output has enough of it.
        return 0
    except KeyboardInterrupt:
        print("moa-plan: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
