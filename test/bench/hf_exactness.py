"""Every way to call generate against the masked reference, as tables in Markdown.

Tiny random models in float32 by default; with --smollm2, SmolLM2-135M-Instruct
under the demo's plan. Exit code 1 where a token differs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import torch
import transformers

import moa.hf

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "test/python"), str(ROOT / "examples/04-hf-smollm2")]
import hf_families  # noqa: E402
import hf_modes  # noqa: E402
from demo import PLAN, model_folder  # noqa: E402
from hf_modes import batch, generate, masked, prompt, turns  # noqa: E402

RULES = ("request", "row")
#: Three layers: heads that see all, grow at several rates, or stay.
RULES_OF_HEADS = dict(
    alphas=[[0, 16, 0, 8], [0, 32, 128, 0], [0, 64, 0, 48]],
    betas=[[1.0, 0.125, 0.5, 0.25], [0.25, 0.5, 0.0, 1.0], [0.75, 0.0, 0.5, 0.125]],
)
SPAN = dict(sink=16, block=16, min=32)


def with_rule(plan, rule):
    return {**plan, "span": {**plan.get("span", {}), "length": rule}}


class Subject:
    """A model under a plan, and how to get it dense."""

    def __init__(self, name, make, plan, windows, prompts, new):
        self.name, self.make, self.plan = name, make, plan
        self.windows, self.prompts, self.new = windows, prompts, new
        self.ours = moa.hf.load(make(), plan=plan)

    def single(self, mode):
        return self._compare(batch(self.prompts[:1]), mode)

    def batched(self, mode):
        return self._compare(batch(self.prompts), mode)

    def assisted(self, mode):
        inputs = batch(self.prompts[:1])
        assistant = self.make() if mode == "dense" else self.ours
        found = generate(self.ours, inputs, self.new, assistant_model=assistant)
        return found, self._reference(inputs)

    def turns(self, mode):
        inputs = batch(self.prompts[:1])
        more = self.prompts[-1][:, :40]
        return turns(self.ours, self.make(), self.plan, inputs, more, self.new, self.windows)

    def _reference(self, inputs):
        dense = masked(self.make(), self.plan, inputs, self.new, self.windows)
        return generate(dense, inputs, self.new)

    def _compare(self, inputs, mode):
        return hf_modes.compare(
            self.ours, self.make(), self.plan, inputs, self.new, mode, self.windows
        )


def ways(rule):
    """Name of a way, and the call of a subject that tries it."""
    modes = [*hf_modes.BOTH, *hf_modes.OURS]
    found = {mode: (Subject.single, mode) for mode in modes}
    found |= {
        f"left-padded batch, {mode}": (Subject.batched, mode)
        for mode in modes
        if mode != "prompt lookup"  # transformers takes one row there
    }
    found["assisted by the dense model"] = (Subject.assisted, "dense")
    found["assisted by a model under the plan"] = (Subject.assisted, "plan")
    if rule == "row":  # under `request` a turn raises N, so two masks would be needed
        found["second turn on one cache"] = (Subject.turns, None)
    return found


def verdict(found, wanted):
    """yes, or at which new token of which row the first difference is."""
    if torch.equal(found, wanted):
        return "yes"
    if found.shape != wanted.shape:
        return f"no: {list(found.shape)} instead of {list(wanted.shape)} tokens"
    row, token = (found != wanted).nonzero()[0].tolist()
    return f"no: row {row}, token {token}"


def table(title, subjects, only):
    """Prints one; subjects: {column: (Subject, rule)}. Whether all tokens are equal."""
    print(f"\n{title}\n\n| way | {' | '.join(subjects)} |\n|---|{'---|' * len(subjects)}")
    equal = True
    for way in filter(re.compile(only).search, ways("row")):
        cells = []
        for subject, rule in subjects.values():
            call = ways(rule).get(way)
            cells.append(verdict(*call[0](subject, call[1])) if call else "-")
        equal &= all(cell in ("yes", "-") for cell in cells)
        print(f"| {way} | {' | '.join(cells)} |", flush=True)
    return equal


def tiny(only):
    print("| family | " + " | ".join(RULES) + " |\n|---|---|---|")
    equal, llama = True, {}
    for name in hf_families.FAMILIES:
        cells = []
        for rule in RULES:
            plan = with_rule(
                {"format": "moa-plan", "version": 1, **RULES_OF_HEADS, "span": SPAN}, rule
            )
            prompts = [prompt(n, seed=n) for n in (230, 41, 170)]
            make = lambda name=name: hf_families.fresh(name)
            subject = Subject(name, make, plan, hf_families.FAMILIES[name][2], prompts, 24)
            if name == "Llama":
                llama[rule] = (subject, rule)
            found = [
                verdict(*subject.single(mode)) for mode in ("greedy", "beams", "prompt lookup")
            ]
            found.append(verdict(*subject.batched("greedy")))
            cells.append("yes" if set(found) == {"yes"} else "; ".join(found))
            equal &= cells[-1] == "yes"
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    title = "Llama, 230 tokens, or 230, 41 and 170, and 24 new ones:"
    return table(title, llama, only) and equal


def smollm2(tokens, new, only):
    folder = model_folder(ROOT / "build/models/SmolLM2-135M-Instruct")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = (ROOT / "examples/04-hf-smollm2/prompt.txt").read_text()
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    prompts = [ids[:, :tokens], ids[:, 100:340], ids[:, 700 : 700 + tokens // 2]]
    make = lambda: transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32
    ).eval()
    plan = json.loads(PLAN.read_text())
    subjects = {
        rule: (Subject("SmolLM2", make, with_rule(plan, rule), None, prompts, new), rule)
        for rule in RULES
    }
    lengths = ", ".join(str(one.shape[1]) for one in prompts)
    return table(f"SmolLM2-135M-Instruct, {lengths} tokens, {new} new:", subjects, only)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smollm2", action="store_true")
    parser.add_argument("--tokens", type=int, default=700, help="of SmolLM2's prompt")
    parser.add_argument("--new", type=int, default=24, help="tokens that SmolLM2 writes")
    parser.add_argument("--only", default="", help="ways to try, a regular expression")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    equal = smollm2(args.tokens, args.new, args.only) if args.smollm2 else tiny(args.only)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
