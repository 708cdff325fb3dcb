"""A captured graph, replayed step after step, against calls made eagerly.

Two caches take the same sequences through the same steps. In one the layers'
calls are captured once and replayed; in the other they are made anew each time.
Lengths are ragged and grow over pages and out of windows; sequences join, leave,
rest, take chunks by `attend`, and raise their length in between; some steps are
given up. Outputs must be equal bit for bit, rows behind the batch untouched, and
rows of some steps are checked against float64.

    python test/bench/gpu_replay.py [--device cuda] [--artifacts DIR]

uses the artifacts `replay`, `replay_row`, `replay_window`, `replay_cap`, `kv8_mixed` and
`kv8_mixed_row` of gpu_artifacts.py. On the CPU, where calls are not captured, the
same steps run as calls.
"""

import argparse
import random
import sys
from pathlib import Path

import torch
from gpu_artifacts import MIXED
from gpu_kept import as_seen
from gpu_model import TOLERANCE, Model, need_artifact, need_cuda

import moa

#: Longest sequence; the artifacts' own limit is higher.
MOST = 1500
#: Artifacts, and what their KV heads keep.
FORMATS = {
    "replay": None, "replay_row": None, "replay_window": None, "replay_cap": None,
    "kv8_mixed": MIXED, "kv8_mixed_row": MIXED,
}  # fmt: skip


class Member:
    """One sequence in both caches, and all it was given, for float64."""

    def __init__(self, side, length):
        self.length, self.seen = length, 0
        self.own = [moa.runtime.Sequence(cache, length) for cache in side.caches]
        self.keys = [[] for _ in range(side.model.layers)]
        self.values = [[] for _ in range(side.model.layers)]

    def append(self, layer, k, v):
        self.keys[layer].append(k)
        self.values[layer].append(v)

    def resident(self, model, layer):
        return [self.own[0].first_resident(layer, head) for head in range(model.kv_heads)]


