"""Pictures as SVG text, without a plotting library: heat maps of spans, and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import numpy as np

from .density import kv_density
from .schema import Plan
from .span import Floats, spans

#: Colours of series, told apart by colour-blind readers too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
#: Pixels that the title of a heat map's panel takes at most.
_TITLE = 200.0
_FONT = 'font-family="sans-serif" font-size="11"'


def _document(width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">\n<rect width="100%" height="100%" '
        'fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", turn: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {_FONT}{turn}>'
        f"{escape(text)}</text>"
    )


def _upright(y: float, text: str) -> str:
    return _text(14, y, text, turn=f' transform="rotate(-90 14 {y:.1f})"')


def _shade(share: float) -> str:
    """White for nothing, dark blue for all."""
    low, high = np.array([247, 251, 255]), np.array([8, 48, 107])
    mixed = np.round(low + (high - low) * min(max(share, 0.0), 1.0)).astype(int)
    return "#" + "".join(f"{part:02x}" for part in mixed)


def heat_map(plan: Plan, lengths: Sequence[int], kv_heads: int) -> str:
    """Span over length, layer by head: a panel a length, KV heads parted by lines."""
    cell = max(min(12.0, 480 / plan.q_heads), 3.0)
    wide, high = cell * plan.q_heads, cell * plan.layers
    left, top, step = 46.0, 34.0, max(wide + 24.0, _TITLE)
    parts = [_upright(top + high / 2, "layer")]
    for panel, n in enumerate(lengths):
        x0 = left + panel * step
        shares = spans(plan.alphas, plan.betas, n, plan.layer_spans) / n
        density = kv_density(plan, kv_heads, n)
        parts.append(_text(x0, 16, f"N = {n}, KV density {density:.3f}", "start"))
        for (layer, head), share in np.ndenumerate(shares):
            parts.append(
                f'<rect x="{x0 + head * cell:.1f}" y="{top + layer * cell:.1f}" '
                f'width="{cell:.1f}" height="{cell:.1f}" fill="{_shade(share)}">'
                f"<title>layer {layer}, head {head}: {share:.3f}</title></rect>"
            )
        for head in range(0, plan.q_heads + 1, plan.q_heads // kv_heads):
            x = x0 + head * cell
            parts.append(
                f'<path d="M{x:.1f} {top:.1f}v{high:.1f}" stroke="#888" stroke-width="0.6"/>'
            )
        parts.append(_text(x0 + wide / 2, top + high + 16, "query head"))
    for layer in range(0, plan.layers, max(plan.layers // 8, 1)):
        parts.append(_text(left - 5, top + (layer + 0.8) * cell, str(layer), "end"))
    width = left + len(lengths) * step
    parts.append(_key(left, top + high + 30))
    return _document(max(width, 260), top + high + 56, parts)


def _key(x: float, y: float) -> str:
    boxes = [
        f'<rect x="{x + 80 + i * 12}" y="{y}" width="12" height="10" fill="{_shade(i / 10)}"/>'
        for i in range(11)
    ]
    ends = _text(x + 76, y + 9, "span / N: 0", "end") + _text(x + 218, y + 9, "1", "start")
    return "".join(boxes) + ends


def chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str, x: str,
    y: str, marks: bool = False, log_x: bool = False,
) -> str:  # fmt: skip
    """Lines, or with `marks` points, of named (xs, ys) on common axes; their names below
    each other."""
    width, left, top, right, bottom = 520.0, 64.0, 30.0, 16.0, 48.0 + 14 * len(series)
    height = 258 + bottom
    xs = np.concatenate([np.asarray(each[0], dtype=float) for each in series.values()])
    ys = np.concatenate([np.asarray(each[1], dtype=float) for each in series.values()])
    place_x = _Axis(np.log2(xs) if log_x else xs, left, width - right)
    place_y = _Axis(np.append(ys, 0.0) if ys.min() >= 0 else ys, height - bottom, top)
    parts = [_text(width / 2, 18, title), _text(width / 2, height - bottom + 32, x)]
    parts.append(_upright((top + height - bottom) / 2, y))
    parts.append(
        f'<path d="M{left} {top}V{height - bottom}H{width - right}" fill="none" stroke="#444"/>'
    )
    for value in place_x.ticks():
        shown = 2**value if log_x else value
        parts.append(_text(place_x(value), height - bottom + 14, f"{shown:.4g}"))
    for value in place_y.ticks():
        parts.append(_text(left - 6, place_y(value) + 4, f"{value:.3g}", "end"))
    for i, (name, (each_x, each_y)) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        at = np.log2(each_x) if log_x else np.asarray(each_x, dtype=float)
        points = [(place_x(float(px)), place_y(float(py))) for px, py in zip(at, each_y)]
        if marks:
            parts += [
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>'
                for a, b in points
            ]
        else:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
            )
        line = height - bottom + 50 + 14 * i
        parts.append(
            f'<rect x="{left}" y="{line - 8:.1f}" width="9" height="9" fill="{colour}"/>'
        )
        parts.append(_text(left + 13, line, name, "start"))
    return _document(width, height, parts)


class _Axis:
    """Maps values to places on one axis."""

    def __init__(self, values: Floats, first: float, last: float) -> None:
        self.low, self.high = float(values.min()), float(values.max())
        if self.high <= self.low:
            self.high = self.low + 1
        self.first, self.last = first, last

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.first + share * (self.last - self.first)

    def ticks(self) -> list[float]:
        return [float(value) for value in np.linspace(self.low, self.high, 5)]
