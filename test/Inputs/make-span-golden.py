"""Writes span-golden.json: spans, window starts and resident pages of rules.

Usage: make-span-golden.py > span-golden.json. Written from the definitions, row
by row and key by key, and not from the C header that the table tests:

    span(N)  = round_up(max(min(trunc(alpha + beta * N), N), min), block)
    row i    sees key j iff j <= i and (j < sink or j >= start(i))
    start(i) = max(0, i + 1 - (span(N) - sink)), and where each row has its own
               N = i + 1 the largest of those of rows 0 .. i.

Each row of the table: the rule, N, a row i, span(N), start(i), the number of keys
that row i sees, and what is kept after i tokens for the rows from i on: pages of
64 tokens for the sink, and the first and the end of the window's pages.
"""

import json
import math
import random

PAGE = 64
COLUMNS = [
    "alpha", "beta", "sink", "min", "block", "per_row", "n", "i",
    "span", "start", "visible", "sink_pages", "window_begin", "window_end",
]  # fmt: skip


def span_of(rule, n):
    raw = math.trunc(float(rule["alpha"]) + rule["beta"] * float(n))
    span = max(min(raw, n), rule["min"])
    return -(-span // rule["block"]) * rule["block"]


def start_of(rule, i, n):
    """First key of row i's window."""
    rows = range(i + 1) if rule["per_row"] else [i]
    starts = [
        row + 1 - (span_of(rule, row + 1 if rule["per_row"] else n) - rule["sink"])
        for row in rows
    ]
    return max(0, *starts)


def row_of(rule, n, i):
    start = start_of(rule, i, n)
    keys = [j for j in range(i + 1) if j < rule["sink"] or j >= start]
    sinks = {j // PAGE for j in range(i) if j < rule["sink"]}
    # Pages with a key that row i sees, and the page that its own key goes to.
    window = {j // PAGE for j in range(start, i)}
    if i % PAGE:
        window.add(i // PAGE)
    window = sorted(window - sinks)
    end = -(-i // PAGE)
    begin = window[0] if window else end
    assert window == list(range(begin, end))
    return [*rule.values(), n, i, span_of(rule, n), start, len(keys),
            len(sinks), begin, end]  # fmt: skip


def main():
    pick = random.Random(2406)
    rules = [
        dict(zip(COLUMNS, values, strict=False))
        for values in (
            (0, 1.0, 64, 128, 64, 0), (0, 0.5, 64, 128, 64, 0),
            (512, 0.0, 4, 5, 1, 1), (0, 0.0, 64, 128, 64, 1),
            (-1024, 1.0, 64, 128, 64, 0), (1024, 0.125, 64, 128, 64, 1),
            (0, 0.0, 0, 1, 1, 0), (0, 0.0, 0, 1, 1, 1),
        )
    ]  # fmt: skip
    for _ in range(40):
        sink = pick.choice([0, 1, 4, 63, 64, 64, 65, 130])
        rules.append(
            {
                "alpha": pick.choice([0, 64 * pick.randint(-16, 16),
                                      pick.randint(-900, 900)]),
                "beta": pick.choice([0.0, 0.5, 1.0, pick.randint(0, 8) / 8,
                                     pick.random()]),
                "sink": sink,
                "min": sink + pick.choice([1, 64, pick.randint(1, 200)]),
                "block": pick.choice([1, 16, 64, 64, 100]),
                "per_row": pick.randint(0, 1),
            }
        )  # fmt: skip
    table = []
    for rule in rules:
        for n in (1, 64, 100, 1000, 4096, pick.randint(1, 3000)):
            rows = {0, n - 1, pick.randrange(n), pick.randrange(n)}
            table += [row_of(rule, n, i) for i in sorted(rows)]
    lines = ",\n".join("  " + json.dumps(row) for row in table)
    print('{"columns": ' + json.dumps(COLUMNS) + ',\n "rows": [\n' + lines + "\n]}")


main()
