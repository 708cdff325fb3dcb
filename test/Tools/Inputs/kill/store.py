"""Stores a sequence in a file, the same bytes again and again.

    store.py ARTIFACT FILE [--times N] [--check]

ARTIFACT is in f32, of one layer. With --check it restores the sequence from
FILE instead, and stores it in memory: the same bytes, or an error.
"""

import argparse
from pathlib import Path

import numpy as np
from moa.runtime import Cache, Context, Module, Sequence, attend

TOKENS = 4096


def make(module: Module, cache: Cache) -> Sequence:
    """A sequence whose keys and values are the same in every run."""
    facts = module.info
    random = np.random.default_rng(1)

    def rows(heads: int) -> np.ndarray:
        return random.standard_normal((TOKENS, heads, facts["head_dim"]), dtype=np.float32)

    sequence = Sequence(cache, TOKENS)
    q = rows(facts["q_heads"])
    entry = (sequence, q, rows(facts["kv_heads"]), rows(facts["kv_heads"]), np.empty_like(q))
    attend(cache, 0, [entry])
    return sequence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("file", type=Path)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    module = Module(Context(1), args.artifact)
    cache = Cache(module)
    if args.check:
        stored = Sequence.restore(cache, str(args.file)).snapshot()
        assert stored == args.file.read_bytes(), "restored and stored, the bytes differ"
        return
    sequence = make(module, cache)
    for _ in range(args.times):
        sequence.snapshot(str(args.file))


if __name__ == "__main__":
    main()
