"""Every chart of pages and reports: lines, steps, bars and marks.

Pages are drawn anew at every look, inside a daemon. So :func:`lines`, :func:`steps` and :func:`bar` write SVG
themselves, without script or inline style; the colours are in ``pages.css``. Reports are drawn in a process of their
own, by matplotlib (the functions that begin with ``plot``). Measured on two cores: importing matplotlib takes 1.2 s and
42 MiB, and each of its charts 235 ms; a chart of nine lines over 30 rounds takes 2 ms here.

Every chart has a text that says the same to people who do not see it.
"""

from __future__ import annotations

import datetime as dt
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from datasites.language import current, tr
from datasites.language.formats import short, significant
from datasites.node.web.fonts import charted, printable

_WIDTH, _HEIGHT = 640, 224
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


def series_of(found: Mapping[str, Sequence[tuple[int, float]]]) -> list[Series]:
    """Return one line a name, in the order of ``found``."""
    return [Series(name=name, points=tuple(points)) for name, points in found.items()]


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
        title: of the chart; screen readers read it with the newest values.
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
    newest = "; ".join(f"{one.name} {significant(one.last, 3)}" for one in series)
    label = tr(
        "{title}, {unit}, round {first} to {last}. Newest: {newest}",
        title=title,
        unit=unit,
        first=frame.first,
        last=frame.last,
        newest=newest,
    )
    parts = [*frame.grid(), *frame.rounds(), *(frame.line(index, one) for index, one in enumerate(series))]
    return Chart(title=title, note=note, unit=unit, picture=_svg(label, parts), series=tuple(series))


def steps(points: Sequence[tuple[dt.datetime, float]], *, label: str, limit: float, limit_text: str) -> Markup:
    """Draw a value over time, after each of several events, under a dashed limit; infinite values are left out.

    Args:
        points: the moment of each event, oldest first, and the value after it.
        label: what screen readers read.
        limit: where the dashed line is.
        limit_text: stands at the line.
    """
    drawn_points = [(when, value) for when, value in points if math.isfinite(value)]
    finite = [value for _, value in drawn_points]
    high = _nice(max([*finite, limit if math.isfinite(limit) else 0.0, 1e-9]))
    frame = _Frame(first=0, last=1000, low=0.0, high=high)
    y = frame.y(min(limit, high))
    places = _places([when for when, _ in drawn_points])
    path = f"M{_LEFT:.1f} {_BOTTOM:.1f}" + "".join(
        f"H{frame.x(place):.1f}V{frame.y(value):.1f}" for place, value in zip(places, finite, strict=True)
    )
    path += f"H{_RIGHT:.1f}" if finite else ""
    drawn = [f'<path class="area" d="{path}V{_BOTTOM:.1f}Z"/>', f'<path class="curve" d="{path}"/>'] if finite else []
    mark = [
        f'<line class="cap dashed" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
        _text(_RIGHT, y - 6 if y > _TOP + 12 else y + 16, limit_text, "end"),
    ]
    return _svg(label, [*frame.grid(), *drawn, *mark, *_dates([when for when, _ in drawn_points])])


