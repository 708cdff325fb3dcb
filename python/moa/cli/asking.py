"""Options of how an answer is made, shared by `moa generate` and `moa chat`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..plan.arguments import count

if TYPE_CHECKING:
    from ..serving.sampling import Sampling


def text(word: str) -> str:
    """A text that is not empty, of whole characters."""
    try:
        if word.encode():
            return word
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError("expected text in UTF-8, found other bytes") from error
    raise argparse.ArgumentTypeError("expected a text, found an empty one")


def add_arguments(parser: argparse.ArgumentParser, temperature: float) -> None:
    parser.add_argument("--max-new-tokens", type=count, default=256, metavar="M")
    parser.add_argument(
        "--temperature", type=float, default=temperature,
        help=f"0 takes the likeliest token; default {temperature:g}",
    )  # fmt: skip
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--seed", type=int, help="the same text each time")
    parser.add_argument(
        "--stop",
        type=text,
        action="append",
        default=[],
        metavar="TEXT",
        help="end before it; repeatable",
    )
    parser.add_argument("--system", type=text, metavar="TEXT", help="system message of a chat")


def check(args: argparse.Namespace) -> Sampling:
    """The `Sampling` asked for; ValueError before a model is loaded."""
    from ..serving.sampling import Sampling

    return Sampling(args.temperature, args.top_p, args.top_k, args.seed)


def encode_chat(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Tokens of a conversation, up to where the answer begins."""
    if not tokenizer.chat_template:
        raise ValueError("the model's tokenizer has no chat template: use moa generate")
    encoded = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return list(encoded["input_ids"])
