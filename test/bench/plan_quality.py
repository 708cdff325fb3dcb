"""Quality at equal KV bytes: a model under searched plans, under others, and dense.

Scores fresh needles (right answer of eight, margin in nats) and summaries
(cross-entropy) under masks in torch, batched, on the device at hand; a plan is
compared with the dense model item by item.

MODEL is a folder or a .gguf file, RUN a folder of `moa-plan profile` of it, and
`--plans 0.5=FILE` the plan for each KV density. Every score is kept below
--output: the same command goes on where it was stopped, or where --seconds were
out. Kinds of plans are scored one after another, each at all lengths, in the order
below: what is missing then is the least wanted. Exit code 3 says that scores are
missing, and the table is of those there are.
Before, an item is scored through eager attention with an explicit mask for each
head as well; exit code 1 says that it differed.

  ours        the given plan
  one span    spans that do not grow with the length, chosen for 4k (beta = 0)
  its span    the same chosen for each length by itself, at its bytes
  layer       one rule for all heads of a layer
  duo         each KV head all or a short span, chosen for each length by itself
  streaming   one share of the length for all heads
  random      the rules of ours on other KV heads
  h2o         dense prompt; answers see the recent and the heaviest keys
"""

import argparse
import copy
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import record
import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from moa.plan import network
from moa.plan.baselines import random_like, searched, streaming
from moa.plan.collect import Collector, Source, Wish, items_of
from moa.plan.curves import load_profile
from moa.plan.errors import PlannerError
from moa.plan.evaluate import batches
from moa.plan.model import ModelShape
from moa.plan.runfolder import Interrupted, RunFolder
from moa.plan.schema import load_plan
from moa.plan.search import Request, predicted_losses
from moa.plan.validate import Candidate, Validation, dense_plan, masked_scorer
from moa.plan.verdict import DENSE, Mean, rows_of

LENGTHS = (1024, 2048, 4096, 6144)
METHODS = ("ours", "duo", "streaming", "layer", "random", "one span", "h2o", "its span")
SEARCHED = ("duo", "layer", "one span", "its span")
#: KV density at which summaries are scored too.
TOLD = 0.5
#: Of explicit masks in float32, relative to a margin; nats below one.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class Entry:
    """A candidate of the table."""

    method: str
    asked: float  #: KV density.
    candidate: Candidate


class Plans:
    """Makes the plan of each method; one that serves all lengths is made once."""

    def __init__(self, run, folder, shape, ours, lengths):
        self.profile, self.shape, self.ours = load_profile(run), shape, ours
        self.folder = folder
        made = {plan.document["provenance"]["estimator"] for plan in ours.values()}
        #: Of windows, by which all are searched and predicted: those of ours.
        self.losses = "signed" if all("signed" in estimator for estimator in made) else "sizes"
        longest = max(self.profile.curves)
        self.beyond = {n for n in (*lengths, shape.max_length) if n > longest}
        self._made = {}

    def entries(self, asked, length):
        """One for each method, at a KV density and a length."""
        for method in METHODS:
            name = f"{method} {asked:g}"
            if method == "h2o":
                yield Entry(method, asked, Candidate(name, h2o=asked, reference=True))
            else:
                plan = self._plan(method, asked, length)
                yield Entry(method, asked, Candidate(name, plan, reference=True))

    def _plan(self, method, asked, length):
        """Searched plans are kept in the folder: a search takes seconds."""
        key = (method, asked, length if method in ("its span", "duo") else "all")
        if key not in self._made:
            hull = self.ours[asked].document["provenance"]["solver"]["hull"]
            name = f"{method}-{asked:g}-{key[2]}{'-hull' * hull}.json".replace(" ", "-")
            path = self.folder / name
            if method in SEARCHED and path.exists():
                self._made[key] = load_plan(path)
            else:
                self._made[key] = self._make(method, asked, length)
                if method in SEARCHED:
                    self._made[key].write(path)
        return self._made[key]

    def _make(self, method, asked, length):
        ours = self.ours[asked]
        if method == "ours":
            return ours
        if method == "streaming":
            return streaming(self.shape, asked)
        if method == "random":
            return random_like(ours, self.shape, 0)
        longest = max(self.profile.curves)
        bounds = dict.fromkeys([*self.profile.curves, *sorted(self.beyond)], asked)
        hull = ours.document["provenance"]["solver"]["hull"]
        kind = {"one span": "fixed", "its span": "fixed"}.get(method, method)
        at = longest if method == "one span" else length
        request = Request(bounds, losses=self.losses, hull=hull)
        return searched(kind, self.profile, request, at=at, model=self.shape)

    def predicted(self, plan, length):
        """Its loss by the profile, as a share of that of the shortest spans."""
        profile = self.profile.by_sign() if self.losses == "signed" else self.profile
        found = predicted_losses(
            profile, plan.alphas, plan.betas, plan.span, [length], hull=False
        )  # fmt: skip
        return found[length]


