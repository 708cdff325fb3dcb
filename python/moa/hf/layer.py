"""One layer of a `moa.hf.Cache`, as transformers calls it.

It counts columns and hands chunks through; what is kept is the cache's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers.cache_utils import CacheLayerMixin

from .. import ops
from ..errors import UnsupportedError

if TYPE_CHECKING:
    from .cache import Cache


class Layer(CacheLayerMixin):
    """One layer's part of the cache."""

    is_sliding = False
    is_compileable = False

    def __init__(self, owner: Cache, index: int):
        super().__init__()
        self.owner, self.index = owner, index
        self.columns = 0  # tokens seen by transformers, padding included

    @property
    def is_croppable(self) -> bool:
        return self.owner.is_croppable

    def lazy_initialization(self, key_states, value_states):
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        key_states.moa_layer = self
        return key_states, value_states

    def attend(self, query, key, value, mask, scaling):
        """Append and attend; shapes as transformers gives them.

        query [B, Hq, T, D], key and value [B, Hkv, T, D] of the new tokens
        alone; mask: which of all columns are tokens, on the CPU, or None.
        Returns [B, T, Hq, D]; rows of padding are zero.
        """
        owner, tokens = self.owner, query.shape[2]
        owner.begin(self, key, mask)
        share = owner.rows.share
        if share > 1:
            query, key, value = query[::share], key[::share], value[::share]
        batch, heads, _, dim = query.shape
        out = query.new_empty(batch, tokens, heads, dim)
        entries = []
        for row, (first, end) in enumerate(owner.runs):
            if end - first < tokens:
                out[row, :first] = 0
                out[row, end:] = 0
            if first < end:
                entries.append((
                    owner.sequences[row],
                    query[row, :, first:end].transpose(0, 1),
                    key[row, :, first:end].transpose(0, 1),
                    value[row, :, first:end].transpose(0, 1),
                    out[row, first:end],
                ))  # fmt: skip
        if entries:
            owner.run(self.index, entries, scaling)
        self.columns += tokens
        return out.repeat_interleave(share, dim=0) if share > 1 else out

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

    def _all_or_none(self, *args, **kwargs):
        raise UnsupportedError(
            "all layers of a moa.hf.Cache move together: call it on the cache"
        )

    crop = reorder_cache = batch_repeat_interleave = batch_select_indices = _all_or_none

    def offload(self):
        raise UnsupportedError(
            "the elastic cache stays on its model's device: leave offloading out"
        )

    prefetch = offload
