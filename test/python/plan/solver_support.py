"""Small problems of the planner's solver, and all their assignments by brute force."""

import itertools

import numpy as np

from moa.plan.problem import Problem

#: What may be combined: units of a KV head, rules in a layer, ranks.
FORMS = {
    "two_rules": {}, "one_rule": {"rules_per_layer": 1}, "free": {"rules_per_layer": None},
    "groups": {"group": 2}, "free_groups": {"group": 2, "rules_per_layer": None},
    "one_rule_groups": {"group": 2, "rules_per_layer": 1}, "ranks": {"ranks": 2},
    "one_rule_ranks": {"ranks": 2, "rules_per_layer": 1}, "formats": {"formats": 2},
    "one_rule_formats": {"formats": 2, "rules_per_layer": 1},
    "free_formats": {"formats": 2, "rules_per_layer": None},
    "group_formats": {"group": 2, "formats": 2},
    "free_group_formats": {"group": 2, "formats": 2, "rules_per_layer": None},
    "one_rule_group_formats": {"group": 2, "formats": 2, "rules_per_layer": 1},
}  # fmt: skip


def small(form):
    """Rules that leave few enough assignments to try all."""
    return 2 if "formats" in FORMS[form] else 3


def make_problem(seed, layers=2, units=4, rules=4, objectives=1, constraints=2, **form):
    """Losses that fall with the cost, in every head differently; the first rule is the
    cheapest everywhere."""
    random = np.random.default_rng(seed)
    costs = np.sort(random.uniform(0.05, 1, (constraints, rules)), axis=1)
    if rules > 2:  # Rules that cross: cheap at one length and dear at another.
        costs[1:, [1, 2]] = costs[1:, [2, 1]]
    size = random.lognormal(0, 1.5, (objectives, layers, units, 1))
    need = random.uniform(0.2, 1, (objectives, layers, units, 1))
    losses = size * np.maximum(0, 1 - costs.mean(axis=0) / need)
    formats = form.get("formats", 1)
    if formats > 1:  # Fewer bytes for more loss, in every head differently.
        more = random.lognormal(-2, 1.5, losses.shape) * costs.mean(axis=0)
        share = random.uniform(0.5, 0.7, costs.shape)
        losses = np.stack([losses, losses + more], axis=-1).reshape(*losses.shape[:-1], -1)
        costs = np.stack([costs, costs * share], axis=-1).reshape(len(costs), -1)
    bounds = random.uniform(0.3, 0.7, constraints)
    return Problem(losses, costs, np.maximum(bounds, costs.min(axis=1)), **form)


def allowed(problem, chosen):
    """Whether the units of one layer may take these rules, from the definition."""
    rules, formats = np.divmod(chosen, problem.formats)
    shape = (problem.kv_heads, problem.group)
    if any(len(set(head)) > 2 for head in rules.reshape(shape)):
        return False
    if any(len(set(head)) > 1 for head in formats.reshape(shape)):
        return False
    if problem.rules_per_layer and len(set(rules)) > problem.rules_per_layer:
        return False
    ranks = np.sort(chosen.reshape(problem.ranks, -1), axis=1)
    return (ranks == ranks[0]).all()


def assignments(problem):
    """All of one layer."""
    every = itertools.product(range(problem.options), repeat=problem.units)
    return [np.array(chosen) for chosen in every if allowed(problem, np.array(chosen))]


def cost_of(problem, chosen):
    """Costs of one layer's assignment, from the definition."""
    heads = chosen.reshape(problem.kv_heads, problem.group)
    dearest = np.array([problem.costs[:, head].max(axis=1) for head in heads])
    return dearest.sum(axis=0) / (problem.layers * problem.kv_heads)


def best(problem, goal):
    """The optimum by trying everything, or None."""
    chosen = assignments(problem)
    unit = np.arange(problem.units)
    losses = np.array(
        [[problem.losses[:, layer, unit, c].sum(axis=1) for c in chosen]
         for layer in range(problem.layers)]
    )  # fmt: skip
    costs = np.array([cost_of(problem, c) for c in chosen])
    used = np.zeros((1, problem.objectives + len(costs[0])))
    for layer in losses:
        each = np.concatenate([layer, costs], axis=1)
        used = (used[:, None] + each).reshape(-1, used.shape[1])
    limits = np.concatenate([goal.ceilings, problem.bounds])
    used = used[(used <= limits + 1e-9).all(axis=1), : problem.objectives]
    return float((used @ goal.weights).min()) if len(used) else None
