"""Collects items of one length with the model: what it answers itself is kept.

Sources are named `synthetic`, `summarise`, `text`, each with `:PATH` for a user's
text instead of generated one, and `FILE.jsonl` for prompts with answers.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from .calibration import RETRIEVAL, Composer, Corpus, Item, Maker, read_items, read_pairs
from .errors import PlannerError
from .evaluate import batch_size, cross_entropy, shortfall
from .network import Network
from .runfolder import Lines, Progress, RunFolder, read_lines, write_lines

KINDS = ("synthetic", "summarise", "text")
#: What else a source may be: the parts of `synthetic` alone, and a user's items.
PARTS = ("needle", "copy", "pairs")
#: Tries for one item until the dense model answers.
ATTEMPTS = 3
#: Characters of generated text for each token of the longest length.
_CHARACTERS = 60


@dataclasses.dataclass(frozen=True)
class Source:
    """Where items come from; `path` None for generated text."""

    kind: str
    path: Path | None = None


def parse_sources(text: str) -> list[Source]:
    """Sources with commas between them; PlannerError for others."""
    sources = []
    for part in text.split(","):
        kind, _, path = part.strip().partition(":")
        if kind in KINDS:
            sources.append(Source(kind, Path(path) if path else None))
        elif part.strip().endswith(".jsonl"):
            sources.append(Source("pairs", Path(part.strip())))
        else:
            raise PlannerError(
                f"expected {', '.join(KINDS)} (each alone or with :PATH) or FILE.jsonl, found "
                f"'{part}'; name one in --data"
            )
    for source in sources:
        if source.path is not None and not source.path.exists():
            raise PlannerError(f"{source.path}: no such file or folder; name one in --data")
    return sources


@dataclasses.dataclass(frozen=True)
class Wish:
    """Which items to collect; lengths in tokens."""

    sources: tuple[Source, ...]
    lengths: tuple[int, ...]
    items: int
    seed: int
    sink: int
    budget: int  #: Most tokens of a summary, or of plain text to go on with.
    max_ce: float  #: Highest mean cross-entropy of the answers, nats.
    template: str | None = None
    fresh: bool = False  #: For validation: other text, names and questions.


class Collector:
    """Makes the items of each length; its texts are read once."""

    def __init__(self, network: Network, wish: Wish):
        self.network, self.wish = network, wish
        self.composer = Composer(network.tokenizer, wish.template)
        paths = {source.path for source in wish.sources if source.kind != "pairs"}
        self.corpora = {
            # Generated text of another length begins alike: validation has a seed of its own.
            path: Corpus(
                self.composer, path, _CHARACTERS * max(wish.lengths), 2 * wish.seed + wish.fresh
            )
            for path in paths
        }
        self.pairs: dict[Path | None, dict[int, list[Item]]] = {
            source.path: read_pairs(source.path, self.composer, wish.lengths)
            for source in wish.sources
            if source.kind == "pairs" and source.path is not None
        }
        #: Summaries that were answered ahead of their turn, by source, length and index.
        self._ahead: dict[tuple[Source, int, int], Item | None] = {}

    def key(self, length: int) -> dict[str, object]:
        """All that decides which items come out."""
        wish = self.wish
        return self.network.identity | {
            "length": length,
            "sources": [
                [source.kind, self._text_sha256(source, length)] for source in wish.sources
            ],
            "items": wish.items,
            "seed": wish.seed,
            "sink": wish.sink,
            "budget": wish.budget,
            "template": wish.template,
        }

    def _text_sha256(self, source: Source, length: int) -> str | list[str]:
        if source.kind == "pairs":
            return [item.hash for item in self.pairs[source.path][length]]
        return self.corpora[source.path].sha256

    def collect(self, length: int, draft: Lines, progress: Progress) -> list[Item]:
        """The items of a length; PlannerError where too few are answered.

        draft: takes each item as it is made, `{}` for one that is dropped.
        """
        wish = self.wish
        items = read_items(filter(None, draft.known), str(draft.path))
        dropped = len(draft.known) - len(items)
        made: Counter[Source] = Counter()  # A source may be named more than once.
        for index in range(wish.items):
            source = wish.sources[index % len(wish.sources)]
            turn = made[source]
            made[source] += 1
            if index < len(draft.known):
                progress.skip()
                continue
            item = self._item(source, length, turn)
            if item is None:
                dropped += 1
            else:
                items.append(item)
            draft.add([item.record() if item else {}])
            progress.step()
        if len(items) < 0.8 * wish.items:
            raise PlannerError(
                f"length {length}: {dropped} of {wish.items} items were dropped, as the dense "
                "model does not answer them or there are no more; at least 80 % must remain. "
                "Take other data (--data summarise), or fewer --items"
            )
        return items

    def _item(self, source: Source, length: int, index: int) -> Item | None:
        if source.kind == "pairs":
            pairs = self.pairs[source.path][length]
            return pairs[index] if index < len(pairs) else None
        maker = Maker(
            self.composer,
            self.corpora[source.path],
            length,
            self.wish.sink,
            self.wish.seed,
            self.wish.fresh,
        )
        if source.kind == "text":
            return maker.plain(index, self.wish.budget)
        if source.kind == "summarise":
            tries = (
                self._summary(maker, source, index + attempt * self.wish.items)
                for attempt in range(ATTEMPTS)
            )
        else:
            tries = (
                self._hidden(maker, source.kind, index, attempt) for attempt in range(ATTEMPTS)
            )
        return next((item for item in tries if item is not None), None)

    def _hidden(self, maker: Maker, kind: str, index: int, attempt: int) -> Item | None:
        """A needle or a list, of `synthetic` every fifth; None where it is not answered."""
        mixed = kind == "synthetic" and index % 5 == 4 and attempt == 0
        copying = kind == "copy" or mixed
        item = (maker.copy if copying else maker.needle)(index, attempt)
        if self.wish.fresh:
            return item  # Validation compares with the dense model instead.
        return item if self.measure(item, shortfall) < 0 else None

    def _summary(self, maker: Maker, source: Source, index: int) -> Item | None:
        """The index-th text with the dense model's summary; None where it says nothing.

        Those that follow are answered in the same batch.
        """
        if (source, maker.bucket, index) not in self._ahead:
            last = sum(
                self.wish.sources[i % len(self.wish.sources)] == source
                for i in range(self.wish.items)
            )
            size = batch_size(maker.bucket, self.network.device)
            indexes = range(index, max(index + 1, min(index + size, last)))
            drafts = [maker.summary(i, self.wish.budget) for i in indexes]
            for i, item in zip(indexes, self.answered(drafts), strict=True):
                self._ahead[source, maker.bucket, i] = item
        return self._ahead.pop((source, maker.bucket, index))

    def answered(self, items: Sequence[Item]) -> list[Item | None]:
        """Items of equally long prompts with the dense model's greedy answers.

        None for an answer that ends at once: it says nothing about the text.
        """
        model = self.network.model
        prompts = torch.tensor([item.prompt for item in items], device=self.network.device)
        with torch.inference_mode():
            out = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=self.wish.budget,
                do_sample=False,
                pad_token_id=0,
            )
        eos = model.generation_config.eos_token_id
        ends = {eos} if isinstance(eos, int) else set(eos or ())
        found: list[Item | None] = []
        for item, tokens in zip(items, out[:, prompts.shape[1] :].tolist(), strict=True):
            # What follows the end fills the batch.
            size = next((i + 1 for i, t in enumerate(tokens) if t in ends), len(tokens))
            response = tuple(tokens[:size])
            found.append(dataclasses.replace(item, response=response) if size > 1 else None)
        return found

    def measure(
        self, item: Item, form: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> float:
        """A loss of the dense model's logits for the response."""
        ids = torch.tensor([item.prompt + item.response], device=self.network.device)
        keep = len(item.response)
        with torch.inference_mode():
            logits = self.network.model(ids, use_cache=False, logits_to_keep=keep + 1).logits
        return float(form(logits[0, :-1].float(), ids[0, -keep:]))

    def check_aligned(self, items: Sequence[Item], length: int) -> None:
        """PlannerError where the answers are not what the model would say."""
        told = [item for item in items if item.kind not in RETRIEVAL]
        if not told:
            return
        mean = sum(self.measure(item, cross_entropy) for item in told) / len(told)
        if not mean <= self.wish.max_ce:
            raise PlannerError(
                f"length {length}: the dense model's cross-entropy of the answers is "
                f"{mean:.2f} nats a token, at most {self.wish.max_ce:g} is expected; use the "
                "model's own answers (--data summarise), or raise --max-ce"
            )


def items_of(
    run: RunFolder, folder: str, collector: Collector, length: int, as_json: bool = False
) -> list[Item]:
    """The items of `folder`/N.jsonl, collected where they are not there yet."""
    step = f"{folder}/{length}"
    run.claim(step, collector.key(length))
    path = run / f"{step}.jsonl"
    if path.exists():
        return read_items(read_lines(path), str(path))
    draft = Lines(run / f"{step}.part.jsonl")
    with Progress(f"{folder} {length}", collector.wish.items, as_json=as_json) as progress:
        items = collector.collect(length, draft, progress)
    collector.check_aligned(items, length)
    write_lines(path, (item.record() for item in items))
    draft.path.unlink()
    run.log(f"{step}: {len(items)} items")
    return items
