"""Calibration items: prompts with answers that the dense model itself gives.

Needles and lists hidden in text at stratified depths, summaries of text in the
model's own words, files of a user, and plain text as a control; deterministic
for a seed, each with a hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import PlannerError
from .filler import filler

#: Strata of depth, from just behind the sink to the end.
STRATA = 10
#: Kinds whose answer stands in the prompt; their loss is the margin of the logits.
RETRIEVAL = ("needle", "copy")
_MARK = "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}text\N{REPLACEMENT CHARACTER}"


@dataclasses.dataclass(frozen=True)
class Item:
    """A prompt and its answer, in tokens.

    bucket: the length that it was made for; it is no longer than that.
    depth: of the needle, 0 just behind the sink, 1 at the end; None elsewhere.
    candidates: answers to choose from, the right one first; empty elsewhere.
    """

    kind: str
    bucket: int
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    depth: float | None = None
    candidates: tuple[tuple[int, ...], ...] = ()

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.response)

    @property
    def hash(self) -> str:
        """SHA-256 of everything in the item."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Its fields and its hash, for a line of JSON."""
        return {**dataclasses.asdict(self), "hash": self.hash}


def read_items(lines: Iterable[Mapping[str, Any]], name: str) -> list[Item]:
    """The items of lines that hold an `Item.record`; PlannerError for others."""
    items = []
    for number, line in enumerate(lines, 1):
        fields = dict(line)
        try:
            digest = fields.pop("hash")
            for key in ("prompt", "response"):
                fields[key] = tuple(fields[key])
            fields["candidates"] = tuple(map(tuple, fields["candidates"]))
            item = Item(**fields)
            intact = item.hash == digest
        except (ValueError, TypeError, KeyError):
            intact = False
        if not intact:
            raise PlannerError(
                f"{name}:{number}: is not an item as it was written (its hash differs); "
                "delete the file, and it is made anew"
            )
        items.append(item)
    return items


class Composer:
    """Tokens of chats: what stands around a text in a prompt."""

    def __init__(self, tokenizer: Any, template: str | None = None):
        if template is None and getattr(tokenizer, "chat_template", None) is None:
            raise PlannerError(
                "the tokenizer has no chat template; name a file that holds one (Jinja): "
                "--template FILE"
            )
        self.tokenizer, self.template = tokenizer, template

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def frame(self, before: str, after: str, prefix: str = "") -> tuple[list[int], list[int]]:
        """Tokens in front of and behind a text that the user sends.

        before, after: what the user writes around it; prefix: begin of the answer.
        """
        chat = [{"role": "user", "content": before + _MARK + after}]
        text = self.tokenizer.apply_chat_template(
            chat, chat_template=self.template, tokenize=False, add_generation_prompt=True
        )
        head, found, tail = text.partition(_MARK)
        if not found:
            raise PlannerError("the chat template leaves out what the user says; check it")
        return self.ids(head), self.ids(tail + prefix)


class Corpus:
    """A text in tokens; calibration reads its first half, validation the second.

    Without a path the text is generated, at least `characters` of it.
    """

    def __init__(self, composer: Composer, path: Path | None, characters: int, seed: int):
        text = filler(seed, characters) if path is None else _read(path)
        self.name = "generated text" if path is None else str(path)
        self.ids = composer.ids(text)
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()

    def cut(self, tokens: int, pick: random.Random, fresh: bool) -> list[int]:
        """`tokens` tokens from somewhere in a half; PlannerError where it is too short."""
        half = len(self.ids) // 2
        if tokens > half:
            raise PlannerError(
                f"no text of that length: {self.name} has {half} tokens in each half, "
                f"{tokens} are needed; give more text, or shorter lengths"
            )
        begin = pick.randrange(half - tokens + 1) + (half if fresh else 0)
        return self.ids[begin : begin + tokens]


def _read(path: Path) -> str:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    try:
        texts = [p.read_text(encoding="utf-8") for p in files]
    except (OSError, UnicodeDecodeError) as error:
        raise PlannerError(f"{path}: expected text in UTF-8: {error}") from error
    if not any(text.strip() for text in texts):
        raise PlannerError(f"{path}: expected text, found none; give a file or a folder of it")
    return "\n\n".join(texts)


@dataclasses.dataclass(frozen=True)
class Phrase:
    """How a needle is told and asked for; {who} is a name, {x} the needle."""

    needle: str
    before: str
    question: str
    answer: str
    digits: int


