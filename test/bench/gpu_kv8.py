"""8-bit KV beside bf16, on the same layer and in the same process.

First the check: small layers whose KV heads keep e4m3, bf16 and int8 take prompts
in chunks, single rows and steps of a batch, some of them captured; every row is
compared with float64 over the keys and values that its codes stand for. Then the
times: batches decode layer 16 of Llama-3-8B's published plan (32 query heads, 8 KV
heads, head size 128), all KV heads keeping bf16, e4m3 or int8, with the methods of
gpu_decode.py; `of_bf16` is a format's time over that of bf16.

    python gpu_kv8.py --artifacts FOLDER --output FOLDER

`--device cpu --only check` checks the same on the CPU, with artifacts for it.
"""

import argparse
import gc
import sys
from pathlib import Path

import gpu_decode
import record
import torch
from gpu_artifacts import MIXED
from gpu_kept import as_seen
from gpu_model import TOLERANCE, Model, need_artifact, need_cuda

import moa

#: Of the wide decode kernel: rows of all heads of a group.
MOST_COLUMNS = 16
CASES = "16x32768,64x8192,16x8192,1x65536,1x8192"


class Check:
    """A sequence beside its tokens; errors of the rows of its calls."""

    def __init__(self, model, formats, cache, length, seed):
        self.model, self.formats, self.length = model, formats, length
        self.sequence = moa.runtime.Sequence(cache, length)
        self.cache, self.seen = cache, 0
        generator = torch.Generator(model.device).manual_seed(seed)
        make = lambda heads: model.randn(
            model.layers, length, heads, model.dim, generator=generator
        )
        self.q, self.k, self.v = make(model.q_heads), make(model.kv_heads), make(model.kv_heads)
        self.out = torch.full_like(self.q, float("nan"))

    def resident(self, layer):
        return [self.sequence.first_resident(layer, h) for h in range(self.model.kv_heads)]

    def error(self, past, total, residents):
        worst = 0.0
        # Rows that do not fit in the columns of decode go by prefill.
        rounded = (
            self.model.device == "cuda" and (total - past) * self.model.group > MOST_COLUMNS
        )
        self.model.synchronize()
        for layer in range(self.model.layers):
            k, v = as_seen(
                self.model, layer, self.formats, self.length,
                self.k[layer, :total], self.v[layer, :total], past, total, rounded,
            )  # fmt: skip
            rows = sorted({past, (past + total) // 2, total - 1})
            worst = max(worst, self.model.error(
                layer, self.length, self.q[layer], k, v, self.out[layer], rows,
                resident=residents[layer],
            ))  # fmt: skip
        return worst

    def call(self, tokens):
        past, total = self.seen, self.seen + tokens
        residents = [self.resident(layer) for layer in range(self.model.layers)]
        for layer in range(self.model.layers):
            rows = (t[layer, past:total] for t in (self.q, self.k, self.v, self.out))
            self.model.attend(self.cache, layer, [(self.sequence, *rows)])
        self.seen = total
        return self.error(past, total, residents)


def steps(model, checks, cache, count, tokens):
    """Steps of a batch of the checks' sequences, captured where they can be."""
    batch = moa.runtime.Batch(
        cache, len(checks), max_tokens=tokens, max_length=checks[0].length
    )
    rows = {
        name: torch.empty_like(getattr(checks[0], name)[:, :tokens])
        .unsqueeze(1)
        .repeat(1, len(checks), 1, 1, 1)
        for name in ("q", "k", "v", "out")
    }

    def layers():
        for layer in range(model.layers):
            batch.attend(
                layer, *(rows[n][layer] for n in ("q", "k", "v", "out")), stream=model.stream()
            )

    worst, replay = 0.0, None
    for _ in range(count):
        for i, check in enumerate(checks):
            for name in ("q", "k", "v"):
                rows[name][:, i] = getattr(check, name)[:, check.seen : check.seen + tokens]
        residents = [
            [check.resident(layer) for layer in range(model.layers)] for check in checks
        ]
        batch.begin([check.sequence for check in checks], tokens, stream=model.stream())
        if replay is None and batch.replays:
            replay = model.captured(layers)
        (replay or layers)()
        batch.end()
        for i, check in enumerate(checks):
            past, check.seen = check.seen, check.seen + tokens
            check.out[:, past : check.seen] = rows["out"][:, i]
            worst = max(worst, check.error(past, check.seen, residents[i]))
    return worst


def check(model, formats):
    """The largest error of each way to feed rows: a dict by its name."""
    length = 1500
    cache = moa.runtime.Cache(model.module, max_bytes=256 << 20)
    errors = {}
    many = [Check(model, formats, cache, length, seed) for seed in range(3)]
    for i, one in enumerate(many):
        for chunk in ((300, 1, 130, 64, 1), (64, 63, 2, 200), (1, 640, 65))[i]:
            name = "rows" if chunk == 1 else "chunks"
            errors[name] = max(errors.get(name, 0.0), one.call(chunk))
    errors["steps"] = steps(model, many, cache, 70, 1)
    # Eight columns have one token of three or four heads, or two; the wide kernel more.
    errors["steps of 2"] = steps(model, many, cache, 40, 2)
    errors["chunks"] = max(errors["chunks"], many[0].call(200))
    return errors


class Decode(gpu_decode.Decode):
    """A batch whose pages are checked as they are kept."""

    kept_as = 16

    def seen(self, layer, k, v):
        model, last = self.model, self.length - 1
        formats = [[self.kept_as] * model.kv_heads] * model.layers
        return as_seen(model, layer, formats, self.length, k, v, last, self.length)


def bench(folder, timer, batch, length):
    """Yields records of a case: those of bf16, then of each format."""
    times = {}
    for kept_as in (16, "e4m3", "int8"):
        model = Model(need_artifact(folder, f"kv8_{kept_as}"))
        Decode.kept_as = kept_as
        case = model.case(
            kind="decode", batch=batch, length=length, plan="moa", kv=str(kept_as)
        )  # fmt: skip
        for found in gpu_decode.ours(model, timer, case, batch, length, Decode):
            if found["kind"] == "decode" and kept_as == 16:
                times[found["method"]] = found["us"]
            elif found["kind"] == "decode":
                found["of_bf16"] = found["us"] / times[found["method"]]
                # Codes have half the bytes.
                found["needed_mb"] /= 2
                found["needed_tb_per_s"] /= 2
            yield found
        del model
        gc.collect()
        torch.cuda.empty_cache()


def describe(found):
    text = f"{found['kv']:5}{gpu_decode.describe(found)}"
    return text + (f", {found['of_bf16']:.3f} of bf16" if "of_bf16" in found else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("build/bench/artifacts"))
    parser.add_argument("--output", type=Path, default=Path("build/bench/kv8-gpu.json"))
    parser.add_argument("--commit", help="that the artifacts and the package are of")
    parser.add_argument("--cases", default=CASES, help="batch x length, separated by commas")
    parser.add_argument("--only", choices=("check", "times"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    args = parser.parse_args()
    if args.device == "cuda":
        need_cuda()
    elif args.only != "check":
        parser.error("--device cpu: expected --only check; times are those of a GPU")
    torch.manual_seed(0)
    failed = False
    for name in () if args.only == "times" else ("kv8_mixed", "kv8_mixed_row"):
        model = Model(need_artifact(args.artifacts, name), args.device)
        for rows, error in check(model, MIXED).items():
            print(f"{name} on {model.chip}: {rows}, error {error:.1e}", flush=True)
            failed |= not error <= TOLERANCE
    if failed or args.only == "check":
        return int(failed)
    from gpu_timing import Timer

    timer, file = Timer(), None
    for case in args.cases.split(","):
        for found in bench(args.artifacts, timer, *map(int, case.split("x"))):
            if file is None:
                file = record.new_file(
                    "kv8-gpu", torch.cuda.get_device_name(), commit=args.commit,
                    packages=("moa", "torch", "triton"),
                    setting={"shape": "llama-3-8b", "plan": "llama-3-8b-moa.json", "layer": 16},
                )  # fmt: skip
            file["records"].append(found)
            print(describe(found), flush=True)
            failed |= not found.get("max_rel_err", 0) <= TOLERANCE
        record.write(file, args.output)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
