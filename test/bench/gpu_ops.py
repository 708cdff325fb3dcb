"""Torch operators, graphs of whole models and torch.compile, checked on a device.

A small random Llama under a plan whose heads all differ. Operators against float64
and under torch.library.opcheck; moa::decode captured by torch.cuda.graph; generate()
with its steps replayed, with torch.compile and without, against each other and
against eager attention under an explicit mask; models that cannot be captured. Two
computations in bf16 agree up to the first place where the best tokens are nearly
tied. Prints a line a check and exits 1 if one fails.

    python test/bench/gpu_ops.py --artifacts DIR [--device cuda]

uses the artifacts `ops` and `ops_window` of gpu_artifacts.py. On the CPU nothing is
captured; the rest is the same.
"""

import argparse
import logging
import sys
import time
from pathlib import Path

import gpu_artifacts
import torch
import transformers
from gpu_model import TOLERANCE, Model, need_artifact, need_cuda
from gpu_smollm2 import reference_class

import moa
import moa.hf
import moa.ops
from moa.hf import graph

#: Differences of logits that rounding makes.
NEAR = 0.3
GREEDY = dict(do_sample=False, pad_token_id=0, eos_token_id=None)
#: N of sequences, and most bytes of their pages.
N, BYTES = 600, 64 << 20
#: Of each artifact the model that it is for, and the windows of the model's own.
MODELS = {
    "ops": (transformers.LlamaConfig, {}),
    "ops_window": (
        transformers.Gemma3TextConfig,
        dict(
            layer_types=["sliding_attention", "full_attention"],
            sliding_window=100,
            query_pre_attn_scalar=64,
            tie_word_embeddings=False,
        ),
    ),
}


