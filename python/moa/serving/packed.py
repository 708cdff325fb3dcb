"""A transformers model run on packed steps: one row of the tokens of all requests.

The dense layers see [1, tokens], so that each is one product; attention goes to the
runtime, which knows which tokens are whose. Nothing is padded. On a CUDA device steps
without prompts go to `moa.hf.graph`, which replays a graph of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache as HFCache

from .. import runtime
from ..errors import UnsupportedError
from ..hf.graph import Decoder, StepLayer, shared_rope


class PackedLayer(StepLayer):  # type: ignore[no-untyped-call]
    """Attention goes to the step's rows."""

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, padding: Any, scaling: Any
    ) -> Tensor:
        """query [1, Hq, T, D], key and value [1, Hkv, T, D] -> [1, T, Hq, D]."""
        out = query.new_empty(1, query.shape[2], query.shape[1], query.shape[3])
        rows = (query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1))
        self.owner.attend(self.index, *rows, out[0], scaling)
        return out


class PackedCache(HFCache):
    """Hands a step's rows to the runtime, layer by layer."""

    def __init__(self, engine: Any, pages: runtime.Cache, max_sequences: int) -> None:
        self.engine, self.pages = engine, pages
        self._batch = runtime.Batch(pages, max_sequences)
        self._decodes = False
        self._sequences: list[runtime.Sequence] = []
        self._sizes: list[int] = []
        super().__init__(layers=[PackedLayer(self, i) for i in range(engine.layers)])

    def begin(self, entries: list[Any]) -> None:
        """Begins a step of runtime.StepEntry; OutOfPagesError changes nothing."""
        self._sequences = [entry.sequence for entry in entries]
        self._sizes = [entry.tokens for entry in entries]
        self._decodes = max(self._sizes) == 1
        if self._decodes:
            self._batch.begin(self._sequences, stream=self.engine.stream())

    def end(self, done: bool) -> None:
        """Every step that began ends here, whether it went through or not."""
        if self._decodes:
            if done:
                self._batch.end()
            else:
                self._batch.cancel()
        self._sequences, self._sizes, self._decodes = [], [], False

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, out: Tensor, scaling: Any
    ) -> None:
        """Tensors [T, heads, D]; writes out."""
        stream = self.engine.stream()
        if self._decodes:
            rows = (tensor.unsqueeze(1) for tensor in (query, key, value, out))
            self._batch.attend(layer, *rows, scale=scaling, stream=stream)
            return
        parts = (torch.split(tensor, self._sizes) for tensor in (query, key, value, out))
        entries = list(zip(self._sequences, *parts, strict=True))
        runtime.attend(self.pages, layer, entries, scaling, stream)


class PackedModel:
    """model: from moa.hf.load; pages: a runtime.Cache of its module.

    UnsupportedError where a row's rotation would depend on its neighbours.
    """

    def __init__(self, model: Any, pages: runtime.Cache, max_sequences: int) -> None:
        _refuse_shared_rope(model)
        self.model = model
        self.cache = PackedCache(model.moa, pages, max_sequences)
        self.decoder = Decoder(model, pages) if model.device.type == "cuda" else None

    def step(self, entries: list[Any], tokens: Sequence[Sequence[int]]) -> Tensor:
        """Logits [entries that sample, vocabulary] of a scheduler's step.

        entries: of runtime.StepEntry; tokens: for each its prompt and what was
        generated. After an error no row of the step counts, and the scheduler's
        abort_step is to follow.
        """
        if self.decoder is not None and all(entry.tokens == 1 for entry in entries):
            return self._decode(self.decoder, entries, tokens)
        ids: list[int] = []
        positions: list[int] = []
        sampled: list[int] = []
        for entry, own in zip(entries, tokens, strict=True):
            end = entry.first_row + entry.tokens
            ids += own[entry.first_row : end]
            positions += range(entry.first_row, end)
            if entry.samples:
                sampled.append(len(ids) - 1)
        device = self.model.device
        self.cache.begin(entries)
        done = False
        try:
            with torch.inference_mode():
                out = self.model(
                    input_ids=torch.tensor([ids], device=device),
                    position_ids=torch.tensor([positions], device=device),
                    past_key_values=self.cache,
                    use_cache=True,
                    logits_to_keep=torch.tensor(sampled, dtype=torch.long, device=device),
                )
            done = True
        finally:
            self.cache.end(done)
        logits: Tensor = out.logits[0]
        return logits

    def _decode(
        self, decoder: Decoder, entries: list[Any], tokens: Sequence[Sequence[int]]
    ) -> Tensor:
        """`step` where every entry has one token."""
        ids = [[own[entry.first_row]] for entry, own in zip(entries, tokens, strict=True)]
        positions = [[entry.first_row] for entry in entries]
        sequences = [entry.sequence for entry in entries]
        logits = decoder.step(sequences, torch.tensor(ids), torch.tensor(positions))
        return logits[[i for i, entry in enumerate(entries) if entry.samples], 0]


def _refuse_shared_rope(model: Any) -> None:
    if name := shared_rope(model):
        raise UnsupportedError(
            f"the model's rotary embedding is '{name}', whose frequencies depend on the "
            "longest sequence of a batch, so requests would change each other: "
            "generate one by one with moa.hf.load and model.generate"
        )