PHRASES = (
    Phrase(
        "The magic number is {x}. Remember it.",
        "Read the text and remember the magic number.",
        "What is the magic number in the text?",
        "The magic number is",
        5,
    ),
    Phrase(
        "The access code of {who} is {x}.",
        "Read the text and remember the access code of {who}.",
        "What is the access code of {who}?",
        "The access code of {who} is",
        4,
    ),
    # For validation alone: calibration never sees it.
    Phrase(
        "The phone extension of Dr. {who} is {x}.",
        "Here is a document. Answer the question that follows it.",
        "What is the phone extension of Dr. {who}?",
        "The phone extension of Dr. {who} is",
        4,
    ),
)
_NAMES = (
    "Alice",
    "Bruno",
    "Clara",
    "Derek",
    "Elena",
    "Felix",
    "Grace",
    "Henry",
    "Irene",
    "Jonas",
)
_WORDS = (
    "copper", "garden", "hammer", "island", "jacket", "marble", "needle", "orange", "pepper",
    "silver", "timber", "velvet", "window", "yellow", "anchor", "candle", "forest", "pencil",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes items of a length; `fresh` ones are for validation."""

    composer: Composer
    corpus: Corpus
    bucket: int
    sink: int
    seed: int
    fresh: bool = False
    candidates: int = 8

    def _random(self, *key: object) -> random.Random:
        return random.Random(f"{self.seed}/{self.bucket}/{self.fresh}/{key}")

    def depth(self, index: int, pick: random.Random) -> float:
        """Depth of the index-th needle: strata in turn, at the edges themselves."""
        stratum = index * 7 % STRATA
        inside = {0: 0.0, STRATA - 1: 1.0}.get(stratum, pick.random())
        return (stratum + inside) / STRATA

    def needle(self, index: int, attempt: int = 0) -> Item:
        """A number hidden in text, and the question for it."""
        pick = self._random("needle", index, attempt)
        phrases = PHRASES if self.fresh else PHRASES[:2]
        phrase = phrases[index % len(phrases)]
        who = pick.choice(_NAMES[5:] if self.fresh else _NAMES[:5])
        low = 10 ** (phrase.digits - 1)
        numbers = pick.sample(range(low, 10 * low), self.candidates)
        return self._hidden(
            "needle",
            index,
            pick,
            f"\n{phrase.needle}\n".format(who=who, x=numbers[0]),
            (f"{phrase.before}\n\n".format(who=who), f"\n\n{phrase.question}".format(who=who)),
            phrase.answer.format(who=who),
            [f" {number}" for number in numbers],
        )

    def copy(self, index: int, attempt: int = 0) -> Item:
        """A list of words hidden in text, to be repeated."""
        pick = self._random("copy", index, attempt)
        lists = [" ".join(pick.sample(_WORDS, 4)) for _ in range(self.candidates)]
        return self._hidden(
            "copy",
            index,
            pick,
            f"\nThe list of words is: {lists[0]}.\n",
            (
                "Read the text and remember the list of words.\n\n",
                "\n\nRepeat the list of words in the text.",
            ),
            "The list of words is:",
            [f" {words}" for words in lists],
        )

    def _hidden(
        self,
        kind: str,
        index: int,
        pick: random.Random,
        needle: str,
        around: tuple[str, str],
        prefix: str,
        answers: Sequence[str],
    ) -> Item:
        head, tail = self.composer.frame(*around, prefix)
        middle = self.composer.ids(needle)
        choices = tuple(tuple(self.composer.ids(answer)) for answer in answers)
        first = max(0, self.sink - len(head))
        around_it = len(head) + len(middle) + len(tail) + max(map(len, choices))
        room = self._room(kind, around_it, first + 1)
        body = self.corpus.cut(room, pick, self.fresh)
        depth = self.depth(index, pick)
        at = first + round(depth * (room - first))
        prompt = head + body[:at] + middle + body[at:] + tail
        return Item(kind, self.bucket, tuple(prompt), choices[0], round(depth, 4), choices)

    def summary(self, index: int, budget: int) -> Item:
        """A text to summarise, with no answer yet; `budget` tokens are left for it."""
        head, tail = self.composer.frame(
            "Summarise the following text.\n\n", "\n\nWrite a short summary of the text above."
        )
        room = self._room("summary", len(head) + len(tail) + budget)
        body = self.corpus.cut(room, self._random("summary", index), self.fresh)
        return Item("summary", self.bucket, tuple(head + body + tail), ())

    def plain(self, index: int, budget: int) -> Item:
        """Text whose last `budget` tokens are the answer: the control."""
        room = self._room("text", budget)
        text = self.corpus.cut(self.bucket, self._random("text", index), self.fresh)
        return Item("text", self.bucket, tuple(text[:room]), tuple(text[room:]))

    def _room(self, kind: str, taken: int, least: int = 1) -> int:
        """Tokens left for text beside `taken` ones."""
        if self.bucket - taken < least:
            raise PlannerError(
                f"a {kind} item takes {taken + least} tokens with the least text in it, the "
                f"length is {self.bucket}; choose longer lengths"
            )
        return self.bucket - taken


def read_pairs(path: Path, composer: Composer, lengths: Sequence[int]) -> dict[int, list[Item]]:
    """Items of a user's file, by the least length that holds them.

    Lines are {"prompt": TEXT, "response": TEXT}. Longer ones than the longest
    length are dropped; PlannerError where fewer than 80 % remain.
    """
    items: dict[int, list[Item]] = {length: [] for length in lengths}
    dropped = total = 0
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        total += 1
        try:
            fields = json.loads(line)
            prompt, response = str(fields["prompt"]), str(fields["response"])
        except (ValueError, KeyError, TypeError) as error:
            raise PlannerError(
                f'{path}:{number}: expected {{"prompt": TEXT, "response": TEXT}}, '
                f"found {line[:60]}"
            ) from error
        head, tail = composer.frame("", "")
        prompt_ids = head + composer.ids(prompt) + tail
        response_ids = composer.ids(response)
        if not response_ids:
            raise PlannerError(f"{path}:{number}: the response is empty; leave the line out")
        tokens = len(prompt_ids) + len(response_ids)
        fitting = [length for length in lengths if tokens <= length]
        if not fitting:
            dropped += 1
            continue
        bucket = min(fitting)
        items[bucket].append(Item("pair", bucket, tuple(prompt_ids), tuple(response_ids)))
    if dropped > 0.2 * total:
        raise PlannerError(
            f"{path}: {dropped} of {total} items are longer than {max(lengths)} tokens, at "
            "most 20 % may be dropped; profile longer lengths, or shorten the items"
        )
    return items
