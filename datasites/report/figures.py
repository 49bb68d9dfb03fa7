"""What the pictures of the privacy report show, with the sentence that says the same."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

from datasites.node.web.charts import Bar, Picture, plot_bars, plot_steps
from datasites.report import words
from datasites.report.facts import PopulationReport, StudyReport
from datasites.study.text import delta_text, epsilon_text

_MOST_STUDIES = 12
_LONGEST_NAME = 24


def pictures(populations: Sequence[PopulationReport], studies: Sequence[StudyReport]) -> tuple[Picture, ...]:
    """Return one picture of the budget over time per population, and one of all studies side by side."""
    drawn = [_over_time(population) for population in populations if len(population.timeline) > 1]
    if studies:
        drawn.append(_by_study(studies[-_MOST_STUDIES:]))
    return tuple(drawn)


def _over_time(population: PopulationReport) -> Picture:
    points = population.timeline
    svg = plot_steps(
        [dt.datetime.fromisoformat(point.at) for point in points],
        (
            ("spent", [_number(point.epsilon_spent) for point in points]),
            ("with what is promised", [_number(point.epsilon_promised_and_spent) for point in points]),
            ("cap", [_number(point.epsilon_cap) for point in points]),
        ),
        unit="epsilon",
    )
    cap = population.cap
    limit = f"cap ε {epsilon_text(cap.value)} at δ {delta_text(cap.delta)}" if cap else "no cap"
    return Picture(
        name=f"{population.name}.svg",
        svg=svg,
        caption=f"Epsilon of {population.name} after every entry of the ledger "
        f"({limit}; {words.LEDGER}; {words.ADJACENCY}).",
        alternative=f"Step chart of epsilon over time for {population.name}: spent "
        f"{epsilon_text(population.spent.value)}, with what is promised "
        f"{epsilon_text(population.promised_and_spent.value)}, {limit}.",
    )


def _by_study(studies: Sequence[StudyReport]) -> Picture:
    bars = [
        Bar(
            name=s.study if len(s.study) <= _LONGEST_NAME else f"{s.study[: _LONGEST_NAME - 1]}…",
            value=_number(s.spent.value),
            whole=_number(s.worst_case.value),
            text=f"{epsilon_text(s.spent.value)} of {epsilon_text(s.worst_case.value)}",
        )
        for s in studies
    ]
    deltas = ", ".join(delta_text(delta) for delta in sorted({study.spent.delta for study in studies}))
    numbers = "; ".join(
        f"{s.study}: {epsilon_text(s.spent.value)} spent of {epsilon_text(s.worst_case.value)}" for s in studies
    )
    return Picture(
        name="studies.svg",
        svg=plot_bars(bars, unit="epsilon: spent (dark) of the worst case that was approved (light)"),
        caption=f"Epsilon by study at δ {deltas} ({words.PLD}; {words.ADJACENCY}).",
        alternative=f"Bar chart of epsilon by study: {numbers}.",
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value
