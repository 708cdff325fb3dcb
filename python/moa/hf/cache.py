"""A transformers cache whose keys and values live in the runtime's pages.

transformers calls `update` with the new chunk of keys and values. It is handed
through unchanged, tagged with its layer; our attention function then appends,
attends and evicts in one call. No layer ever holds a dense history.
"""

from __future__ import annotations

from transformers.cache_utils import Cache as HFCache
from transformers.cache_utils import CacheLayerMixin

from .. import ops, runtime
from .engine import DEFAULT_BUDGET, Engine

_NO_BEAMS = (
    "the elastic cache cannot {what}: keys outside the windows are gone. "
    "Generate without {without}."
)


class Layer(CacheLayerMixin):
    """One layer's part of the cache."""

    is_sliding = False
    is_croppable = False
    is_compileable = False

    def __init__(self, owner: Cache, index: int):
        super().__init__()
        self.owner, self.index = owner, index
        self.columns = 0  # tokens seen by transformers, padding included

    def lazy_initialization(self, key_states, value_states):
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        key_states.moa_layer = self
        return key_states, value_states

    def attend(self, query, key, value, padding, scaling):
        """Append and attend; shapes as transformers gives them.

        query [B, Hq, T, D], key and value [B, Hkv, T, D] of the new tokens
        alone; padding: pad columns on the left of each row, or None.
        Returns [B, T, Hq, D].
        """
        batch, _, tokens, _ = query.shape
        self.owner.begin(self, batch, tokens, padding)
        out = query.new_empty(batch, tokens, query.shape[1], query.shape[3])
        entries = []
        for row in range(batch):
            skip = 0
            if padding is not None:
                skip = max(0, min(tokens, padding[row] - self.columns))
                out[row, :skip] = 0
            if skip < tokens:
                entries.append((
                    self.owner.sequences[row],
                    query[row, :, skip:].transpose(0, 1),
                    key[row, :, skip:].transpose(0, 1),
                    value[row, :, skip:].transpose(0, 1),
                    out[row, skip:],
                ))  # fmt: skip
        if entries:
            self.owner.run(self.index, entries, scaling)
        self.columns += tokens
        return out

    def traced(self, query, key, value, mask, scaling):
        """`attend` for torch.compile: one operator, which finds the cache again."""
        q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
        return ops.prefill(self.owner.handle, q, k, v, self.index, scaling, mask)

    def get_seq_length(self) -> int:
        return self.columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns + query_length, 0

    def get_max_length(self) -> int:
        return self.owner.engine.info["max_length"]

    def reset(self) -> None:
        self.columns = 0
        self.owner.drop()

    def crop(self, *args, **kwargs):
        raise NotImplementedError(
            _NO_BEAMS.format(what="roll back", without="an assistant or prompt lookup")
        )

    def reorder_cache(self, beam_idx):
        raise NotImplementedError(
            _NO_BEAMS.format(what="reorder sequences", without="num_beams")
        )

    def batch_repeat_interleave(self, repeats):
        raise NotImplementedError(
            _NO_BEAMS.format(what="copy sequences", without="contrastive search")
        )

    def batch_select_indices(self, indices):
        raise NotImplementedError(
            _NO_BEAMS.format(what="select sequences", without="contrastive search")
        )

    def offload(self):
        raise NotImplementedError("the elastic cache stays on its model's device")

    prefetch = offload


