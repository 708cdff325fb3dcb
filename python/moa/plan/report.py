"""One self-contained HTML page about a run: what was profiled, planned and measured.

Pictures are inline SVG; nothing is loaded from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .curves import Curves, load_profile
from .errors import PlannerError
from .plot import chart, heat_map
from .runfolder import RunFolder, read_lines
from .schema import Plan, load_plan
from .show import describe
from .span import Floats

_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 }
td, th { border: 1px solid #ccc; padding: .25em .6em; text-align: right }
td:first-child, th:first-child { text-align: left }
pre { background: #f5f5f5; padding: .8em; overflow-x: auto }
figure { margin: 1em 0; overflow-x: auto }
figcaption { color: #444 }
"""


def write_report(folder: RunFolder) -> Path:
    """Writes report.html of a run; PlannerError where nothing was profiled yet."""
    from .jsontext import write_atomically

    path = folder / "report.html"
    write_atomically(path, build(folder))
    return path


def build(folder: RunFolder) -> str:
    """The page. Parts whose files are not there yet are left out."""
    record = folder.record()
    profile = load_profile(folder.path)
    plans = {path.stem: load_plan(path) for path in sorted((folder / "plans").glob("*.json"))}
    chosen = load_plan(folder / "plan.json") if (folder / "plan.json").exists() else None
    shown = chosen or next(iter(plans.values()), None)
    kv_heads = profile.any.kv_heads
    lengths = list(profile.curves)
    parts = [_facts(record, profile.curves)]
    if shown is not None:
        parts.append(_section("Plan", _plan(shown, lengths, kv_heads, chosen is not None)))
    parts.append(_section("Validation", _validation(folder)))
    parts.append(_section("Retrieval", _retrieval(folder)))
    parts.append(_section("Pareto set", _pareto(plans, shown)))
    parts.append(_section("What windows cost", "".join(map(_curves, profile.curves.values()))))
    parts.append(_section("Influence by entry", _entries(folder, lengths)))
    parts.append(_section("Predicted and true change of loss", _accuracy(folder, lengths)))
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Plan of {escape(_name(record))}</title><style>{_STYLE}</style></head>"
        f"<body>\n{body}\n</body></html>\n"
    )


def _name(record: Mapping[str, Any]) -> str:
    return Path(record.get("profile", {}).get("options", {}).get("model", "a model")).name


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}" if content else ""


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return (
        "<table>" + _line("th", head) + "".join(_line("td", row) for row in rows) + "</table>\n"
    )