def _places(times: Sequence[dt.datetime]) -> list[int]:
    """Return where each moment lies, from 0 to 900: the last value goes on to the right edge."""
    if not times or times[-1] <= times[0]:
        return [900 * number // max(len(times), 1) for number in range(len(times))]
    return [round(900 * ((when - times[0]) / (times[-1] - times[0]))) for when in times]


def _dates(times: Sequence[dt.datetime]) -> list[str]:
    """Return the time axis: the first day, and the last; of one day also the hours of the first and last moment."""
    if not times:
        return []
    first, last = short(times[0]), short(times[-1])
    if first == last:
        begin, close = (f"{when.astimezone(dt.UTC):%H:%M}" for when in (times[0], times[-1]))
        first, last = (f"{first}, {begin}", f"{close} UTC") if begin != close else [f"{first}, {begin} UTC"] * 2
    shown = [_text(_LEFT, _BOTTOM + 18, first, "start")]
    end = _LEFT + 0.9 * (_RIGHT - _LEFT)
    return shown if first == last else [*shown, _text(end, _BOTTOM + 18, last, "middle")]


def bar(
    parts: Sequence[tuple[str, float]], *, label: str, limit: float, limit_text: str, texts: tuple[str, str]
) -> Markup:
    """Draw one bar of several parts and a limit.

    Args:
        parts: the style and the finite length of each part, from the left.
        label: what screen readers read.
        limit: where the limit is marked, finite, in the unit of the parts.
        limit_text: stands above the mark.
        texts: below the start and below the end of the bar.
    """
    total = sum(length for _, length in parts)
    scale = (_WIDTH - 16) / max(limit, total) / 1.08
    drawn, x = [f'<rect class="left" x="8" y="26" width="{limit * scale:.1f}" height="34"/>'], 8.0
    for style, length in parts:
        drawn.append(f'<rect class="{style}" x="{x:.1f}" y="26" width="{max(length * scale, 1):.1f}" height="34"/>')
        x += length * scale
    mark = 8 + limit * scale
    drawn += [
        f'<line class="cap" x1="{mark:.1f}" x2="{mark:.1f}" y1="16" y2="70"/>',
        _text(mark, 13, limit_text, "end"),
        _text(8, 86, texts[0], "start"),
        _text(min(x, _WIDTH - 8), 86, texts[1], "end" if x > 248 else "start"),
    ]
    return _svg(label, drawn, height=92)


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
        for value in _ticks(self.low, self.high):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(_text(_LEFT - 6, y + 4, significant(value, 3), "end"))
        return parts

    def rounds(self) -> list[str]:
        every = max(1, math.ceil((self.last - self.first) / 10))
        numbers = range(self.first, self.last + 1, every)
        return [_text(self.x(number), _BOTTOM + 18, str(number), "middle") for number in numbers]

    def line(self, index: int, series: Series) -> str:
        places = [(self.x(number), self.y(value)) for number, value in series.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dots = "".join(f'<circle class="{_style(index)}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in places)
        return f'<polyline class="{_style(index)}" points="{path}"/>' + (dots if len(places) <= _MOST_DOTS else "")


def _style(index: int) -> str:
    return f"s{index % _STYLES}" + (" second" if index >= _STYLES else "")


def _nice(value: float) -> float:
    """Return the next of 1, 1.5, 2, 3, 4, 5, 6, 8 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if n * power >= value * 0.9999)


def _ticks(low: float, high: float) -> list[float]:
    """Return at most seven round numbers from ``low`` to ``high``, evenly apart: 0, 5, 10 and 15 for 0 to 15."""
    least = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(least))
    step = next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= least * 0.9999)
    return [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{Markup.escape(text)}</text>'


def _svg(label: str, parts: Sequence[str], *, height: int = _HEIGHT) -> Markup:
    head = f'<svg class="picture" role="img" viewBox="0 0 {_WIDTH} {height}" aria-label="{Markup.escape(label)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")  # noqa: S704 - numbers, and text escaped above


# what reports draw, with matplotlib

_INK, _SPENT, _PROMISED, _CAP, _GRID = "#1d2b36", "#0b6b66", "#8a5a00", "#a3262a", "#d9dee2"
_COLOURS = ("#0b6b66", "#8a5a00", "#3d5a98", "#98202a", "#5b7a1e", "#7b4a8b", "#1d2b36", "#b3541e", "#3f8ea3")
_DASHES = ("-", "--", ":")
_STEPS: tuple[dict[str, Any], ...] = (
    {"color": _SPENT, "linewidth": 2.2, "marker": "o", "markersize": 3.5},
    {"color": _PROMISED, "linewidth": 1.6, "linestyle": (0, (4, 2))},
    {"color": _CAP, "linewidth": 1.6, "linestyle": (0, (1, 1))},
)
# how a date is written, by the step of the axis: year, month, day, hour, minute, second
_TIMES = ["%H:%M", "%H:%M", "%H:%M:%S"]
_DATES = {
    "en": ["%Y", "%b %Y", "%d %b", *_TIMES],
    "de": ["%Y", "%m.%Y", "%d.%m.", *_TIMES],
    "fr": ["%Y", "%m/%Y", "%d/%m", *_TIMES],
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One drawn SVG of a report, its caption, and the text for people who do not see it."""

    name: str
    svg: bytes
    caption: str
    alternative: str


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of :func:`plot_bars`: ``whole`` is drawn light behind it, ``mark`` as a line across it."""

    name: str
    value: float
    text: str
    whole: float | None = None
    mark: float | None = None


def plot_lines(
    series: Sequence[Series], *, unit: str, height: float = 3.1, level: float | None = None, top: float | None = None
) -> bytes:
    """Draw lines over rounds, with a legend where there are several, and a dotted line at ``level``."""
    with charted([unit, *(one.name for one in series)]):
        figure, axes = _axes(height)
        for index, one in enumerate(series):
            dash = _DASHES[index // len(_COLOURS) % len(_DASHES)]
            style = {"color": _COLOURS[index % len(_COLOURS)], "linestyle": dash, "linewidth": 1.8}
            name = printable(one.name)
            axes.plot(*zip(*one.points, strict=True), label=name, marker="o", markersize=3, **style)
        if level is not None:
            axes.axhline(level, color=_CAP, linestyle=":", linewidth=1.2)
        if top is not None:
            axes.set_ylim(0, top)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.2))
        _over_rounds(axes, unit)
        return _drawn(figure)


def plot_steps(
    times: Sequence[dt.datetime], series: Sequence[tuple[str, Sequence[float]]], *, unit: str, axis: str
) -> bytes:
    """Draw up to three values that change at certain times; the area between the first two is shaded."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    figure, axes = _axes(3.1)
    axes.fill_between(times, series[0][1], series[1][1], step="post", color=_PROMISED, alpha=0.18, linewidth=0)
    for (name, values), style in zip(series, _STEPS, strict=False):
        axes.step(times, values, where="post", label=name, **style)
    axes.set_ylabel(unit)
    axes.set_xlabel(axis)
    axes.set_ylim(bottom=0)
    locator: Any = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    dates = _DATES.get(current(), _DATES["en"])
    zeros = ["", *dates[:2], dates[2], *dates[4:]]
    formatter: Any = ConciseDateFormatter(locator, formats=dates, zero_formats=zeros)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
    axes.legend(loc="upper left", frameon=False, ncols=3, bbox_to_anchor=(0, 1.16))
    return _drawn(figure)


def plot_bars(bars: Sequence[Bar], *, unit: str) -> bytes:
    """Draw bars below each other, the first on top, each with its text at its end."""
    with charted([unit, *(one.name for one in bars)]):
        figure, axes = _axes(0.9 + 0.4 * len(bars))
        for row, one in enumerate(reversed(bars)):
            end = one.value if one.whole is None else one.whole
            axes.barh(row, end, height=0.56, color=_PROMISED, alpha=0.28)
            axes.barh(row, one.value, height=0.56, color=_SPENT)
            if one.mark is not None:
                axes.plot([one.mark] * 2, [row - 0.36, row + 0.36], color=_PROMISED, linewidth=2.4)
            axes.text(end, row, f"  {one.text}", va="center", color=_INK, fontsize=9)
        axes.set_yticks(range(len(bars)), [printable(one.name) for one in reversed(bars)])
        axes.xaxis.set_major_formatter(_number)
        axes.set_xlabel(unit)
        axes.margins(x=0.2)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        return _drawn(figure)


def plot_presence(rows: Sequence[tuple[str, Sequence[tuple[int, bool]]]]) -> bytes:
    """Draw one row a name and one mark a round: a square where the name was present, a cross where it was not."""
    with charted(name for name, _ in rows):
        figure, axes = _axes(0.9 + 0.26 * len(rows))
        axes.grid(visible=False)
        for row, (_, marks) in enumerate(reversed(rows)):
            for number, here in marks:
                axes.plot(number, row, marker="s" if here else "x", color=_SPENT if here else _CAP, markersize=6)
        axes.set_yticks(range(len(rows)), [printable(name) for name, _ in reversed(rows)])
        _over_rounds(axes, "")
        return _drawn(figure)


def _number(value: float, _: float) -> str:
    return significant(value, 6)


def _axes(height: float) -> tuple[Any, Any]:
    """Return a matplotlib figure of the page's width and of ``height`` inches, and its axes."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#6b7a86")
    axes.tick_params(colors=_INK, labelsize=9)
    axes.grid(axis="both", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_formatter(_number)
    return figure, axes


def _over_rounds(axes: Any, unit: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(tr("round"))
    axes.set_ylabel(unit)


def _drawn(figure: Any) -> bytes:
    """Return a figure as SVG with the text as outlines; the same figure gives the same bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "tessera", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