def fresh_items(net, folder, length, needles, summaries, seed):
    """(needles, summaries) that neither calibration nor validation with another seed has."""
    found = []
    for kind, count in (("needle", needles), ("summarise", summaries)):
        wish = Wish(
            (Source(kind),), (length,), count, seed, sink=64, budget=48, max_ce=3.0, fresh=True
        )  # fmt: skip
        found.append(items_of(folder, kind, Collector(net, wish), length) if count else [])
    return found


class Cell:
    """A length: its items, the candidates and their scores."""

    def __init__(self, net, plans, folder, length, needles, summaries, seed):
        self.plans, self.length = plans, length
        self.needles, self.told = fresh_items(net, folder, length, needles, summaries, seed)
        self.validation = Validation(
            folder, net, [*self.needles, *self.told], length, "masked"
        )  # fmt: skip
        dense = Entry(DENSE, 1.0, Candidate(DENSE, dense_plan(net.config), reference=True))
        ours = sorted(plans.ours, reverse=True)
        self.entries = [dense, *(e for d in ours for e in plans.entries(d, length))]

    def items(self, entry):
        """Summaries are for the dense model and one density."""
        return [*self.needles, *(self.told if entry.asked in (1.0, TOLD) else ())]

    def score(self, method):
        """Candidates of a method, those that keep most first."""
        chosen = [entry for entry in self.entries if entry.method == method]
        self.validation.score([(entry.candidate, self.items(entry)) for entry in chosen])

    def missing(self, entry):
        """How many of its scores are not there."""
        known = self.validation.known
        return sum((entry.candidate.id, item.hash) not in known for item in self.items(entry))

    def records(self, shape, dtype):
        """A record for each candidate that has all its scores, the dense model first."""
        whole = [entry for entry in self.entries if not self.missing(entry)]
        known = self.validation.known
        lines = [
            known[entry.candidate.id, item.hash] | {"plan": entry.candidate.name}
            for entry in whole
            for item in self.items(entry)
        ]
        if not whole or whole[0].method != DENSE:
            return []
        rows, records = rows_of(lines), []
        whole.sort(key=lambda entry: ([DENSE, *METHODS].index(entry.method), -entry.asked))
        for entry in whole:
            row, plan = rows[entry.candidate.name], entry.candidate.plan
            density = entry.candidate.density(shape["kv_heads"], self.length)
            told = {
                "kind": "quality", "who": entry.method, "method": "masks", "mask": "plan",
                "length": self.length, **shape, "dtype": dtype, "asked": entry.asked,
                "density": density, "scored_items": row.retrieval, "first_items": row.first,
                "exact_items": row.exact,
            }  # fmt: skip
            told |= values("margin", row.margin) | values("margin_change", row.margin_change)
            told |= values("ce", row.ce) | values("ce_change", row.ce_change)
            if row.ce.n:
                told["told_items"] = row.ce.n
            if entry.method not in (DENSE, "ours"):
                change = less_ours(lines, f"ours {entry.asked:g}", entry.candidate.name)
                told |= values("margin_less_ours", change)
            if plan is not None:
                told["predicted"] = self.plans.predicted(plan, self.length)
                told["plan"] = plan.id
            records.append(told)
        return records


