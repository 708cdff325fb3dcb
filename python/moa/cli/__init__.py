"""`moa`: parses the command line, runs one subcommand, reports errors.

A subcommand is a module with a docstring, `add_arguments(parser)` and
`run(args) -> int`, named below; torch and transformers are imported when it runs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..errors import Error
from ..extras import extra_of

#: Subcommands and their modules, in the order of the help.
COMMANDS = {
    "generate": "moa.cli.generate",
    "chat": "moa.cli.chat",
    "serve": "moa.cli.serve",
    "bench": "moa.cli.bench",
    "report": "moa.cli.report",
    "doctor": "moa.doctor",
}


class _Parser(argparse.ArgumentParser):
    """Wrong usage is one line, as every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="moa", description="Run language models under span plans.")
    parts = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, path in COMMANDS.items():
        module = importlib.import_module(path)
        doc = module.__doc__ or ""
        part = parts.add_parser(
            name, help=doc.splitlines()[0], description=doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        module.add_arguments(part)
        part.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0; 1 with one line and the cure for refused input; 2 for wrong usage;
    130 after Ctrl-C."""
    try:
        args = build_parser().parse_args(arguments)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        extra = extra_of(package)
        if extra is None:
            raise
        return _fail(
            f"expected the package {package}, found none; pip install 'moa-mlir[{extra}]'"
        )
    except BrokenPipeError:
        # Whoever read our output has enough of it; nor may the interpreter write more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("moa: interrupted", file=sys.stderr)
        return 130
    except (Error, NotImplementedError, OSError, ValueError) as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    print(f"moa: error: {' '.join(message.split())}", file=sys.stderr)
    return 1
