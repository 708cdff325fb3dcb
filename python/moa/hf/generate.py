"""The cache of a `generate` call, in place of transformers' own choice.

Told by the arguments of the call: N of each row, how many copies of a row
there are, and how far assisted decoding takes the cache back.
"""

from __future__ import annotations

from transformers.generation import GenerationMode

from ..errors import InvalidArgumentError, OutOfRangeError, UnsupportedError, WrongTypeError
from . import padding
from .cache import Cache
from .engine import DEFAULT_BUDGET

#: Most tokens that an assistant is taken to draft at once, where more could be.
MOST_DRAFTED = 256
#: As many as it drafts where its generation_config says nothing.
USUALLY_DRAFTED = 20
#: Beyond what was drafted, tokens that an assistant's own cache may go back:
#: where its tokenizer cuts text differently.
ASSISTANT_MARGIN = 32


def prepare_cache(
    model, generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
):
    """Stands in for `_prepare_cache_for_generation` of a model from `moa.hf.load`."""
    engine = model.moa
    _refuse(engine, generation_config)
    if generation_config.use_cache is False:
        return
    mask = model_kwargs.get("attention_mask")
    # The cache need not hold the last token, whose row is never fed.
    total = max_cache_length + 1
    copies = max(generation_config.num_beams or 1, generation_config.num_return_sequences or 1)
    cache = model_kwargs.get("past_key_values")
    if cache is not None and not isinstance(cache, Cache):
        raise WrongTypeError(
            f"past_key_values is a {type(cache).__name__}; pass moa.hf.Cache(model), or none"
        )
    past = 0 if cache is None else cache.get_seq_length()
    prompts, budgets = _lengths(engine, mask, past, total, batch_size, copies)
    drafts = bool(getattr(generation_config, "is_assistant", False))
    if drafts:
        if past:
            return  # A few tokens more, of those that were told at first.
        # An assistant is not told for how long it will assist.
        budgets = [budget + DEFAULT_BUDGET for budget in budgets]
    most = MOST_DRAFTED if cache is None else USUALLY_DRAFTED
    margin = _margin(generation_config, generation_mode, min(max(budgets), most))
    if cache is None:
        cache = Cache(model, rollback_tokens=margin)
        model_kwargs["past_key_values"] = cache
    else:
        _check_margin(cache, margin)
    cache.expect([p + b for p, b in zip(prompts, budgets, strict=True)], copies)


def _refuse(engine, config) -> None:
    # Of a static cache the elastic one has what compiled steps need: they are of one shape,
    # and read its pages by tables that lie in one place.
    kind = config.cache_implementation
    if kind not in (None, "dynamic", "static"):
        raise InvalidArgumentError(
            f"cache_implementation='{kind}' would replace the elastic cache, whose pages come "
            "and go as windows move: leave it out. Its size is known beforehand all the same "
            "(moa.hf.Cache.closed_form_bytes), and max_bytes of moa.hf.Cache bounds it"
        )
    if getattr(config, "assistant_early_exit", None):
        raise UnsupportedError(
            "assistant_early_exit runs some layers more often than others, the elastic cache "
            "moves all together: pass a smaller assistant_model, or prompt_lookup_num_tokens"
        )
    if config.use_cache is False and engine.info["length"] == "request":
        raise InvalidArgumentError(
            "use_cache=False computes each token with a longer N than the last, and so "
            "with other spans; leave use_cache on, or use a plan with length rule 'row'"
        )


def _lengths(engine, mask, past, total, batch, copies) -> tuple[list[int], list[int]]:
    """Prompt tokens and budget of each row; rows are the caller's, before copies."""
    if mask is None or mask.dim() != 2:
        prompts, budget = [0] * batch, total
    else:
        if mask.shape[0] == batch * copies:
            mask = mask[::copies]
        columns = padding.on_host(mask)
        if columns is not None and columns.shape[1] > past:
            # Holes show here, before chunks of a prefill would hide them.
            padding.runs(columns, columns.shape[0], columns.shape[1] - past)
        prompts = [int(n) for n in mask.bool().sum(dim=1).tolist()]
        budget = total - mask.shape[1]
        if budget < 1:
            budget = DEFAULT_BUDGET
    most = engine.info["max_length"]
    longest = max(prompts, default=0)
    if longest > most:
        raise OutOfRangeError(
            f"row {prompts.index(longest)} has {longest} tokens, the artifact serves {most}: "
            "shorten it, or pass max_length= to moa.hf.load where the model's "
            "max_position_embeddings allow it"
        )
    return prompts, [budget] * len(prompts)


def _margin(config, mode, drafted: int) -> int:
    """Tokens that one step may take back, where at most `drafted` are drafted."""
    if getattr(config, "is_assistant", False):
        return drafted + ASSISTANT_MARGIN
    if mode != GenerationMode.ASSISTED_GENERATION:
        return 0
    return config.prompt_lookup_num_tokens or drafted


def _check_margin(cache, margin: int) -> None:
    if margin > cache.rollback_tokens and not cache.engine.is_dense:
        raise InvalidArgumentError(
            f"this step may take back {margin} tokens, the cache was made with "
            f"rollback_tokens={cache.rollback_tokens}: make it with "
            f"moa.hf.Cache(model, rollback_tokens={margin}), or pass none"
        )
