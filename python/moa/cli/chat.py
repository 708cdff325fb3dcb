"""Talk to a model under a plan.

A line is a message; /reset begins a new conversation, /exit or Ctrl-D ends. Ctrl-C
stops an answer. Turns go on from the cache of the turns before.
"""

from __future__ import annotations

import argparse
import sys

from . import asking, models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    models.add_arguments(parser)
    asking.add_arguments(parser, temperature=0.7)


def run(args: argparse.Namespace) -> int:
    sampling = asking.check(args)
    loaded = models.load(args)

    from ..errors import OutOfRangeError
    from ..serving.request import Request
    from .session import Session

    start = [{"role": "system", "content": args.system}] if args.system else []
    messages = list(start)
    # A tokenizer without a chat template is refused before anybody writes.
    asking.encode_chat(loaded.tokenizer, [{"role": "user", "content": ""}])
    session = Session(loaded.model, loaded.tokenizer)
    while (line := _ask()) is not None:
        if line == "/exit":
            break
        if line == "/reset":
            messages = list(start)
            session.reset()
            continue
        if not line:
            continue
        messages.append({"role": "user", "content": line})
        ids = asking.encode_chat(loaded.tokenizer, messages)
        request = Request(ids, args.max_new_tokens, sampling, tuple(args.stop))
        answer = ""
        try:
            for piece in session.stream(request):
                answer += piece
                print(piece, end="", flush=True)
            print(flush=True)
            print(f"  [{session.numbers}]", file=sys.stderr)
        except OutOfRangeError as error:
            messages.pop()
            print(f"moa: {error}; /reset begins anew", file=sys.stderr)
            continue
        except KeyboardInterrupt:
            print("\n  [stopped]", file=sys.stderr)
        messages.append({"role": "assistant", "content": answer})
    return 0


def _ask() -> str | None:
    """The next message; None at the end of input."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip() if line else None
    import readline  # noqa: F401  Gives input() its line editing.

    try:
        return input("> ").strip()
    except EOFError:
        print()
        return None
