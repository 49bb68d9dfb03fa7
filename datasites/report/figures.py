"""The pictures of the privacy report, as self-contained SVG with the sentence that says the same."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasites.report import words
from datasites.report.facts import PopulationReport, StudyReport

INK, SPENT, PROMISED, CAP, GRID = "#1d2b36", "#0b6b66", "#8a5a00", "#a3262a", "#d9dee2"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One SVG, its caption and the text for people who do not see it."""

    name: str
    svg: bytes
    caption: str
    alternative: str


def pictures(populations: Sequence[PopulationReport], studies: Sequence[StudyReport]) -> tuple[Picture, ...]:
    """Return one picture of the budget over time per population, and one of all studies side by side."""
    drawn = [_over_time(population) for population in populations if len(population.timeline) > 1]
    if studies:
        drawn.append(_by_study(studies))
    return tuple(drawn)


def _over_time(population: PopulationReport) -> Picture:
    figure, axes = new_axes(3.1)
    times = [dt.datetime.fromisoformat(point.at) for point in population.timeline]
    spent = [_number(point.epsilon_spent) for point in population.timeline]
    promised = [_number(point.epsilon_promised_and_spent) for point in population.timeline]
    caps = [_number(point.epsilon_cap) for point in population.timeline]
    axes.fill_between(times, spent, promised, step="post", color=PROMISED, alpha=0.18, linewidth=0)
    axes.step(
        times,
        promised,
        where="post",
        color=PROMISED,
        linewidth=1.6,
        linestyle=(0, (4, 2)),
        label="with what is promised",
    )
    axes.step(times, spent, where="post", color=SPENT, linewidth=2.2, marker="o", markersize=3.5, label="spent")
    axes.step(times, caps, where="post", color=CAP, linewidth=1.6, linestyle=(0, (1, 1)), label="cap")
    axes.set_ylabel("epsilon")
    axes.set_xlabel("time (UTC)")
    axes.set_ylim(bottom=0)
    _dates(axes)
    axes.legend(loc="upper left", frameon=False, ncols=3, bbox_to_anchor=(0, 1.16))
    cap = population.cap
    limit = f"cap ε {words.number(cap.value)} at δ {words.small(cap.delta)}" if cap else "no cap"
    alternative = (
        f"Step chart of epsilon over time for {population.name}: spent {words.number(population.spent.value)}, with "
        f"what is promised {words.number(population.promised_and_spent.value)}, {limit}."
    )
    return Picture(
        name=f"{population.name}.svg",
        svg=to_svg(figure),
        caption=f"Epsilon of {population.name} after every entry of the ledger "
        f"({limit}; {words.RDP}; {words.ADJACENCY}).",
        alternative=alternative,
    )


def _by_study(studies: Sequence[StudyReport]) -> Picture:
    shown = list(studies)[-12:]
    figure, axes = new_axes(0.9 + 0.42 * len(shown))
    for row, study in enumerate(reversed(shown)):
        axes.barh(row, _number(study.worst_case.value), height=0.56, color=PROMISED, alpha=0.28)
        axes.barh(row, _number(study.spent.value), height=0.56, color=SPENT)
        text = f"{words.number(study.spent.value)} of {words.number(study.worst_case.value)}"
        axes.text(_number(study.worst_case.value), row, f"  {text}", va="center", color=INK, fontsize=9)
    axes.set_yticks(range(len(shown)), [_short(study.study) for study in reversed(shown)])
    axes.set_xlabel("epsilon: spent (dark) of the worst case that was approved (light)")
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    deltas = sorted({study.spent.delta for study in shown})
    alternative = "Bar chart of epsilon by study: " + "; ".join(
        f"{study.study}: {words.number(study.spent.value)} spent of {words.number(study.worst_case.value)}"
        for study in shown
    )
    return Picture(
        name="studies.svg",
        svg=to_svg(figure),
        caption=f"Epsilon by study at δ {', '.join(words.small(d) for d in deltas)} ({words.PLD}; {words.ADJACENCY}).",
        alternative=alternative + ".",
    )


def new_axes(height_inches: float) -> tuple[Any, Any]:
    """Return a matplotlib figure of the page's width and its axes, in the reports' style."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, height_inches), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#6b7a86")
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="both", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


# by the step of the axis: year, month, day, hour, minute, second
_WHEN = ["%Y", "%b %Y", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"]


def _dates(axes: Any) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator: Any = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    zeros = ["", *_WHEN[:2], "%d %b", *_WHEN[4:]]
    formatter: Any = ConciseDateFormatter(locator, formats=_WHEN, zero_formats=zeros)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)


def to_svg(figure: Any) -> bytes:
    """Return a figure as SVG with the text as outlines; the same figure gives the same bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "tessera", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