class Replay:
    """The steps of a batch, by replay and by eager calls."""

    def __init__(self, model, sequences, tokens, seed, formats=None, max_bytes=64 << 20):
        self.model, self.sequences, self.tokens = model, sequences, tokens
        self.formats = formats
        self.random = random.Random(seed)
        self.generator = torch.Generator(model.device).manual_seed(seed)
        self.caches = [moa.runtime.Cache(model.module, max_bytes=max_bytes) for _ in range(2)]
        self.batches = [
            moa.runtime.Batch(cache, sequences, max_tokens=tokens, max_length=MOST)
            for cache in self.caches
        ]
        shape = lambda heads: (model.layers, sequences, tokens, heads, model.dim)
        make = lambda heads: torch.zeros(
            *shape(heads), device=model.device, dtype=torch.bfloat16
        )  # fmt: skip
        self.q, self.k, self.v = make(model.q_heads), make(model.kv_heads), make(model.kv_heads)
        self.outs = [make(model.q_heads) for _ in range(2)]
        self.members = []
        self.replay = None
        self.checked = self.compared = 0
        self.worst = 0.0

    def randn(self, *shape):
        return self.model.randn(*shape, generator=self.generator)

    def join(self):
        """A new sequence with a prompt."""
        prompt = self.random.choice((1, 2, 63, 64, 65, 127, 128, 130, 200, 333))
        length = prompt + self.random.choice((40, 150, 400))
        member = Member(self, length)
        self.members.append(member)
        self.chunk(member, prompt)

    def chunk(self, member, tokens):
        """Rows by `attend` in both caches; outputs must agree."""
        model = self.model
        for layer in range(model.layers):
            q = self.randn(tokens, model.q_heads, model.dim)
            k, v = (self.randn(tokens, model.kv_heads, model.dim) for _ in range(2))
            outs = [torch.empty_like(q) for _ in range(2)]
            for cache, own, out in zip(self.caches, member.own, outs):
                model.attend(cache, layer, [(own, q, k, v, out)])
            if not torch.equal(*outs):
                raise AssertionError(f"layer {layer}: two caches differ in a chunk of {tokens}")
            member.append(layer, k, v)
        member.seen += tokens

    def layers(self, side):
        model = self.model
        for layer in range(model.layers):
            self.batches[side].attend(
                layer, self.q[layer], self.k[layer], self.v[layer], self.outs[side][layer],
                stream=model.stream(),
            )  # fmt: skip

    def begin(self, chosen):
        for side, batch in enumerate(self.batches):
            batch.begin([m.own[side] for m in chosen], self.tokens, stream=self.model.stream())

    def step(self, chosen, check, give_up=False):
        """One step of the chosen members."""
        for tensor in (self.q, self.k, self.v):
            tensor.copy_(self.randn(*tensor.shape))
        for out in self.outs:
            out.fill_(float("nan"))
        bounds = [
            [member.resident(self.model, layer) for layer in range(self.model.layers)]
            for member in chosen if check
        ]  # fmt: skip
        self.begin(chosen)
        if self.replay is None:
            self.replay = self.model.captured(lambda: self.layers(0))
        self.replay()
        self.layers(1)
        for batch in self.batches:
            batch.cancel() if give_up else batch.end()
        self.model.synchronize()
        self.compare(chosen)
        if check:
            self.check(chosen, bounds)
        if not give_up:
            for i, member in enumerate(chosen):
                for layer in range(self.model.layers):
                    member.append(layer, self.k[layer, i].clone(), self.v[layer, i].clone())
                member.seen += self.tokens

    def compare(self, chosen):
        for layer in range(self.model.layers):
            mine, other = (out[layer, : len(chosen)] for out in self.outs)
            if mine.isnan().any():
                raise AssertionError(f"layer {layer}: rows of the step were not written")
            if not torch.equal(mine, other):
                places = (mine != other).flatten(1).any(1).nonzero().flatten().tolist()
                raise AssertionError(
                    f"layer {layer}: replay and eager calls differ in sequences {places} of"
                    f" {[m.seen for m in chosen]} tokens, by up to"
                    f" {float((mine.float() - other.float()).abs().max()):.3g}"
                )
            if not self.outs[0][layer, len(chosen) :].isnan().all():
                raise AssertionError(f"layer {layer}: rows behind the batch were written")
        self.compared += 1

    def check(self, chosen, bounds):
        for i, member in enumerate(chosen):
            for layer in range(self.model.layers):
                k = torch.cat([*member.keys[layer], self.k[layer, i]])
                v = torch.cat([*member.values[layer], self.v[layer, i]])
                rows = range(member.seen, member.seen + self.tokens)
                if self.formats:
                    k, v = as_seen(
                        self.model, layer, self.formats, member.length, k, v,
                        rows.start, rows.stop,
                    )  # fmt: skip
                error = self.model.error(
                    layer, member.length, self.q[layer, i], k, v, self.outs[0][layer, i], rows,
                    first=member.seen, resident=bounds[i][layer],
                )  # fmt: skip
                self.worst = max(self.worst, error)
                if error > TOLERANCE:
                    raise AssertionError(
                        f"layer {layer}: sequence {i} of {member.seen} tokens is {error:.3g}"
                        f" off float64, expected at most {TOLERANCE}"
                    )
                self.checked += len(rows)

    def run(self, steps):
        """`steps` steps; every 20th is checked against float64."""
        choose = self.random
        while len(self.members) < self.sequences:
            self.join()
        for step in range(steps):
            # A step beyond the most, or by chance, ends a sequence; another joins.
            for member in list(self.members):
                if member.seen + 100 > MOST or choose.random() < 0.01:
                    self.members.remove(member)
                    member.own.clear()
                    self.join()
            if step % 29 == 28:
                self.chunk(choose.choice(self.members), choose.choice((1, 5, 70)))
            if step % 31 == 30:
                member = choose.choice(self.members)
                member.length += 99
                for own in member.own:
                    own.set_length(member.length)
            # All in the first, which is captured; then some, in any order.
            chosen = [m for m in self.members if step == 0 or choose.random() < 0.85]
            choose.shuffle(chosen)
            if chosen:
                self.step(chosen, check=step % 20 == 0, give_up=step % 23 == 22)
        return self


def check(path, device, steps=200, sequences=5, tokens=1, seed=0):
    """Runs the steps on one artifact; raises AssertionError with what differs."""
    model = Model(path, device)
    with torch.no_grad():
        return Replay(model, sequences, tokens, seed, FORMATS[path.stem]).run(steps)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--artifacts", type=Path, default=Path("build/bench/artifacts"))
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    if args.device == "cuda":
        need_cuda()
    for name in FORMATS:
        path = need_artifact(args.artifacts, name)
        for tokens in (1, 4):
            done = check(path, args.device, args.steps, tokens=tokens)
            if args.device == "cuda" and not done.batches[0].replays:
                print(
                    f"error: {name} has no decode kernel for this device: nothing was replayed"
                )
                return 1
            print(
                f"{name}: {done.compared} steps of {tokens} tokens: replay and eager calls are"
                f" equal; {done.checked} rows against float64: error {done.worst:.1e}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
