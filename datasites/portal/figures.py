"""Pictures as inline SVG: the privacy budget as a bar, and its way over time. No script, no style, no foreign file.

Every picture has a title for screen readers, and the page gives the same numbers as text beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from datasites.portal.context import BudgetLine, CostPreview

_WIDTH, _BAR, _LEFT, _RIGHT = 640.0, 34.0, 8.0, 632.0


def cost_picture(cost: CostPreview) -> Markup:
    """Return the budget as one bar: spent before, added by this study at its worst, left, with the cap marked."""
    known = [v for v in (cost.before, cost.after) if math.isfinite(v)]
    limit = cost.cap if math.isfinite(cost.cap) else max([1.0, *known])
    after = cost.after if math.isfinite(cost.after) else limit * 1.5
    spent = min(cost.before, after)
    scale = (_RIGHT - _LEFT) / max(limit, after, spent) / 1.08
    before, end, cap = spent * scale, after * scale, limit * scale
    added = "added" if cost.fits else "over"
    title = (
        f"Epsilon at delta {cost.delta:g}: {number(cost.before)} before this study, "
        f"{number(cost.after)} after it at its worst, the cap is {number(cost.cap)}"
    )
    parts = [
        f'<rect class="left" x="{_LEFT}" y="26" width="{cap:.1f}" height="{_BAR}"/>',
        f'<rect class="spent" x="{_LEFT}" y="26" width="{before:.1f}" height="{_BAR}"/>',
        f'<rect class="{added}" x="{_LEFT + before:.1f}" y="26" width="{max(end - before, 1):.1f}" height="{_BAR}"/>',
        f'<line class="cap" x1="{_LEFT + cap:.1f}" x2="{_LEFT + cap:.1f}" y1="16" y2="70"/>',
        _text(_LEFT + cap, 13, f"cap {number(cost.cap)}", "end"),
        _text(_LEFT, 86, f"spent {number(cost.before)}", "start"),
        _text(min(_LEFT + end, _RIGHT), 86, f"after {number(cost.after)}", "end" if end > 240 else "start"),
    ]
    return _svg(title, 92, parts)


def timeline_picture(line: BudgetLine) -> Markup:
    """Return epsilon spent after every charge, oldest left, with the cap as a dashed line."""
    points = [p.epsilon for p in line.timeline if math.isfinite(p.epsilon)]
    known = [v for v in (line.cap, line.reserved, *points) if math.isfinite(v)]
    top = max(known, default=1.0) * 1.1 or 1.0
    title = (
        f"Epsilon spent on {line.population} over {len(points)} charges: now {number(line.spent)} of "
        f"{number(line.cap)}, delta {line.delta:g}"
    )
    cap_y = _height(min(line.cap, top), top)
    parts = [
        f'<line class="axis" x1="40" x2="{_RIGHT}" y1="160" y2="160"/>',
        f'<line class="cap dashed" x1="40" x2="{_RIGHT}" y1="{cap_y:.1f}" y2="{cap_y:.1f}"/>',
        _text(_RIGHT, cap_y - 4, f"cap {number(line.cap)}", "end"),
        _text(36, 164, "0", "end"),
        _text(36, _height(top / 1.1, top) + 4, f"{top / 1.1:.3g}", "end"),
    ]
    if points:
        parts += _steps(points, top)
    return _svg(title, 178, parts)


def number(value: float) -> str:
    """Return an epsilon for people; infinite reads as a word."""
    return f"{value:.2f}" if math.isfinite(value) else "infinite"


def _steps(points: Sequence[float], top: float) -> list[str]:
    width = (_RIGHT - 40) / len(points)
    path, x = [f"M40 {_height(0, top):.1f}"], 40.0
    for value in points:
        path.append(f"V{_height(value, top):.1f}")
        x += width
        path.append(f"H{x:.1f}")
    line = " ".join(path)
    return [f'<path class="area" d="{line} V160 H40 Z"/>', f'<path class="curve" d="{line}"/>']


def _height(value: float, top: float) -> float:
    return 160.0 - 140.0 * value / top


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{Markup.escape(text)}</text>'


def _svg(title: str, height: int, parts: Sequence[str]) -> Markup:
    body = "".join(parts)
    return Markup(  # noqa: S704 - numbers, and text escaped above
        f'<svg class="picture" role="img" viewBox="0 0 {_WIDTH:.0f} {height}" aria-label="{Markup.escape(title)}">'
        f"{body}</svg>"
    )
