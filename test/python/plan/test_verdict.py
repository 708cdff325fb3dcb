"""What scores say: paired differences, ranks and ties, the gate."""

import json
import math

import pytest

from moa.plan.errors import PlannerError
from moa.plan.verdict import Mean, gate, ranked, rows_of, within_noise


def line(plan, item, margin=None, ce=1.0, depth=0.5, exact=True):
    return dict(plan=plan, item=item, margin=margin, ce=ce, depth=depth, exact=exact, id=plan)


LINES = [
    line("dense", "a", 10.0, depth=0.1), line("dense", "b", 12.0), line("dense", "t", ce=1.0),
    line("good", "a", 9.0, depth=0.1), line("good", "b", 11.5), line("good", "t", ce=1.01),
    line("bad", "a", -2.0, depth=0.1), line("bad", "b", 1.0, exact=False),
    line("bad", "t", ce=1.5),
]  # fmt: skip


def test_differences_are_paired():
    rows = rows_of(LINES)
    good, bad = rows["good"], rows["bad"]
    assert (good.first, good.exact, good.retrieval) == (2, 2, 2)
    assert (bad.first, bad.exact, bad.retrieval) == (1, 1, 2)
    assert good.margin_change == Mean(-0.75, pytest.approx(0.25), 2)
    assert good.margin.mean == 10.25 and good.ce_change.mean == pytest.approx(0.01)
    assert math.isnan(good.ce_change.error) and str(good.ce_change) == "+0.010"
    assert str(good.margin_change) == "-0.750 (0.250)" and str(Mean.of([])) == "-"
    assert good.by_depth["0 to 1/3"].mean == 9.0 and good.by_depth["2/3 to 1"].n == 0
    plain = json.loads(json.dumps(good.plain(), allow_nan=False))
    assert plain["ce_change"] == {"mean": pytest.approx(0.01), "error": None, "n": 1}
    assert str(Mean.read(plain["ce_change"])) == "+0.010"
    assert Mean.read(plain["margin_change"]) == good.margin_change
    with pytest.raises(PlannerError, match="lack the dense"):
        rows_of(LINES[3:])


def test_ranks_and_ties():
    rows = rows_of(LINES)
    order = ranked([rows["bad"], rows["good"]], {"good": 0.5, "bad": 0.4})
    assert [row.plan for row in order] == ["good", "bad"]
    twin = rows_of(LINES + [dict(entry, plan="twin") for entry in LINES[3:6]])
    order = ranked([twin["good"], twin["twin"]], {"good": 0.5, "twin": 0.4})
    assert order[0].plan == "twin"
    # Equal ranks and bytes: the one whose worse loss is less, in standard errors.
    sure = [
        line("sure", "a", 9.9, depth=0.1),
        line("sure", "b", 12.0),
        line("sure", "t", ce=1.02),
        line("dense", "u", ce=1.0),
        line("sure", "u", ce=1.021),
        line("good", "u", ce=1.0),
    ]
    rows = rows_of([*LINES, *sure])
    order = ranked([rows["sure"], rows["good"]], {"good": 0.5, "sure": 0.5})
    assert [row.plan for row in order] == ["good", "sure"]
    assert not within_noise(LINES, "good", "bad")
    assert within_noise(LINES + [dict(e, plan="twin") for e in LINES[3:6]], "good", "twin")


def test_the_gate_holds_margin_and_cross_entropy():
    rows = rows_of(LINES)
    assert gate(rows["good"], 1.0, 0.1) is None
    assert "bad answers with 11.50 nats less margin" in gate(rows["bad"], 1.0, 0.1)
    text = rows_of([entry for entry in LINES if entry["margin"] is None])
    assert "bad has 0.500 nats more cross-entropy" in gate(text["bad"], 1.0, 0.1)
