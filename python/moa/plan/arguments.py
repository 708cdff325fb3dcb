"""Arguments that subcommands share, and how their values are read."""

from __future__ import annotations

import argparse
import re

from .formats import FORMATS
from .span import MAX_LENGTH


def length(text: str) -> int:
    """A length in tokens: `8192` or `8k`."""
    match = re.fullmatch("([0-9]{1,12})(k?)", text.strip().lower())
    n = int(match[1]) * (1024 if match[2] else 1) if match else 0
    if not 1 <= n <= MAX_LENGTH:
        raise argparse.ArgumentTypeError(
            f"expected a length from 1 to {MAX_LENGTH} tokens, such as 8192 or 8k, found "
            f"'{text}'"
        )
    return n


def lengths(text: str) -> list[int]:
    """Lengths with commas between them, ascending, each once."""
    return sorted({length(part) for part in text.split(",")})


def density(text: str) -> float:
    """A share of the dense cache."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(
            f"expected a density above 0, at most 1, found '{text}'"
        )
    return value


def kv_formats(text: str) -> tuple[str, ...]:
    """Formats of KV heads with commas between them, each once."""
    found = tuple(part.strip() for part in text.split(","))
    if not set(found) <= set(FORMATS) or len(set(found)) != len(found):
        raise argparse.ArgumentTypeError(
            f"expected some of {', '.join(FORMATS)} with commas, found '{text}'"
        )
    return tuple(form for form in FORMATS if form in found)


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, found '{text}'")
    return int(text)


def whole(text: str) -> int:
    """A whole number from 0 on."""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, found '{text}'")
    return int(text)


def seconds(text: str) -> float:
    """A time of 0 or more."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?", text):
        raise argparse.ArgumentTypeError(f"expected seconds, such as 60, found '{text}'")
    return float(text)


def add_kv_formats(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument(
        "--kv-formats", type=kv_formats, default=FORMATS[:1], metavar="16,e4m3,int8",
        help=purpose,
    )  # fmt: skip


def add_plan(parser: argparse.ArgumentParser, name: str = "plan") -> None:
    parser.add_argument(name, metavar=name.upper(), help="a plan file")


def add_model(parser: argparse.ArgumentParser, required: bool = False) -> None:
    parser.add_argument(
        "--model", required=required,
        help="config.json, a folder that holds one, or "
        "layers=32,q_heads=32,kv_heads=8,head_dim=128",
    )  # fmt: skip