class Cache(HFCache):
    """Elastic KV cache of one batch: pass it as `past_key_values`.

    model: a model from `moa.hf.load`. max_bytes: most bytes of pages, 0 for no
    limit (on CUDA, 90 % of the memory that is free);
    moa.errors.OutOfPagesError when they do not suffice. pages: of another cache
    of the model, to share them.
    """

    def __init__(self, model, max_bytes: int = 0, *, pages: runtime.Cache | None = None):
        engine = model if isinstance(model, Engine) else getattr(model, "moa", None)
        if not isinstance(engine, Engine):
            raise TypeError("expected a model from moa.hf.load")
        self.engine = engine
        self.max_bytes = max_bytes
        self.sequences: list = []
        self.lengths: list[int] | None = None
        self.broken: str | None = None
        self._pads: list[int] = []
        self._traced_padding: list[int] | None = None
        #: The layer that a forward pass meets first; it makes sequences.
        self.leader = 0
        self._pages = runtime.Cache(engine.module, max_bytes) if pages is None else pages
        super().__init__(layers=[Layer(self, i) for i in range(engine.layers)])
        #: Names this cache to the operators of `moa.ops`.
        self.handle = ops.handle_of(self)

    def expect(self, lengths: list[int]) -> None:
        """Sets N of each row: its tokens, prompt and budget, padding not counted."""
        self.lengths = [self.engine.clamp(n) for n in lengths]

    def begin(self, layer: Layer, batch: int, tokens: int, padding) -> None:
        """Makes or raises sequences; the first layer of a forward pass decides."""
        if self.broken:
            raise RuntimeError(
                f"this cache stopped at an error ({self.broken}); layers are out "
                "of step, so start a new one"
            )
        if self.sequences and len(self.sequences) != batch:
            raise ValueError(
                f"the cache holds {len(self.sequences)} sequences, the batch has {batch}"
            )
        if layer.index != self.leader:
            return
        self._check_padding(layer, tokens, padding or [0] * batch)
        told = self.lengths is not None
        seen = [max(1, layer.columns + tokens - pad) for pad in padding or [0] * batch]
        lengths = self._wanted(seen)
        self.lengths = None
        if not self.sequences:
            self.sequences = [runtime.Sequence(self._pages, n) for n in lengths]
            return
        for sequence, rows, n in zip(self.sequences, seen, lengths):
            # A chunk within N keeps N; one that goes past it is a new turn. Single
            # tokens past the budget keep the spans they have.
            past = tokens > 1 and rows > sequence.length
            if n > sequence.length and (told or past):
                sequence.set_length(n)

    def _check_padding(self, layer, tokens, pads) -> None:
        """A row's padding is its own for the life of the cache."""
        for row, (pad, known) in enumerate(zip(pads, self._pads)):
            if min(pad, layer.columns) != known:
                raise ValueError(
                    f"row {row} had {known} pad columns on the left in this cache, the mask "
                    f"now has {pad}; keep each row's padding, or start a new cache"
                )
        self._pads = [min(pad, layer.columns + tokens) for pad in pads]

    def _wanted(self, seen) -> list[int]:
        """N of each row, whose tokens up to the end of this call are `seen`."""
        if self.lengths is not None:
            if len(seen) % len(self.lengths):
                raise ValueError(
                    f"lengths are set for {len(self.lengths)} rows, the batch has {len(seen)}"
                )
            repeat = len(seen) // len(self.lengths)
            return [n for n in self.lengths for _ in range(repeat)]
        return [self.engine.clamp(rows + DEFAULT_BUDGET) for rows in seen]

    def run(self, index: int, entries, scaling) -> None:
        try:
            runtime.attend(self._pages, index, entries, scaling, self.engine.stream())
        except Exception as error:
            self.broken = str(error)
            raise

    def prefill(self, layer, q, k, v, scale, mask):
        """The operator `moa::prefill`: what a traced model calls; see `moa.ops`."""
        from .attention import left_padding

        if layer == self.leader:
            self._traced_padding = left_padding(mask)
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        return self.layers[layer].attend(q, k, v, self._traced_padding, scale)

    def advance(self) -> None:
        """Counts a step that a graph ran: a token in every row."""
        for layer in self.layers:
            layer.columns += 1

    def fork(self) -> Cache:
        """A cache that has seen the same and shares its pages; each goes on by itself.

        RuntimeError on a cache that stopped at an error.
        """
        if self.broken:
            raise RuntimeError(f"this cache stopped at an error ({self.broken}): no fork of it")
        other = Cache(self.engine, self.max_bytes, pages=self._pages)
        other.sequences = [sequence.fork() for sequence in self.sequences]
        other.lengths, other._pads, other.leader = self.lengths, [*self._pads], self.leader
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            theirs.columns = mine.columns
        return other

    def drop(self) -> None:
        """Gives every page back."""
        self.sequences, self._pads = [], []
        self.lengths = self.broken = None

    @property
    def pages(self) -> runtime.Cache:
        """Where the sequences' pages lie."""
        return self._pages

    @property
    def kv_bytes(self) -> int:
        """Bytes of pages held now, over all layers and rows."""
        return sum(sequence.bytes for sequence in self.sequences)

    @property
    def closed_form_bytes(self) -> int:
        """The same from the plan alone: what the rows must hold now."""
        return sum(self.engine.module.kv_bytes(s.length, s.seen(0))[0] for s in self.sequences)

    @property
    def dense_bytes(self) -> int:
        """What a dense cache of whole pages would hold."""
        return sum(self.engine.module.kv_bytes(s.length, s.seen(0))[1] for s in self.sequences)

    @property
    def stats(self) -> dict:
        """Counters of the page pool."""
        return self._pages.stats
