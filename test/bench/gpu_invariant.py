"""Rows whose bits do not depend on their neighbours (`decode_parts`), and the price.

64 sequences of lengths drawn once decode in a cache with `decode_parts` of K: each
row alone, all together, in other places and beside others, in steps of a batch and
in calls beside chunks of prompts, with 1 and 4 rows a sequence. Rows of one sequence
must be equal bit for bit; with K = 0 those that differ are counted. Prompts alone
and in a call of all are compared as well. Rows are checked against float64. Then
the same steps are timed for every K in one run, beside batches of equal lengths.

    python test/bench/gpu_invariant.py --artifacts DIR --output FILE [--only check]

uses the artifacts `layers`, `kv8_16` and, for the check, `kv8_e4m3` of
gpu_artifacts.py.
"""

import argparse
import random
import statistics
import sys
from pathlib import Path

import record
import torch
from gpu_model import TOLERANCE, Model, need_artifact, need_cuda
from gpu_timing import Timer

import moa

BATCH, SHORTEST, LONGEST = 64, 256, 16384
#: K of the check, 0 for the count of what differs, and of the times.
CHECKED, TIMED = (0, 1, 4, 16), (0, 1, 2, 4, 8, 16, 32, 64)
#: Artifact of each case: enough layers that L2 holds none.
CASES = {
    "1x8192": "layers", "1x65536": "layers", "16x8192": "kv8_16", "64x8192": "kv8_16",
    "16x32768": "kv8_16", "ragged": "kv8_16",
}  # fmt: skip
#: Room behind each sequence, and most rows of one in a step.
LEFT, ROWS = 64, 4


def drawn(count, longest):
    """Lengths of ragged sequences."""
    draw = random.Random(0)
    ratio = longest / min(SHORTEST, longest)
    return [int(longest / ratio ** draw.random()) for _ in range(count)]


class Sequences:
    """Sequences of a cache with K parts, their next rows, and what they have seen."""

    def __init__(self, model, lengths, parts, same=False):
        """same: all have the keys and values of one."""
        self.model, self.lengths = model, lengths
        held = sum(model.module.kv_bytes(n + LEFT, n + LEFT)[0] for n in lengths)
        dense = model.module.kv_bytes(max(lengths), max(lengths))[1]
        # Forks copy their newest pages, and a prompt comes as a whole.
        room = int(1.04 * held) + dense + (256 << 20)
        self.cache = moa.runtime.Cache(model.module, max_bytes=room, decode_parts=parts)
        self.sequences, self.seen = [], []
        for i, n in enumerate(lengths):
            sequence = moa.runtime.Sequence(self.cache, n + LEFT)
            k, v = self.prompt(0 if same else i, max(lengths) if same else n)
            for layer in range(model.layers):
                moa.runtime.append(
                    self.cache, layer, [(sequence, k[:n], v[:n])], stream=model.stream()
                )
            self.sequences.append(sequence)
        generator = torch.Generator(model.device).manual_seed(77)
        self.q, self.k, self.v = (
            model.randn(model.layers, len(lengths), ROWS, heads, model.dim, generator=generator)
            for heads in (model.q_heads, model.kv_heads, model.kv_heads)
        )
        self.batches = {}
        model.synchronize()

    def prompt(self, i, n):
        """Keys and values of sequence i in all layers."""
        generator = torch.Generator(self.model.device).manual_seed(i)
        return tuple(
            self.model.randn(n, self.model.kv_heads, self.model.dim, generator=generator)
            for _ in range(2)
        )

    def batch(self, room, rows=1):
        """A batch for `room` sequences, made once."""
        if (room, rows) not in self.batches:
            longest = max(self.lengths) + LEFT
            self.batches[room, rows] = moa.runtime.Batch(
                self.cache, room, max_tokens=rows, max_length=longest
            )
        return self.batches[room, rows]

    def begin(self, members, room, rows=1):
        """Begins a step; what attends in all layers, and its outputs [layer, member]."""
        model, batch = self.model, self.batch(room, rows)
        q, k, v = (t[:, members, :rows].contiguous() for t in (self.q, self.k, self.v))
        out = torch.full_like(q, float("nan"))
        batch.begin([self.sequences[i] for i in members], rows, stream=model.stream())

        def attend():
            for layer in range(model.layers):
                batch.attend(layer, q[layer], k[layer], v[layer], out[layer],
                             stream=model.stream())  # fmt: skip

        return attend, out

    def step(self, members, room, rows=1):
        """Outputs of a step, of which nothing stays, by sequence."""
        attend, out = self.begin(members, room, rows)
        attend()
        self.batch(room, rows).cancel()
        self.model.synchronize()
        return {i: out[:, at] for at, i in enumerate(members)}

    def call(self, rows, chunk=0):
        """Outputs of a call of forks: of each sequence so many rows, by sequence.
        chunk: beside so many rows of another sequence."""
        model = self.model
        forks = {i: self.sequences[i].fork() for i in rows}
        other = moa.runtime.Sequence(self.cache, max(chunk, 1))
        beside = [
            model.randn(chunk, h, model.dim) for h in (model.q_heads, *[model.kv_heads] * 2)
        ]
        outs = {i: torch.full_like(self.q[:, i, :n], float("nan")) for i, n in rows.items()}
        for layer in range(model.layers):
            entries = [
                (forks[i], *(t[layer, i, :n] for t in (self.q, self.k, self.v)), outs[i][layer])
                for i, n in rows.items()
            ]
            if chunk:
                entries.insert(1, (other, *beside, torch.empty_like(beside[0])))
            model.attend(self.cache, layer, entries)
        model.synchronize()
        return outs

    def error(self, found, members):
        """Largest error of the first layer's first rows against float64."""
        worst = 0.0
        for i in members:
            n = self.lengths[i]
            k, v = (
                torch.cat([old, new[0, i, :1]])
                for old, new in zip(self.prompt(i, n), (self.k, self.v))
            )
            worst = max(worst, self.model.error(
                0, n + LEFT, self.q[0, i, :1], k, v, found[i][0, :1], [n], first=n,
            ))  # fmt: skip
        return worst


