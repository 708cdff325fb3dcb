"""The planner's solver on made-up models: times and proven gaps, `make bench`.

Losses are those of heads that look near (in tokens), far (as a share of the input) or
both, of sizes that differ a hundredfold; KV density at most 0.5 at 2k, 4k, 8k and 16k
tokens. `compact` (--compact) is the same problem as one
mixed integer program without decomposition, solved by HiGHS for as long as --limit says.
"""

import argparse
import sys
import time
from pathlib import Path

import highspy
import numpy as np
import record

from moa.plan.optimize import solve
from moa.plan.pareto import pareto
from moa.plan.problem import Problem
from moa.plan.rules import costs, default_grid, paper_grid
from moa.plan.span import SpanParams

LENGTHS = [2048, 4096, 8192, 16384]
DENSITY = 0.5
#: The published rules, ours, and those of ours in steps of 256 tokens.
GRIDS = {
    "paper": paper_grid(2048, 8192),
    "default": default_grid(8192, LENGTHS, SpanParams()),
    "fine": default_grid(2048, LENGTHS, SpanParams()),
}
#: Name, layers, query heads, KV heads that are decided exactly (0: each query head),
#: lengths with a loss, most rules in a layer, grid.
CASES = [
    ("mha", 32, 32, 0, [8192], 2, "paper"),
    ("mha_default", 32, 32, 0, [8192], 2, "default"),
    ("mha_fine", 32, 32, 0, [8192], 2, "fine"),
    ("mha_one_rule", 32, 32, 0, [8192], 1, "paper"),
    ("mha_free", 32, 32, 0, [8192], None, "paper"),
    ("mha_40", 40, 40, 0, [8192], 2, "paper"),
    ("large", 80, 64, 0, [8192], 2, "paper"),
    ("large_fine", 80, 64, 0, [8192], 2, "fine"),
    ("gqa_group", 32, 8, 0, [8192], 2, "paper"),
    ("gqa_exact", 32, 32, 8, [8192], 2, "paper"),
    ("large_group", 80, 8, 0, [8192], 2, "paper"),
    ("large_exact", 80, 64, 8, [8192], 2, "paper"),
]
PARETO = ("mha_pareto", 32, 32, 0, [2048, 4096, 8192], 2, "paper")


def make_problem(layers, heads, kv_heads, lengths, rules_per_layer, grid):
    """A model of made-up heads."""
    random = np.random.default_rng(0)
    params, rules = SpanParams(), GRIDS[grid]
    shape = (layers, heads, 1)
    size, far = random.lognormal(0, 1.5, shape), random.uniform(0, 1, shape) ** 2
    near, reach = 2 ** random.uniform(6, 12, shape), random.uniform(0.1, 1, shape)
    losses = []
    for n in lengths:
        tokens = np.array([float(rule.tokens(n, params)) for rule in rules])
        local = np.exp(-tokens / near) - np.exp(-n / near)
        losses.append(
            size * ((1 - far) * local + far * np.maximum(0, 1 - tokens / (n * reach)))
        )
    group = heads // kv_heads if kv_heads else 1
    table = costs(rules, LENGTHS, params)
    bounds = np.full(len(LENGTHS), DENSITY)
    return Problem(np.maximum(losses, 0), table, bounds, group, rules_per_layer)


def compact(problem, limit):
    """(objective, lower bound) of the problem as one mixed integer program; units one by
    one, at most as many rules in a layer as the problem says."""
    layers, units, rules = problem.layers, problem.units, problem.rules
    model = highspy.Highs()
    model.setOptionValue("output_flag", False)
    model.setOptionValue("time_limit", limit)
    model.setOptionValue("mip_rel_gap", 1e-4)
    chosen = layers * units * rules
    used = layers * rules
    infinity = highspy.kHighsInf
    model.addVars(chosen + used, np.zeros(chosen + used), np.ones(chosen + used))
    every = np.arange(chosen + used, dtype=np.int32)
    model.changeColsCost(
        chosen, every[:chosen], problem.losses.mean(axis=0).ravel()
    )  # Of the mean of all objectives.
    kind = np.full(chosen + used, highspy.HighsVarType.kInteger.value, dtype=np.uint8)
    model.changeColsIntegrality(chosen + used, every, kind)
    for unit in range(layers * units):
        model.addRow(1, 1, rules, every[unit * rules : (unit + 1) * rules], np.ones(rules))
    for row, bound in zip(problem.costs, problem.bounds):
        each = np.tile(row, layers * units) / (layers * units)
        model.addRow(-infinity, bound, chosen, every[:chosen], each)
    for layer in range(layers if problem.rules_per_layer else 0):
        first = chosen + layer * rules
        model.addRow(-infinity, problem.rules_per_layer, rules, every[first : first + rules],
                     np.ones(rules))  # fmt: skip
        for place in range(units * rules):
            pair = np.array([layer * units * rules + place, first + place % rules], np.int32)
            model.addRow(-infinity, 0, 2, pair, np.array([1.0, -1.0]))
    model.run()
    info = model.getInfo()
    return info.objective_function_value, info.mip_dual_bound


