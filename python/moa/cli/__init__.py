"""`moa`: parses the command line, runs one subcommand, reports errors.

A subcommand is a module with a docstring, `add_arguments(parser)` and
`run(args) -> int`, named below; torch and transformers are imported when it runs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from ..commandline import Parser, add_command
from ..errors import Error
from ..extras import extra_of

#: Subcommands in the order of the help: their modules, and the first lines of those.
COMMANDS = {
    "generate": ("moa.cli.generate", "Continue a text under a plan, streaming."),
    "chat": ("moa.cli.chat", "Talk to a model under a plan."),
    "serve": (
        "moa.cli.serve",
        "Serve a model under a plan: OpenAI's API, and a page for trying it out at /.",
    ),
    "bench": (
        "moa.cli.bench",
        "Measure a model under a plan beside transformers' dense SDPA, in one process.",
    ),
    "report": (
        "moa.cli.report",
        "One HTML page about a model under a plan: spans, KV bytes and tokens/s.",
    ),
    "doctor": ("moa.doctor", "What this machine has, and whether attention runs on it."),
}


def build_parser(chosen: str) -> Parser:
    """chosen: the subcommand that has its arguments. The others are named alone, so that
    what they need is not imported: `moa doctor` and help run without any extra."""
    parser = Parser(prog="moa", description="Run language models under span plans.")
    parts = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (path, line) in COMMANDS.items():
        if name == chosen:
            add_command(parts, name, importlib.import_module(path))
        else:
            parts.add_parser(name, help=line)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0; 1 with one line and the cure for refused input; 2 for wrong usage;
    130 after Ctrl-C."""
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        args = build_parser(words[0] if words else "").parse_args(words)
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
