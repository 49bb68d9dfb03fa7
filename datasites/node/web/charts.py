"""Lines over rounds as inline SVG: no script, no inline style, no foreign file; the page gives the numbers as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 632.0, 12.0, 196.0
_STYLES = 9
_MOST_DOTS = 40


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: its name and its finite values by round."""

    name: str
    points: tuple[tuple[int, float], ...]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawn chart with what its legend needs; ``series`` are in the order of the styles."""

    title: str
    note: str
    unit: str
    picture: Markup
    series: tuple[Series, ...]


def lines(series: Sequence[Series], *, title: str, unit: str, note: str = "", top: float | None = None) -> Chart:
    """Draw lines over rounds.

    Args:
        series: at least one, each with at least one point.
        title: of the chart, also read out by screen readers with the newest values.
        unit: of the vertical axis.
        note: a sentence below the title.
        top: the largest value of the axis; None takes what the values need.
    """
    values = [value for one in series for _, value in one.points]
    rounds = [number for one in series for number, _ in one.points]
    frame = _Frame(
        first=min(rounds),
        last=max(rounds),
        low=min(0.0, *values),
        high=_nice(max(*values, 1e-9)) if top is None else top,
    )
    newest = "; ".join(f"{one.name} {one.last:.3g}" for one in series)
    label = Markup.escape(f"{title}, {unit}, round {frame.first} to {frame.last}. Newest: {newest}")
    parts = [*frame.grid(), *(frame.line(index, one) for index, one in enumerate(series))]
    svg = f'<svg class="picture lines" role="img" viewBox="0 0 640 224" aria-label="{label}">{"".join(parts)}</svg>'
    picture = Markup(svg)  # noqa: S704 - numbers, and text escaped above
    return Chart(title=title, note=note, unit=unit, picture=picture, series=tuple(series))


def swatch(index: int) -> Markup:
    """Return the little line that stands before a name in a legend."""
    line = f'<line class="{_style(index)}" x1="1" y1="6" x2="27" y2="6"/>'
    return Markup(f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true">{line}</svg>')  # noqa: S704 - our own


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Where rounds and values lie on the picture."""

    first: int
    last: int
    low: float
    high: float

    def x(self, number: int) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (number - self.first) / max(self.last - self.first, 1)

    def y(self, value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (value - self.low) / (self.high - self.low)

    def grid(self) -> list[str]:
        parts = []
        for step in range(5):
            value = self.low + (self.high - self.low) * step / 4
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
        return parts + [
            f'<text x="{self.x(number):.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{number}</text>'
            for number in _ticks(self.first, self.last)
        ]

    def line(self, index: int, series: Series) -> str:
        places = [(self.x(number), self.y(value)) for number, value in series.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dots = "".join(f'<circle class="{_style(index)}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in places)
        return f'<polyline class="{_style(index)}" points="{path}"/>' + (dots if len(places) <= _MOST_DOTS else "")


def _style(index: int) -> str:
    return f"s{index % _STYLES}" + (" second" if index >= _STYLES else "")


def _ticks(first: int, last: int) -> list[int]:
    step = max(1, math.ceil((last - first) / 10))
    return list(range(first, last + 1, step))


def _nice(value: float) -> float:
    """Return the next of 1, 1.5, 2, 3, 4, 5, 6, 8 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if n * power >= value * 0.9999)
