"""Continue a text under a plan, streaming.

The text goes to standard output, all else to standard error. --json prints one object
instead: text, tokens, tokens/s and KV bytes against dense.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from . import asking, models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    models.add_arguments(parser)
    parser.add_argument(
        "--prompt", type=asking.text, required=True, metavar="TEXT|@FILE",
        help="@- reads standard input",
    )  # fmt: skip
    parser.add_argument(
        "--chat",
        action="store_true",
        help="the prompt is a message, put in the model's chat template",
    )
    asking.add_arguments(parser, temperature=0)
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    text = read_prompt(args.prompt)
    sampling = asking.check(args)
    loaded = models.load(args)

    from ..serving.request import Request
    from .session import Session

    if args.chat or args.system:
        messages = [{"role": "system", "content": args.system}] if args.system else []
        messages.append({"role": "user", "content": text})
        ids = asking.encode_chat(loaded.tokenizer, messages)
    else:
        ids = list(loaded.tokenizer(text)["input_ids"])
    session = Session(loaded.model, loaded.tokenizer)
    request = Request(ids, args.max_new_tokens, sampling, tuple(args.stop))
    written = ""
    for piece in session.stream(request):
        written += piece
        if not args.json:
            print(piece, end="", flush=True)
    numbers = session.numbers
    if args.json:
        told = dataclasses.asdict(numbers) | {
            "model": loaded.name,
            "plan": loaded.choice.line,
            "plan_id": loaded.plan_id,
            "text": written,
            "generated_tokens": len(numbers.tokens),
            "prefill_tokens_per_s": numbers.prefill_tokens_per_s,
            "decode_tokens_per_s": numbers.decode_tokens_per_s,
        }
        print(json.dumps(told, ensure_ascii=False))
    else:
        print(flush=True)
        print(f"moa: {numbers}", file=sys.stderr)
    return 0


def read_prompt(text: str) -> str:
    """TEXT itself, or what @FILE holds."""
    if not text.startswith("@"):
        return text
    if text == "@-":
        return sys.stdin.read()
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--prompt {text}: cannot read {text[1:]} as text ({error}); expected a UTF-8 file"
        ) from error
