"""Decode steps of a whole model, captured once in a CUDA graph and replayed.

A step gives each of several sequences one token. The runtime prepares it on the
device (`moa.ops.Batch`), so that a graph of the model's forward pass serves every
later step: other lengths, other sequences, fewer of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import types
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache as HFCache
from transformers.cache_utils import CacheLayerMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from .. import ops, runtime
from .cache import Cache

_log = logging.getLogger(__name__)

#: Modes of torch.compile that capture graphs, which is done here, and those without.
_MODES = {"reduce-overhead": "default", "max-autotune": "max-autotune-no-cudagraphs"}


def bucket_of(sequences: int) -> int:
    """Rows of the graph that serves so many sequences: 1, 2, 4, multiples of 8."""
    if sequences <= 2:
        return sequences
    return 4 if sequences <= 4 else -(-sequences // 8) * 8


class StepLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer during a step, whose positions are given: tags keys for the attention
    function, which calls `attend` of the kind that this becomes.
    """

    is_sliding = False
    is_compileable = False

    def __init__(self, owner: Any, index: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self.owner, self.index = owner, index

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        key_states.moa_layer = self  # type: ignore[attr-defined]
        return key_states, value_states

    def get_seq_length(self) -> int:
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_max_length(self) -> int:
        return -1


class _Step:
    """Tags a layer's keys for the attention function: attention goes to the step's batch."""

    checked = True  # By the prompt.

    def __init__(self, owner: _StepCache, index: int):
        self.owner, self.index = owner, index

    def attend(self, query: Tensor, key: Tensor, value: Tensor, _: Any, scaling: Any) -> Tensor:
        """[B, 1, Hq, D] of query [B, Hq, 1, D], key and value [B, Hkv, 1, D]."""
        q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
        out: Tensor = ops.decode(self.owner.batch.handle, q, k, v, self.index, scaling)
        return out

    traced = attend


class _StepCache(HFCache):
    """What a model takes for its cache during a step."""

    def __init__(self, engine: Any, batch: ops.Batch):
        self.engine, self.batch = engine, batch
        super().__init__(layers=[StepLayer(self, i) for i in range(engine.layers)])

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        # Nothing is looked up by the layer's number: compiled code serves any layer.
        key_states.moa_layer = _Step(self, layer_idx)  # type: ignore[attr-defined]
        return key_states, value_states


@dataclasses.dataclass
class _Bucket:
    """The step of up to so many sequences."""

    batch: ops.Batch
    cache: _StepCache
    tokens: Tensor  # [rows, 1], as the graph reads them.
    positions: Tensor
    steps: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    logits: Tensor | None = None  # [rows, 1, vocabulary], as the graph writes them.


class Decoder:
    """Decode steps of a model over the pages of one cache.

    model: from moa.hf.load. pages: the moa.runtime.Cache of the sequences to
    come. forward: what runs of the model, such as a compiled one. A graph has the
    weights of its capture, so make a new Decoder where they were exchanged or
    adapters changed. On the CPU steps run eagerly.
    """

    def __init__(self, model: Any, pages: runtime.Cache, forward: Any = None):
        self.engine = model.moa
        self._pages, self._forward = pages, forward or model.forward
        self._device, self._capturable = model.device, not _host_decides(model)
        self._buckets: dict[int, _Bucket] = {}
        self._memory: Any = None  # Of all graphs: one runs at a time.

    @property
    def graphs(self) -> int:
        """Graphs captured so far."""
        return sum(bucket.graph is not None for bucket in self._buckets.values())

    def _bucket(self, sequences: int) -> _Bucket:
        rows = bucket_of(sequences)
        if rows not in self._buckets:
            batch = ops.Batch(self._pages, rows)
            tokens, positions = torch.zeros(2, rows, 1, dtype=torch.long, device=self._device)
            cache = _StepCache(self.engine, batch)
            self._buckets[rows] = _Bucket(batch, cache, tokens, positions)
        return self._buckets[rows]

    @torch.no_grad()
    def step(
        self,
        sequences: list[runtime.Sequence],
        tokens: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Feeds a token to each sequence: logits [B, 1, vocabulary].

        tokens and positions: [B, 1]; positions as the sequences have them where
        none are given. The result is overwritten by the next step. The first step
        of a bucket runs eagerly, the second is captured. A step that fails
        (moa.errors.OutOfPagesError, say) leaves the sequences as they were.
        """
        count = len(sequences)
        bucket = self._bucket(count)
        if positions is None:
            positions = torch.tensor([[sequence.seen()] for sequence in sequences])
        bucket.tokens[:count].copy_(tokens)
        bucket.positions[:count].copy_(positions)
        bucket.batch.begin(sequences, stream=self.engine.stream())
        try:
            logits = self._logits(bucket)
        except BaseException:
            bucket.batch.cancel()
            raise
        bucket.batch.end()
        bucket.steps += 1
        return logits[:count]

    def _logits(self, bucket: _Bucket) -> Tensor:
        wanted = self._capturable and bucket.batch.replays and bucket.steps > 0
        if bucket.graph is None and wanted:
            self._capture(bucket)
        if bucket.graph is None:
            return self._run(bucket)
        bucket.graph.replay()
        assert bucket.logits is not None
        return bucket.logits

    def _run(self, bucket: _Bucket) -> Tensor:
        logits: Tensor = self._forward(
            input_ids=bucket.tokens, position_ids=bucket.positions,
            past_key_values=bucket.cache, use_cache=True,
        ).logits  # fmt: skip
        return logits

    def _capture(self, bucket: _Bucket) -> None:
        """Captures the step; where the model cannot be captured, steps stay eager."""
        graph = torch.cuda.CUDAGraph()
        self._memory = self._memory or torch.cuda.graph_pool_handle()
        device = bucket.tokens.device.index
        generator = torch.cuda.default_generators[device]
        state = generator.clone_state()
        try:
            with torch.cuda.graph(graph, self._memory, capture_error_mode="thread_local"):
                logits = self._run(bucket)
        except Exception as error:
            # torch takes random numbers and memory to be captured until an end that a
            # capture with an error has not.
            generator.graphsafe_set_state(state)
            with contextlib.suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(device, self._memory)
            self._capturable = False
            _log.debug("the forward pass cannot be captured in a CUDA graph: %s", error)
        else:
            bucket.graph, bucket.logits = graph, logits


def shared_rope(model: Any) -> str | None:
    """The kind of a rotation whose frequencies depend on the longest sequence of a call,
    or None: the forward pass then asks for values of positions on the host.
    """
    config = model.config.get_text_config(decoder=True)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    rope = rope or {}
    kinds = [part for part in (rope, *rope.values()) if isinstance(part, dict)]
    names = (kind.get("rope_type") for kind in kinds)
    return next((name for name in names if name in ("dynamic", "longrope")), None)


def _host_decides(model: Any) -> bool:
    return shared_rope(model) is not None


class _Decoding:
    """What one generate() calls for its steps: a replay where possible, else the model."""

    def __init__(self, model: Any, compile_config: Any):
        self.model, self.compile_config = model, compile_config
        self.decoder: Decoder | None = None
        self.said: set[str] = set()

    def __call__(self, **inputs: Any) -> Any:
        cache = inputs.get("past_key_values")
        reason = _reason(cache, inputs)
        if reason is not None:
            if reason not in self.said:
                _log.debug("a step runs without a CUDA graph: %s", reason)
                self.said.add(reason)
            return self.model(**inputs)
        assert isinstance(cache, Cache)
        if self.decoder is None:
            forward = _compiled(self.model, self.compile_config)
            self.decoder = Decoder(self.model, cache.pages, forward)
        ids, positions = inputs["input_ids"], inputs.get("position_ids")
        logits = self.decoder.step(cache.sequences, ids, positions)
        cache.advance()
        return CausalLMOutputWithPast(logits=logits, past_key_values=cache)


def _compiled(model: Any, compile_config: Any) -> Any:
    """The forward pass by torch.compile where a configuration asks for it."""
    if compile_config is None:
        return model.forward
    options = compile_config.to_dict()
    options["mode"] = _MODES.get(options.get("mode"), options.get("mode"))
    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers:
        return torch.compile(model.forward, **options)
    return _CompiledLayers(model, layers, options)


class _CompiledLayers:
    """A model's forward pass with its layers compiled, each by itself: code of one serves
    all that are alike, where that of the whole takes a minute to compile.
    """

    def __init__(self, model: Any, layers: list[Any], options: dict[str, Any]):
        self.model, self.layers = model, layers
        self.compiled = [torch.compile(layer.forward, **options) for layer in layers]
        # A layer's number becomes an input; where a model decides by it, layers have
        # code of their own.
        self.config = {
            "allow_unspec_int_on_nn_module": True,
            "recompile_limit": torch._dynamo.config.recompile_limit + 4 * len(layers),
        }

    def __call__(self, **inputs: Any) -> Any:
        before = [vars(layer).get("forward") for layer in self.layers]
        try:
            for layer, compiled in zip(self.layers, self.compiled, strict=True):
                layer.forward = compiled
            with torch._dynamo.config.patch(self.config):
                return self.model.forward(**inputs)
        finally:
            for layer, own in zip(self.layers, before, strict=True):
                if own is None:
                    del layer.forward
                else:
                    layer.forward = own


#: Inputs of a forward pass that a step has, or that say nothing about it.
_KNOWN = {
    "input_ids", "position_ids", "past_key_values", "attention_mask", "use_cache",
    "return_dict", "cache_position", "logits_to_keep", "next_sequence_length",
}  # fmt: skip


def _reason(cache: Any, inputs: dict[str, Any]) -> str | None:
    """Why a step runs without a graph, or None."""
    if not isinstance(cache, Cache):
        return "there is no moa.hf.Cache"
    ids = inputs.get("input_ids")
    more = [
        k for k, v in inputs.items() if k not in _KNOWN and v is not None and v is not False
    ]
    if more or ids is None:
        return f"the forward pass takes {', '.join(sorted(more)) or 'no input_ids'}"
    if ids.shape[1] != 1:
        return "it has more than one token a row"
    if len(cache.sequences) != len(ids) or cache.lengths is not None or cache.broken:
        return "the cache's rows are new, shared, of a new length, or stopped at an error"
    return None


def decoding(model: Any) -> Any:
    """What to call in place of a model from moa.hf.load for the steps of one
    moa.hf.Cache: on a CUDA device steps of single tokens are replays, as generate()
    has them.
    """
    return _Decoding(model, None) if model.device.type == "cuda" else model


def valid_auto_compile_criteria(self: Any, model_kwargs: Any, generation_config: Any) -> bool:
    """Stands in for transformers' own: whether generate() asks for the compiled call."""
    if self.device.type != "cuda" or not isinstance(model_kwargs.get("past_key_values"), Cache):
        standard = type(self)._valid_auto_compile_criteria
        return bool(standard(self, model_kwargs, generation_config))
    quantizer = getattr(self, "hf_quantizer", None)
    return (
        not generation_config.disable_compile
        and (quantizer is None or quantizer.is_compileable)
        and len(set(getattr(self, "hf_device_map", {}).values())) <= 1
    )


def get_compiled_call(self: Any, compile_config: Any) -> Any:
    """Stands in for transformers' own: the call that generate() makes for each step."""
    return _Decoding(self, compile_config)


def install(model: Any) -> None:
    """Lets generate() of a model replay its decode steps on a CUDA device.

    disable_compile=True of a call goes without; compile_config=... has torch.compile
    make the layers of what is captured.
    """
    model._valid_auto_compile_criteria = types.MethodType(valid_auto_compile_criteria, model)
    model.get_compiled_call = types.MethodType(get_compiled_call, model)