def differing(found, expected):
    """Sequences whose rows differ in a bit, or are not numbers."""
    return sum(
        bool(rows.isnan().any()) or not torch.equal(rows, expected[i])
        for i, rows in found.items()
    )


def check_decode(model, lengths, parts, kv8):
    """How often rows of a sequence differ from those of all together, by what was
    tried, and the error of rows against float64 (None under 8-bit KV)."""
    sequences = Sequences(model, lengths, parts)
    count = len(lengths)
    everyone = list(range(count))
    shuffled = random.Random(1).sample(everyone, count)
    some = random.Random(2).sample(everyone, count // 2)
    together = sequences.step(everyone, count)
    found = {"alone": 0, "alone, 4 rows": 0, "alone, in a call": 0}
    several = sequences.step(everyone, count, ROWS)
    for i in everyone:
        found["alone"] += differing(sequences.step([i], 1), together)
        found["alone, 4 rows"] += differing(sequences.step([i], 1, ROWS), several)
        found["alone, in a call"] += differing(sequences.call({i: 1}), together)
    found["in other places"] = differing(sequences.step(shuffled, count), together)
    found["beside others"] = differing(sequences.step(some, count), together)
    found["in a call"] = differing(sequences.call(dict.fromkeys(everyone, 1)), together)
    mixed = {i: ROWS if at % 3 == 1 else 1 for at, i in enumerate(some)}
    outs = sequences.call(mixed, chunk=300)
    expected = {i: (several if n > 1 else together)[i] for i, n in mixed.items()}
    found["beside a chunk and drafts"] = differing(outs, expected)
    ends = {0, *(lengths.index(of(lengths)) for of in (max, min))}
    return found, None if kv8 else sequences.error(together, ends)


def check_prompts(model, lengths):
    """Prompts and chunks behind them whose rows differ alone and in a call of all."""
    cache = moa.runtime.Cache(model.module, max_bytes=8 << 30 if model.device == "cuda" else 0)

    def fed(members, cut):
        sequences = [moa.runtime.Sequence(cache, lengths[i]) for i in members]
        outs = {i: [] for i in members}
        for begin, end in ((0, cut), (cut, 1)):
            entries = []
            for i, sequence in zip(members, sequences):
                n = lengths[i]
                generator = torch.Generator(model.device).manual_seed(i)
                rows = slice(int(begin * n), int(end * n))
                q, k, v = (
                    model.randn(n, heads, model.dim, generator=generator)[rows]
                    for heads in (model.q_heads, model.kv_heads, model.kv_heads)
                )
                outs[i].append(torch.full_like(q, float("nan")))
                entries.append((sequence, q, k, v, outs[i][-1]))
            model.attend(cache, 0, entries)
            model.synchronize()
        return {i: torch.cat(parts) for i, parts in outs.items()}

    everyone = list(range(len(lengths)))
    together = fed(everyone, 0.7)
    return sum(differing(fed([i], 0.7), together) for i in everyone)


def check(model, lengths, parts_list, kv8=False):
    """Prints what was compared; how many rows alone differ for each K, and the worst
    error. Raises AssertionError where rows of a cache with parts differ."""
    counts, worst = {}, 0.0
    for parts in parts_list:
        found, error = check_decode(model, lengths, parts, kv8)
        print(f"decode_parts {parts}: of {len(lengths)} sequences differ", found,
              "" if error is None else f"error {error:.1e}", flush=True)  # fmt: skip
        if parts and any(found.values()):
            raise AssertionError(f"decode_parts {parts}: rows depend on their neighbours")
        counts[parts], worst = found["alone"], max(worst, error or 0.0)
        if model.device == "cuda":
            torch.cuda.empty_cache()
    found = check_prompts(model, [min(n, 3000) for n in lengths[:20]])
    print(f"prompts in two chunks: {found} of {len(lengths[:20])} differ", flush=True)
    if found:
        raise AssertionError("prompts depend on their neighbours")
    return counts, worst


def times(model, timer, lengths, parts):
    """Microseconds a layer of a step in a graph of all layers, and of its preparation."""
    sequences = Sequences(model, lengths, parts, same=True)
    everyone, room = list(range(len(lengths))), len(lengths)
    attend, out = sequences.begin(everyone, room)
    us = timer.repeated(model.captured(attend), model.layers)
    if out.isnan().any():
        raise AssertionError(f"decode_parts {parts}: a row was not written")
    batch = sequences.batch(room)
    prepare = []
    for _ in range(7):
        batch.cancel()
        prepare.append(timer.between(
            lambda: batch.begin(sequences.sequences, stream=model.stream())
        ))  # fmt: skip
    batch.cancel()
    return us, statistics.median(prepare)


def timed(models, timer, cases, counts, worst):
    """Yields a record for each case and K."""
    for case, lengths in cases.items():
        model = models[CASES[case]]
        needed = sum(model.needed_bytes(0, n + 1) for n in lengths)
        for parts in TIMED:
            us, prepare = times(model, timer, lengths, parts)
            found = {
                **model.case(kind="decode", batch=len(lengths), length=max(lengths)),
                "plan": "moa", "who": "ours", "mask": "plan", "method": "graph", "case": case,
                "decode_parts": parts, "us": us, "prepare_us": prepare,
                "needed_mb": needed * 1e-6, "needed_tb_per_s": needed / us * 1e-6,
                "rotated_layers": model.layers,
            }  # fmt: skip
            if case == "ragged":
                found["max_rel_err"] = worst
                if parts in counts:
                    found["differing_items"] = counts[parts]
            print(f"{case} decode_parts {parts}: {us:.1f} us a layer,"
                  f" {found['needed_tb_per_s']:.2f} TB/s, prepare {prepare:.1f} us",
                  flush=True)  # fmt: skip
            yield found
            torch.cuda.empty_cache()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("build/bench/artifacts"))
    parser.add_argument("--output", type=Path, default=Path("build/bench/invariant-gpu.json"))
    parser.add_argument("--commit", help="that the artifacts and the package are of")
    parser.add_argument("--only", choices=["check"], help="time nothing")
    args = parser.parse_args()
    need_cuda()
    torch.manual_seed(0)
    ragged = drawn(BATCH, LONGEST)
    with torch.no_grad():
        models = {"kv8_16": Model(need_artifact(args.artifacts, "kv8_16"))}
        counts, worst = check(models["kv8_16"], ragged, CHECKED)
        check(Model(need_artifact(args.artifacts, "kv8_e4m3")), ragged[:24], (0, 4), kv8=True)
        if args.only:
            return 0 if worst <= TOLERANCE else 1
        models["layers"] = Model(need_artifact(args.artifacts, "layers"))
        cases = {}
        for case in CASES:
            batch, _, length = case.partition("x")
            cases[case] = [int(length) - 1] * int(batch) if length else ragged
        file = record.new_file(
            "invariant-gpu", torch.cuda.get_device_name(), chip=models["layers"].chip,
            commit=args.commit,
            setting={"shape": "llama-3-8b", "plan": "llama-3-8b-moa.json", "layer": 16},
        )  # fmt: skip
        for found in timed(models, Timer(), cases, counts, worst):
            file["records"].append(found)
            record.write(file, args.output)
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