def fresh(device, name="ops"):
    torch.manual_seed(0)
    kind, more = MODELS[name]
    config = kind(
        vocab_size=199, hidden_size=256, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=64,
        max_position_embeddings=2048, initializer_range=0.1, **more,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    return model.to(device, torch.bfloat16).eval()


def prompt(rows, tokens, device, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 199, (rows, tokens), generator=generator).to(device)


class Fresh:
    """A target whose calls each have new sequences, so that they can be repeated."""

    def __init__(self, checks):
        self.checks, self.handle = checks, moa.ops.handle_of(self)

    def prefill(self, layer, q, k, v, scale, mask):
        return self.checks.rows(len(q)).prefill(layer, q, k, v, scale, mask)

    def append(self, layer, k, v):
        self.checks.rows(len(k)).append(layer, k, v)


class Checks:
    """Each method is a check; it returns what it found, or raises AssertionError."""

    def __init__(self, artifacts, device):
        self.artifacts, self.device = artifacts, device
        self.layer = Model(need_artifact(artifacts, "ops"), device)
        self.model = self.load("ops")
        self.captures = device == "cuda"

    def load(self, name):
        artifact = moa.Artifact(need_artifact(self.artifacts, name), {})
        return moa.hf.load(fresh(self.device, name), artifact=artifact, threads=2)

    def tensors(self, rows, tokens, seed=0):
        generator = torch.Generator(self.device).manual_seed(seed)
        return [
            self.layer.randn(rows, tokens, heads, 64, generator=generator)
            for heads in (4, 2, 2)
        ]

    def rows(self, count):
        cache = moa.runtime.Cache(self.layer.module, max_bytes=BYTES)
        return moa.ops.Rows(cache, [moa.runtime.Sequence(cache, N) for _ in range(count)])

    def cache(self):
        return moa.hf.Cache(self.model, max_bytes=BYTES)

    def values(self):
        """Operators against float64: chunks, rows appended alone, single rows."""
        qkv, rows = self.tensors(2, N), self.rows(2)
        part = lambda begin, end: [tensor[:, begin:end] for tensor in qkv]
        out = torch.full_like(qkv[0], float("nan"))
        out[:, :300] = moa.ops.prefill(rows.handle, *part(0, 300), 0)
        moa.ops.append(rows.handle, *part(300, 345)[1:], 0)
        for row in range(345, 350):
            out[:, row : row + 1] = moa.ops.prefill(rows.handle, *part(row, row + 1), 0)
        out[:, 350:] = moa.ops.prefill(rows.handle, *part(350, N), 0)
        seen = [*range(0, 300, 23), *range(345, N, 19)]
        worst = max(
            self.layer.error(0, N, *(tensor[i] for tensor in qkv), out[i], seen)
            for i in range(2)
        )
        assert worst <= TOLERANCE, f"error {worst:.2g}, expected at most {TOLERANCE}"
        return f"error {worst:.1e}"

    def opcheck(self):
        check, operators = torch.library.opcheck, torch.ops.moa
        fresh, qkv = Fresh(self), self.tensors(2, 70)
        check(operators.prefill.default, (fresh.handle, *qkv, 0))
        check(operators.append.default, (fresh.handle, *qkv[1:], 0))
        rows = self.rows(2)
        for layer in range(2):
            moa.ops.prefill(rows.handle, *qkv, layer)
        batch = moa.ops.Batch(rows.cache, 2)
        batch.begin(rows.sequences, stream=self.layer.stream())
        check(operators.decode.default, (batch.handle, *self.tensors(2, 1, seed=1), 0))
        batch.cancel()
        return "prefill, append, decode"

    def captured_decode(self):
        """torch.cuda.graph over moa::decode, replayed, against calls made eagerly."""
        rows = [self.rows(3) for _ in range(2)]
        for own in rows:
            for layer in range(2):
                moa.ops.prefill(own.handle, *self.tensors(3, 130, seed=layer), layer)
        batches = [moa.ops.Batch(own.cache, 3) for own in rows]
        inputs = [self.tensors(3, 1) for _ in range(2)]
        replay, outs = None, {}

        def step(side):
            outs[side] = [
                moa.ops.decode(batches[side].handle, *inputs[layer], layer)
                for layer in range(2)
            ]

        for number in range(150):
            for layer in range(2):
                for own, new in zip(inputs[layer], self.tensors(3, 1, seed=9 + number)):
                    own.copy_(new + layer)
            for own, batch in zip(rows, batches):
                batch.begin(own.sequences, stream=self.layer.stream())
            if replay is None:
                replay = self.layer.captured(lambda: step(0))
            replay()
            step(1)
            for batch in batches:
                batch.end()
            for got, want in zip(outs[0], outs[1]):
                assert torch.equal(got, want), f"step {number} differs"
        return "150 steps equal bit for bit"

    def same(self, ours, theirs, logits, what):
        """Checks that tokens [B, new] are equal up to a near-tie of theirs."""
        places = []
        for row in range(len(ours)):
            differ = (ours[row] != theirs[row]).nonzero().flatten().tolist()
            if not differ:
                continue
            place, at = differ[0], logits[differ[0]][row].float()
            gap = float(at[theirs[row, place]] - at[ours[row, place]])
            places.append(place)
            assert gap <= NEAR, (
                f"{what}: row {row} differs at token {place} where the logits are {gap:.3g} "
                f"apart, expected at most {NEAR}"
            )
        return f"{what}: equal to a near-tie at {min(places)}" if places else f"{what}: equal"

    def generate(self, model, ids, new, **more):
        more = {"attention_mask": torch.ones_like(ids), **GREEDY, **more}
        with torch.no_grad():
            out = model.generate(
                ids, max_new_tokens=new, output_logits=True, return_dict_in_generate=True,
                **more,
            )  # fmt: skip
        return out.sequences[:, ids.shape[1] :], out.logits

    def decoding(self):
        return self.replayed("ops", self.model)

    def windows(self):
        return self.replayed("ops_window", self.load("ops_window"))

    def replayed(self, name, model):
        """generate() replayed and eager, and under the explicit mask."""
        said = []
        plan = gpu_artifacts.sources()[name][0]
        own = plan["span"].get("window")
        for rows, tokens in ((1, 330), (3, 150)):
            ids, new = prompt(rows, tokens, self.device), 80
            calls = []
            make = model.get_compiled_call
            model.get_compiled_call = lambda config: calls.append(make(config)) or calls[-1]
            ours, _ = self.generate(model, ids, new)
            model.get_compiled_call = make
            graphs = [call.decoder.graphs for call in calls]
            assert graphs == [1] * self.captures, f"{graphs} graphs, expected one"
            eager, logits = self.generate(model, ids, new, disable_compile=True)
            said.append(self.same(ours, eager, logits, "eager"))
            dense = fresh(self.device, name)
            reference_class()(plan, tokens + new, own).use(dense)
            # A cache that keeps every key, whatever windows the model has.
            keeps = transformers.DynamicCache()
            want, logits = self.generate(dense, ids, new, past_key_values=keeps)
            said.append(self.same(ours, want, logits, "masked"))
        return "; ".join(said)

    def padding_and_turns(self):
        """A left-padded batch and a second turn on its cache."""
        ids = prompt(2, 120, self.device)
        mask = torch.ones_like(ids)
        mask[1, :57] = 0
        found = []
        for disable in (False, True):
            cache = self.cache()
            args = dict(past_key_values=cache, disable_compile=disable)
            first, logits = self.generate(self.model, ids, 30, attention_mask=mask, **args)
            # The second turn goes on behind the same tokens on both sides.
            told = found[0][0] if found else first
            if not torch.equal(told, first):
                return self.same(told, first, logits, "first turn")
            longer = torch.cat([ids, told, prompt(2, 40, self.device, seed=5)], dim=1)
            wider = torch.cat([mask, torch.ones_like(longer[:, 120:])], dim=1)
            second, logits = self.generate(self.model, longer, 30, attention_mask=wider, **args)
            assert cache.get_seq_length() == longer.shape[1] + 29
            assert cache.kv_bytes <= cache.closed_form_bytes
            found.append((first, second))
        return self.same(found[0][1], second, logits, "second turn")

    def compiled(self):
        """torch.compile of the model, and of the steps that are captured."""
        torch._dynamo.reset()
        ids = prompt(2, 150, self.device)
        both = []
        for forward in (self.model, torch.compile(self.model, fullgraph=True)):
            cache, rows, feed = self.cache(), [], ids
            cache.expect([N] * 2)
            for step in range(10):
                with torch.no_grad():
                    got = forward(feed, past_key_values=cache, use_cache=True).logits[:, -1:]
                rows.append(got.float())
                feed = prompt(2, 1, self.device, seed=step)
            both.append(torch.cat(rows, dim=1))
        apart = float((both[0] - both[1]).abs().max())
        assert apart <= NEAR, f"logits are {apart:.3g} apart"
        config = transformers.CompileConfig(fullgraph=True)
        ours, _ = self.generate(self.model, ids, 40, compile_config=config)
        eager, logits = self.generate(self.model, ids, 40, disable_compile=True)
        return f"logits {apart:.1e} apart; " + self.same(ours, eager, logits, "compiled steps")

    def not_capturable(self):
        """A forward pass that reads values on the host stays eager; sampling works."""
        model, lines = self.load("ops"), []
        model.model.norm.register_forward_pre_hook(
            lambda _, args: args[0].sum().item() and None
        )
        ids, handler = prompt(2, 60, self.device), logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())
        graph._log.addHandler(handler)
        graph._log.setLevel("DEBUG")
        ours, _ = self.generate(model, ids, 12)
        graph._log.removeHandler(handler)
        eager, logits = self.generate(self.model, ids, 12, disable_compile=True)
        if self.captures:
            assert len(lines) == 1 and "cannot be captured" in lines[0], lines
        sampled, _ = self.generate(model, ids, 12, do_sample=True)
        assert sampled.shape == (2, 12)
        return self.same(ours, eager, logits, "not captured")

    def ragged(self):
        """Sequences that join and leave a Decoder's steps, against each alone."""
        pages = moa.runtime.Cache(self.model.moa.module, max_bytes=BYTES)
        sequences = [moa.runtime.Sequence(pages, N) for _ in range(5)]
        for row, sequence in enumerate(sequences):
            one = moa.ops.Rows(pages, [sequence])
            for layer in range(2):
                k, v = self.tensors(1, 60 + 50 * row, seed=layer)[1:]
                moa.ops.append(one.handle, k, v, layer)
        alone = [sequence.fork() for sequence in sequences]
        decoder, single = (graph.Decoder(self.model, pages) for _ in range(2))
        worst = 0.0
        for number in range(60):
            chosen = list(dict.fromkeys((number * k + k) % 5 for k in range(1, 2 + number % 5)))
            tokens = prompt(len(chosen), 1, self.device, seed=number)
            got = decoder.step([sequences[i] for i in chosen], tokens).float().clone()
            for row, i in enumerate(chosen):
                want = single.step([alone[i]], tokens[row : row + 1]).float()
                worst = max(worst, float((got[row] - want[0]).abs().max()))
        assert worst <= NEAR, f"logits are {worst:.3g} apart"
        return f"{decoder.graphs} graphs; logits {worst:.1e} apart"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--artifacts", type=Path, default=Path("build/bench/artifacts"))
    parser.add_argument("--only", help="names of checks, separated by commas")
    args = parser.parse_args()
    if args.device == "cuda":
        need_cuda()
    transformers.logging.set_verbosity_error()
    checks = Checks(args.artifacts, args.device)
    names = (
        "values", "opcheck", "captured_decode", "decoding", "windows", "padding_and_turns",
        "ragged", "not_capturable", "compiled",
    )  # fmt: skip
    failed = False
    for name in args.only.split(",") if args.only else names:
        start = time.perf_counter()
        try:
            found = getattr(checks, name)()
        except Exception as error:
            failed, found = True, f"FAILED: {type(error).__name__}: {error}"
        print(f"{name}: {found} ({time.perf_counter() - start:.1f} s)", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
