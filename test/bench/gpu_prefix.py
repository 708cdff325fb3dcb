"""Conversations that share a prefix, over several turns, under the length rule `row`.

Each turn comes to a new sequence that reuses what the cache has of its tokens, feeds
the rest by prefill and generates by decode. Rows must equal those of all tokens fed
from scratch within rounding, as decode and prefill add in another order, and those of
the same conversations run again bit for bit.

    python test/bench/gpu_prefix.py --artifacts DIR

uses the artifact `replay_row` of gpu_artifacts.py. Exits 1 where rows differ, nothing
was reused, or pages are left.
"""

import argparse
import sys
from pathlib import Path

import torch
from gpu_model import Model, need_artifact, need_cuda

import moa

CONVERSATIONS, TURNS, GENERATED = 4, 5, 40
SYSTEM = 700  # Tokens that all begin with.
TOKENS = 500
#: Largest difference of a row, relative to its norm: three layers of bf16.
TOLERANCE = 2e-2


class Toy:
    """Layers over token ids, each row made by itself."""

    def __init__(self, model):
        self.model = model
        generator = torch.Generator().manual_seed(7)
        table = torch.randn(TOKENS, model.q_heads, model.dim, generator=generator)
        self.table = table.to(torch.bfloat16).to(model.device)

    def __call__(self, cache, sequence, ids):
        """Feeds the rows behind `ids` of what the sequence has seen; their outputs."""
        model = self.model
        hidden = self.table[torch.tensor(ids[sequence.seen(0) :], device=model.device)]
        for layer in range(model.layers):
            q = (hidden - 0.5 * hidden.roll(1, -1)).contiguous()
            k = (hidden + hidden.roll(3, -1))[:, : model.kv_heads].contiguous()
            v = (hidden.roll(5, -1) - hidden.roll(2, -1))[:, -model.kv_heads :].contiguous()
            out = torch.full_like(q, float("nan"))
            model.attend(cache, layer, [(sequence, q, k, v, out)])
            hidden = 0.5 * hidden + out
        return hidden

    def next_token(self, row):
        return int(row[0, :8].float().abs().sum() * 1000) % TOKENS


def tokens(seed, count):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, TOKENS, (count,), generator=generator).tolist()


def converse(model):
    """Runs all conversations. Returns their tokens, of each turn the conversation,
    the first row and the rows, and the cache's counters."""
    toy, cache = Toy(model), moa.runtime.Cache(model.module, max_bytes=64 << 20)
    cache.set_prefix_reuse(32 << 20)
    made = [tokens(1, SYSTEM) for _ in range(CONVERSATIONS)]
    turns = []
    for turn in range(TURNS):
        for c, ids in enumerate(made):
            ids += tokens(10 * turn + c + 2, 20 + 31 * c)
            sequence = moa.runtime.Sequence(cache, 1)
            reused, common = sequence.reuse(ids)
            rows = []
            # A call that ends with what others have makes it theirs to reuse.
            for end in (common, len(ids)):
                if end > sequence.seen(0):
                    rows.append(toy(cache, sequence, ids[:end]))
            for _ in range(GENERATED):
                ids.append(toy.next_token(rows[-1][-1]))
                sequence.add_tokens(ids[-1:])
                rows.append(toy(cache, sequence, ids))
            turns.append((c, reused, torch.cat(rows)))
    counters = cache.counters
    del sequence
    if cache.stats["pages_used"]:
        raise SystemExit(f"error: expected no page in use, found {cache.stats['pages_used']}")
    return made, turns, counters


def from_scratch(model, ids):
    """Rows of all tokens, by prefill."""
    cache = moa.runtime.Cache(model.module, max_bytes=64 << 20)
    return Toy(model)(cache, moa.runtime.Sequence(cache, 1), ids)


def check(model):
    """Prints what was compared; returns the faults found."""
    texts, turns, counters = converse(model)
    again = converse(model)
    faults = []
    if again[0] != texts or not all(
        torch.equal(a[2], b[2]) for a, b in zip(turns, again[1], strict=True)
    ):
        faults.append("the same conversations gave other bits")
    whole = [from_scratch(model, ids).double() for ids in texts]
    worst = 0.0
    for c, reused, rows in turns:
        want = whole[c][reused : reused + len(rows)]
        error = (rows.double() - want).flatten(1).norm(dim=1) / want.flatten(1).norm(dim=1)
        worst = max(worst, float(error.max()) if not rows.isnan().any() else float("inf"))
    if not worst <= TOLERANCE:
        faults.append(f"rows differ from scratch by {worst:.1e}, expected {TOLERANCE} at most")
    hits = counters["prefix_tokens_reused"] / counters["prefix_tokens_asked"]
    if hits < 0.5:
        faults.append(f"{hits:.2f} of the prompts' tokens were reused, expected half at least")
    print(
        f"{len(turns)} turns of {CONVERSATIONS} conversations: {hits:.2f} of"
        f" {counters['prefix_tokens_asked']} prompt tokens reused,"
        f" {counters['prefix_bytes_saved'] / 2**20:.1f} MiB of pages saved; run twice: equal"
        f" bits; rows from scratch: {worst:.1e} apart"
        if not faults else "\n".join(f"error: {fault}" for fault in faults)
    )  # fmt: skip
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("build/bench/artifacts"))
    args = parser.parse_args()
    need_cuda()
    with torch.no_grad():
        return 1 if check(Model(need_artifact(args.artifacts, "replay_row"))) else 0


if __name__ == "__main__":
    sys.exit(main())