def _line(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _facts(record: Mapping[str, Any], curves: Mapping[int, Curves]) -> str:
    told = record.get("profile", {})
    first = next(iter(curves.values()))
    rows = [
        ("lengths", ", ".join(f"{n} ({c.items} items)" for n, c in curves.items())),
        ("estimator", first.estimator),
        ("layers, query heads, KV heads", f"{first.layers}, {first.q_heads}, {first.kv_heads}"),
        ("sink, block", f"{first.sink}, {first.block} tokens"),
        *((key, str(value)) for key, value in told.get("versions", {}).items()),
        *((key, str(value)) for key, value in told.get("model", {}).items()),
    ]
    options = escape(json.dumps(told.get("options", {}), indent=1))
    return (
        f"<h1>Plan of {escape(_name(record))}</h1>\n{_table(('', ''), rows)}"
        f"<details><summary>options</summary><pre>{options}</pre></details>"
    )


def _plan(plan: Plan, lengths: list[int], kv_heads: int, chosen: bool) -> str:
    text = escape(
        describe(plan, "plan.json" if chosen else "best predicted", None, lengths, "bf16")
    )
    caption = "Span of each head as a share of the length; lines part KV heads."
    return f"<pre>{text}</pre>" + _figure(heat_map(plan, lengths, kv_heads), caption)


def _tables(folder: RunFolder) -> dict[int, list[dict[str, Any]]]:
    found = {}
    for path in sorted((folder / "validate").glob("*-table.json")):
        try:
            found[int(path.stem.removesuffix("-table"))] = json.loads(path.read_text())
        except ValueError:
            raise PlannerError(f"{path}: is not a table of scores; validate again") from None
    return dict(sorted(found.items()))


def _mean(value: Mapping[str, Any]) -> str:
    from .verdict import Mean

    return str(Mean.read(value))


def _validation(folder: RunFolder) -> str:
    head = (
        "plan", "KV density", "query density", "first", "exact", "margin (SE)",
        "margin - dense", "CE - dense", "prefill", "by",
    )  # fmt: skip
    text = ""
    for length, table in _tables(folder).items():
        rows = [
            (
                row["plan"],
                f"{row['kv_density']:.3f}",
                f"{row['query_density']:.3f}",
                f"{row['first']}/{row['retrieval']}",
                f"{row['exact']}/{row['retrieval']}",
                _mean(row["margin"]),
                _mean(row["margin_change"]),
                _mean(row["ce_change"]),
                "sparse" if row["sparse_prefill"] else "dense",
                row["engine"] if row["sparse_prefill"] else "masked",
            )
            for row in table
        ]
        counts = f"{max(row['retrieval'] for row in table)} items of retrieval, "
        counts += f"{max(row['ce']['n'] for row in table)} of text; nats, standard errors"
        text += f"<h3>{length} tokens: {counts}</h3>{_table(head, rows)}"
    return text


def _retrieval(folder: RunFolder) -> str:
    """Counts of first places by plan and depth, a grid for each length."""
    text = ""
    for length, table in _tables(folder).items():
        names = {row["plan_id"]: row["plan"] for row in table}
        cells: dict[str, dict[int, list[bool]]] = {}
        for line in read_lines(folder / f"validate/{length}.jsonl"):
            if line["margin"] is not None and line["id"] in names:
                tenth = min(9, int(10 * (line["depth"] or 0)))
                row = cells.setdefault(names[line["id"]], {})
                row.setdefault(tenth, []).append(line["margin"] > 0)
        if not cells:
            continue
        columns = sorted({tenth for row in cells.values() for tenth in row})
        shares = np.array(
            [[np.mean(row.get(c, [np.nan])) for c in columns] for row in cells.values()]
        )
        labels = [
            [f"{sum(row.get(c, []))}/{len(row.get(c, []))}" for c in columns]
            for row in cells.values()
        ]
        text += _figure(
            grid(shares, list(cells), [f".{c}" for c in columns], labels),
            f"{length} tokens: items whose right answer comes first, by depth of the needle "
            "(0 is just behind the sink).",
        )
    return text


def _pareto(plans: Mapping[str, Plan], chosen: Plan | None) -> str:
    predicted = {
        name: plan.document.get("scores", {}).get("predicted", {})
        for name, plan in plans.items()
    }
    keys = sorted({key for each in predicted.values() for key in each}, key=int)
    if len(keys) < 2 or len(plans) < 2:
        return ""
    low, high = keys[0], keys[-1]
    known = [name for name in plans if {low, high} <= predicted[name].keys()]
    series = {
        name: ([float(predicted[name][low])], [float(predicted[name][high])]) for name in known
    }
    same = [
        name
        for name in known
        if chosen is not None
        and (plans[name].alphas == chosen.alphas).all()
        and (plans[name].betas == chosen.betas).all()
    ]
    picture = chart(
        series, title="predicted loss", x=f"at {low} tokens", y=f"at {high} tokens", marks=True
    )
    return _figure(picture, f"Chosen: {', '.join(same) or 'none of them'}.")


def _curves(curves: Curves) -> str:
    """The costliest, the median and the cheapest KV head, and all layers as a map."""
    group = curves.q_heads // curves.kv_heads
    heads = curves.curve.reshape(curves.layers, curves.kv_heads, group, -1).sum(2)
    total = heads[..., 1:].sum(-1).ravel()
    order = np.argsort(-total)
    picks = {"costliest": order[0], "median": order[len(order) // 2], "cheapest": order[-1]}
    windows = curves.sink + curves.block * np.arange(heads.shape[-1])
    series = {}
    for name, at in picks.items():
        layer, head = divmod(int(at), curves.kv_heads)
        curve = heads[layer, head, 1:]
        series[f"{name}: layer {layer}, KV head {head}"] = (
            windows[1:].tolist(),
            curve.tolist(),
        )
    lines = chart(series, title=f"{curves.length} tokens", x="span, tokens", y="loss")
    layers = heads.sum(1)[:, 1:]
    names = [str(layer) for layer in range(curves.layers)]
    spans = [str(w) if i % 4 == 0 else "" for i, w in enumerate(windows[1:])]
    rows = grid(np.sqrt(layers / max(float(layers.max()), 1e-30)), names, spans)
    return _figure(lines, "Predicted loss of a head over its span.") + _figure(
        rows,
        f"{curves.length} tokens: loss of a layer (square root) over the span of its heads.",
    )


def _entries(folder: RunFolder, lengths: Sequence[int]) -> str:
    """Mean |E| over heads of the first item of each length, where it was kept."""
    text = ""
    for length in lengths:
        path = folder / f"profile/{length}/item-0000.npz"
        if not path.exists():
            continue
        with np.load(path, allow_pickle=False) as item:
            if "entries" not in item.files:
                continue
            entries = item["entries"].mean((0, 1))
        shades = np.log1p(entries) / max(float(np.log1p(entries).max()), 1e-30)
        names = ["" for _ in range(len(entries))]
        text += _figure(
            grid(shades, names, names, cell=8),
            f"{length} tokens, first item: influence of keys (across) on rows (down), blocks "
            "of entries, logarithmic.",
        )
    return text


def _accuracy(folder: RunFolder, lengths: Sequence[int]) -> str:
    text = ""
    for length in lengths:
        path = folder / f"profile/{length}/check.json"
        if not path.exists():
            continue
        check = json.loads(path.read_text(encoding="utf-8"))
        series = {
            name: ([p["true"] for p in check["pairs"]], [p[name] for p in check["pairs"]])
            for name in ("dense", "midpoint", "signed")
        }
        picture = chart(
            series, title=f"{length} tokens", x="true change, nats", y="predicted", marks=True
        )
        found = check["correlations"]["signed"]
        shown = {k: "none" if v is None else f"{v:.2f}" for k, v in found.items()}
        text += _figure(
            picture,
            f"{check['correlations']['pairs']} random windows; signed is the mean of both "
            f"points: correlation {shown['pearson']}, of ranks {shown['spearman']}, sum of "
            f"predictions over truth {shown['predicted_over_true']}.",
        )
    return text


def grid(
    shades: Floats,
    rows: Sequence[str],
    columns: Sequence[str],
    labels: Sequence[Sequence[str]] | None = None,
    cell: int = 0,
) -> str:
    """Cells from white (0) to blue (1), grey where there is none, as SVG."""
    wide = cell or (46 if labels else 16)
    high = cell or (20 if labels else 9)
    left = 8 + 7 * max((len(row) for row in rows), default=0)
    parts = []
    for (i, j), shade in np.ndenumerate(shades):
        x, y = left + j * wide, 20 + i * high
        colour = "#bbb"
        if np.isfinite(shade):
            red = round(255 - 200 * float(np.clip(shade, 0, 1)))
            colour = f"rgb({red},{red + (255 - red) // 3},255)"
        parts.append(f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" fill="{colour}"/>')
        if labels:
            parts.append(_label(x + wide / 2, y + 14, labels[i][j], "middle"))
    parts += [
        _label(left - 4, 20 + (i + 0.75) * high, row, "end") for i, row in enumerate(rows)
    ]
    parts += [
        _label(left + (j + 0.5) * wide, 14, column, "middle")
        for j, column in enumerate(columns)
    ]
    width, height = left + len(columns) * wide + 8, 28 + len(rows) * high
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        + "".join(parts)
        + "</svg>"
    )


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-family="sans-serif" '
        f'font-size="10">{escape(text)}</text>'
    )
