"""Every way to call generate, on a model under a plan and on the masked reference.

Told by options alone, so that one table serves tiny models here and a real one
in examples/04-hf-smollm2.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers

import moa.hf

sys.path.insert(0, str(Path(__file__).parents[2] / "examples/04-hf-smollm2"))
from reference import Reference  # noqa: E402

GREEDY = dict(do_sample=False, pad_token_id=0, eos_token_id=None)
SAMPLE = dict(do_sample=True, top_k=20, temperature=1.2)

#: Options that both sides take.
BOTH = {
    "greedy": {},
    "sampling": SAMPLE,
    "several samples of a prompt": dict(num_return_sequences=3, **SAMPLE),
    "beams": dict(num_beams=4),
    "beams, several answers": dict(num_beams=4, num_return_sequences=3),
    "beams, sampled": dict(num_beams=3, **SAMPLE),
}
#: Options that must not change what greedy decoding says: ours takes them, the
#: reference does not.
OURS = {
    "prompt lookup": dict(prompt_lookup_num_tokens=5),
    "chunked prefill": dict(prefill_chunk_size=77),
    "static cache": dict(cache_implementation="static"),
}


def prompt(tokens, vocabulary=199, seed=1):
    """Random tokens [1, tokens], half of which come twice, for prompt lookup."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocabulary, (1, tokens), generator=generator)
    half = tokens // 2
    ids[:, half : 2 * half] = ids[:, :half]
    return ids


def batch(rows, left=True):
    """Prompts of several lengths as ids and mask, [B, longest] each."""
    longest = max(row.shape[1] for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        columns = slice(longest - row.shape[1], None) if left else slice(0, row.shape[1])
        ids[place, columns], mask[place, columns] = row[0], 1
    return dict(input_ids=ids, attention_mask=mask)


def generate(model, inputs, new, **options):
    """New tokens of a generate call, the same random numbers every time."""
    torch.manual_seed(0)
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=new, **(GREEDY | options))
    return out[:, inputs["input_ids"].shape[1] :]


def _keep_all(config, model_kwargs, *args):
    model_kwargs["past_key_values"] = transformers.DynamicCache()


def masked(dense, plan, inputs, new, windows=None):
    """The dense model under the masked reference of these prompts' lengths.

    Its cache keeps every key, whatever windows the model has.
    """
    dense._prepare_cache_for_generation = _keep_all
    lengths = (inputs["attention_mask"].sum(1) + new).tolist()
    return Reference(plan, lengths, windows).use(dense)


def compare(ours, dense, plan, inputs, new, mode, windows=None, **more):
    """New tokens of both sides in one of the modes of the tables."""
    both, own = BOTH.get(mode, {}), OURS.get(mode, {})
    found = generate(ours, inputs, new, **both, **own, **more)
    return found, generate(masked(dense, plan, inputs, new, windows), inputs, new, **both)


def turns(ours, dense, plan, inputs, more, new, windows=None):
    """Two turns on one cache, under the length rule row; both sides' second answers."""
    cache = moa.hf.Cache(ours)
    first = generate(ours, inputs, new, past_key_values=cache)
    ids = torch.cat([inputs["input_ids"], first, more], dim=1)
    mask = torch.cat(
        [inputs["attention_mask"], torch.ones(len(ids), first.shape[1] + more.shape[1])], 1
    )
    second = dict(input_ids=ids, attention_mask=mask.long())
    found = generate(ours, second, new, past_key_values=cache)
    return found, generate(masked(dense, plan, second, new, windows), second, new)