def explicit_margin(model, plan, item):
    """The margin of an item, each of its answers by itself under masks [tokens, tokens]
    written from the definition of a plan."""
    length = len(item.prompt) + max(map(len, item.candidates))
    about, rules = plan.span, plan.rules()

    def mask(rule, tokens, device):
        kept = max(min(int(rule[0] + rule[1] * length), length), about.min)
        local = -(-kept // about.block) * about.block - about.sink
        i, j = (torch.arange(tokens, device=device).view(shape) for shape in ((-1, 1), (1, -1)))
        return (j <= i) & ((j < about.sink) | (i - j < local))

    def attention(module, q, k, v, _, scaling, **kwargs):
        group, tokens = q.shape[1] // k.shape[1], q.shape[2]
        layer = rules[module.layer_idx]
        masks = {rule: mask(rule, tokens, q.device) for rule in set(layer)}
        seen = torch.stack([masks[rule] for rule in layer])
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = (q @ k.mT * scaling).masked_fill(~seen, -torch.inf)
        return (torch.softmax(scores, -1) @ v).transpose(1, 2), None

    AttentionInterface.register("explicit", attention)
    AttentionMaskInterface.register("explicit", lambda *args, **kwargs: None)
    before = model.config._attn_implementation
    model.set_attn_implementation("explicit")
    totals = []
    with torch.inference_mode():
        for answer in item.candidates:
            ids = torch.tensor([item.prompt + answer], device=model.device)
            keep = len(answer) + 1
            rows = model(ids, use_cache=False, logits_to_keep=keep).logits[0, :-1].float()
            wanted = torch.log_softmax(rows, -1).gather(1, ids[0, -len(answer) :, None])
            totals.append(float(wanted.sum()))
    model.set_attn_implementation(before)
    return totals[0] - max(totals[1:])


def masks_hold(net, plan, needles):
    """Whether an item in a batch has the margin that explicit masks give it, both in
    float32: other types round a margin by tenths of a nat."""
    batch = next(batches(needles, net.device))[:4]
    candidate = Candidate("plan", plan)
    as_scored = masked_scorer(net, candidate)(batch)[-1].margin
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    exact = replace(net, model=copy.deepcopy(net.model).float())
    want = explicit_margin(exact.model, plan, batch[-1])
    found = masked_scorer(exact, candidate)(batch)[-1].margin
    torch.set_float32_matmul_precision(precision)
    print(
        f"an item's margin: {found:.4f} nats in a batch of {len(batch)}, {want:.4f} by "
        f"explicit masks; {as_scored:.4f} as the table is scored"
    )
    return abs(found - want) <= TOLERANCE * max(1.0, abs(want))


def less_ours(lines, ours, other):
    """Mean of the margins under `other` less those under `ours`, item by item."""
    two = [x | {"plan": DENSE} for x in lines if x["plan"] == ours]
    two += [x for x in lines if x["plan"] == other]
    return rows_of(two)[other].margin_change


def values(name, mean: Mean):
    """Keys of a record; none where there is no standard error."""
    if mean.n < 2:
        return {}
    return {f"{name}_nats": mean.mean, f"{name}_se_nats": mean.error}


def table(records):
    """The records as lines for people."""
    dense = next(r for r in records if r["who"] == "dense")
    yield (
        f"{'method':11}{'asked':>6}{'KV':>6}{'first':>7}{'exact':>7}{'margin (SE)':>15}"
        f"{'of dense':>9}{'less dense (SE)':>18}{'CE less dense (SE)':>20}{'predicted':>10}"
    )
    for r in records:
        share = r["margin_nats"] / dense["margin_nats"]
        told = ""
        if "ce_change_nats" in r:
            told = f"{r['ce_change_nats']:+.3f} ({r['ce_change_se_nats']:.3f})"
        guess = f"{r['predicted']:.3f}" if "predicted" in r else "-"
        margin = f"{r['margin_nats']:.2f} ({r['margin_se_nats']:.2f})"
        change = f"{r['margin_change_nats']:+.2f} ({r['margin_change_se_nats']:.2f})"
        yield (
            f"{r['who']:11}{r['asked']:6.2f}{r['density']:6.3f}"
            f"{r['first_items']:4}/{r['scored_items']:<2}{r['exact_items']:7}"
            f"{margin:>15}{share:9.2f}{change:>18}{told:>20}{guess:>10}"
        )


def parse_plan(text):
    asked, equals, path = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected DENSITY=PLAN, found '{text}'")
    return float(asked), load_plan(path)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("run", type=Path)
    parser.add_argument("--plans", nargs="+", type=parse_plan, required=True)
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--items", type=int, default=50, help="needles for each length")
    parser.add_argument("--summaries", type=int, default=20, help="for each length")
    parser.add_argument("--seed", type=int, default=1, help="other than the profile's")
    parser.add_argument("--seconds", type=float, help="stop after so many")
    parser.add_argument("--dtype", choices=network.DTYPES, default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only-plans", action="store_true", help="search them and end")
    parser.add_argument("--output", type=Path, default=Path("build/bench/quality"))
    parser.add_argument("--commit", help="of the checkout, for the record")
    args = parser.parse_args(arguments)
    deadline = time.monotonic() + args.seconds if args.seconds else float("inf")
    torch.set_float32_matmul_precision("high")  # Linear layers in TF32 on a GPU.
    lengths = [int(n) for n in args.lengths.split(",")]
    shape = network.geometry(network.load_config(args.model))
    plans = Plans(
        args.run, args.output / "plans",
        ModelShape(*(shape[k] for k in ("layers", "q_heads", "kv_heads", "head_dim",
                                        "max_position"))),
        dict(args.plans), lengths,
    )  # fmt: skip
    folder = RunFolder(args.output)
    # The plans that are kept are of this profile and these plans.
    ids = {f"{asked:g}": plan.id for asked, plan in args.plans}
    folder.claim("plans", {"profile": plans.profile.sha256, "lengths": lengths, **ids})
    if args.only_plans:
        for length in lengths:
            for asked in plans.ours:
                print(length, asked, [e.candidate.id[:8] for e in plans.entries(asked, length)])
        return 0
    net = network.load(args.model, args.dtype, args.device, lengths)
    on_gpu = net.device.type == "cuda"
    file = record.new_file(
        "plan-quality", torch.cuda.get_device_name() if on_gpu else record.processor(),
        commit=args.commit, packages=("moa", "torch", "transformers"),
        setting={"model": net.name, "items": args.items, "summaries": args.summaries,
                 "seed": args.seed, "profiled": sorted(plans.profile.curves)},
    )  # fmt: skip
    wanted = (args.items, args.summaries, args.seed)
    needles, _ = fresh_items(net, folder, min(lengths), *wanted)
    if not masks_hold(net, plans.ours[min(plans.ours)], needles):
        print("error: masks in batches differ from explicit ones", file=sys.stderr)
        return 1
    cells = [Cell(net, plans, folder, length, *wanted) for length in lengths]
    score(cells, deadline)
    shape.pop("max_position")
    for cell in cells:
        found = cell.records(shape, args.dtype)
        file["records"] += found
        if found:
            print(f"\nN = {cell.length}")
            print("\n".join(table(found)), flush=True)
    if file["records"]:
        record.write(file, args.output / "plan-quality.json")
    return 3 if any(cell.missing(entry) for cell in cells for entry in cell.entries) else 0


def score(cells, deadline):
    """All kinds of plans in turn, each at all lengths, until time is out or Ctrl-C."""
    try:
        for method in (DENSE, *METHODS):
            for cell in cells:
                if time.monotonic() > deadline:
                    return
                cell.score(method)
    except Interrupted as reason:
        print(reason, file=sys.stderr)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PlannerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as reason:
        print(reason, file=sys.stderr)
        sys.exit(3)