def timed(run):
    """What `run` returns, and its seconds by the clock and of the processor."""
    begin, used = time.monotonic(), time.process_time()
    result = run()
    return result, time.monotonic() - begin, time.process_time() - used


def entry(case, who, seconds, used, objective, bound):
    name, layers, heads, kv_heads, lengths, rules_per_layer, grid = case
    rules = len(GRIDS[grid])
    gap = max(objective - bound, 0) / objective
    return {
        "kind": "optimize", "who": who, "method": "wall", "mask": "plan", "case": name,
        "layers": layers, "q_heads": heads, "kv_heads": kv_heads or heads, "rules": rules,
        "objectives": len(lengths), "rules_per_layer": rules_per_layer or rules,
        "us": seconds * 1e6, "processor_s": used, "objective": objective, "gap": gap,
    }  # fmt: skip


def measure(case, solver):
    problem = make_problem(*case[1:])
    solution, *times = timed(lambda: solve(problem, solver=solver))
    who = "ours" if solver == "highs" else solver
    return entry(case, who, *times, solution.objective, solution.bound)


def measure_compact(case, limit):
    problem = make_problem(*case[1:])
    (objective, bound), *times = timed(lambda: compact(problem, limit))
    return entry(case, "compact", *times, objective, bound)


def measure_pareto(case):
    """The whole set; its gap is the widest of its plans."""
    problem = make_problem(*case[1:])
    points, *times = timed(lambda: pareto(problem, 5))
    worst = max(points, key=lambda point: point.solution.gap).solution
    return entry(case, "ours", *times, worst.objective, worst.bound) | {
        "plans": len(points), "median_gap": float(np.median([p.solution.gap for p in points])),
    }  # fmt: skip


def describe(found):
    text = (
        f"{found['case']:14}{found['who']:12}{found['layers']:>3} x {found['q_heads']:<3}"
        f"{found['rules']:>3} rules"
        f"{found['us'] * 1e-6:8.2f} s ({found['processor_s']:.2f} s of the processor)"
        f"  objective {found['objective']:12.5f}"
        f"  gap {found['gap']:.1e}"
    )
    return text + (f"  {found['plans']} plans" if "plans" in found else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    parser.add_argument("--cases", help="names, with commas between them; default: all")
    parser.add_argument("--compact", action="store_true", help="also without decomposition")
    parser.add_argument("--limit", type=float, default=240, help="seconds for --compact")
    parser.add_argument("--commit", help="of the checkout, for the record")
    args = parser.parse_args()
    file = record.new_file(
        "plan-solver", record.processor(), commit=args.commit, packages=("highspy", "numpy"),
        setting={"density": DENSITY, "lengths": LENGTHS},
    )  # fmt: skip
    wanted = args.cases.split(",") if args.cases else [c[0] for c in (*CASES, PARETO)]
    solve(make_problem(2, 2, 0, [8192], 2, "paper"))  # HiGHS is loaded.

    def add(found):
        file["records"].append(found)
        print(describe(found), flush=True)

    for case in CASES:
        if case[0] in wanted:
            add(measure(case, "highs"))
    if "mha" in wanted:
        add(measure(CASES[0], "subgradient"))
        if args.compact:
            add(measure_compact(CASES[0], args.limit))
    if PARETO[0] in wanted:
        add(measure_pareto(PARETO))
    print(f"written to {record.write(file, args.output / 'plan-solver.json')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
