"""Window arithmetic as Python sees it, against the golden table and by hand."""

import json

import pytest

from conftest import INPUTS, Rule
from moa.runtime import SpanRule, resident_count, resident_pages, visible


def test_golden_table():
    table = json.loads((INPUTS / "span-golden.json").read_text())
    assert len(table["rows"]) > 100
    for row in table["rows"]:
        want = dict(zip(table["columns"], row))
        rule = SpanRule(
            want["alpha"], want["beta"], sink=want["sink"], min=want["min"],
            block=want["block"], per_row=bool(want["per_row"]),
        )  # fmt: skip
        n, i = want["n"], want["i"]
        start = rule.window_start(i, n)
        assert rule.span(n) == want["span"], want
        assert start == want["start"], want
        seen = sum(visible(i, j, start, want["sink"]) for j in range(min(i + 1, 2000)))
        assert i >= 2000 or seen == want["visible"], want
        pages = resident_pages(i, start, want["sink"])
        assert pages == (
            want["sink_pages"],
            want["window_begin"],
            want["window_end"],
        ), want


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("alpha, beta", [(0, 1.0), (-512, 0.75), (300, 0.0), (-64, 0.37)])
def test_window_starts_follow_the_definition(alpha, beta, per_row):
    ours = SpanRule(alpha, beta, per_row=per_row)
    want = Rule(alpha, beta, per_row=per_row).starts(1500, 1700)
    assert [ours.window_start(i, 1700) for i in range(1500)] == want


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("most", [1, 100, 300, 1 << 20])
def test_a_window_of_the_models_bounds_spans(most, per_row):
    ours = SpanRule(-64, 0.5, sink=0, per_row=per_row, most=most)
    want = Rule(-64, 0.5, sink=0, per_row=per_row, most=most).starts(1500, 1700)
    assert [ours.window_start(i, 1700) for i in range(1500)] == want
    assert (ours.most, ours.per_row) == (most, per_row)
    assert SpanRule(0, 1.0).most == 0


def test_visible_and_resident():
    assert visible(100, 3, 90, 64) and visible(100, 95, 90, 64)
    assert not visible(100, 80, 90, 64) and not visible(100, 101, 90, 64)
    assert resident_pages(1000, 640, 64) == (1, 10, 16)
    # Sink, blocks 10 to 15; in 8 bits blocks 10 to 14 on three pages, two on each.
    assert resident_count(1000, 640, 64) == 1 + 6
    assert resident_count(1000, 640, 64, kv8=True) == 1 + 3 + 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(alpha=0, beta=1.5), "beta"),
        (dict(alpha=0, beta=float("nan")), "beta"),
        (dict(alpha=0, beta=0.5, sink=128, min=128), "sink"),
        (dict(alpha=0, beta=0.5, block=0), "block"),
        (dict(alpha=1 << 41, beta=0.5), "alpha"),
        (dict(alpha=0, beta=0.5, sink=0, most=(1 << 20) + 1), "most"),
        (dict(alpha=0, beta=0.5, sink=4, most=100), "no sink"),
    ],
)
def test_bad_rules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpanRule(**arguments)


def test_bad_lengths_are_refused():
    with pytest.raises(ValueError, match="length"):
        SpanRule(0, 1.0).span(0)
    with pytest.raises(ValueError, match="row"):
        SpanRule(0, 1.0).window_start(-1, 10)
