"""What the pictures of the privacy report show, with the sentence that says the same."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

from datasites.language import tr
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
            (tr("spent"), [_number(point.epsilon_spent) for point in points]),
            (tr("with what is promised"), [_number(point.epsilon_promised_and_spent) for point in points]),
            (tr("cap"), [_number(point.epsilon_cap) for point in points]),
        ),
        unit=tr("epsilon"),
        axis=tr("time (UTC)"),
    )
    cap = population.cap
    limit = tr("cap {bound}", bound=words.bound(cap)) if cap else tr("no cap")
    return Picture(
        name=f"{population.name}.svg",
        svg=svg,
        caption=tr(
            "Epsilon of {population} after every entry of the ledger ({limit}; {accountant}; {adjacency}).",
            population=population.name,
            limit=limit,
            accountant=words.filter_name(),
            adjacency=words.adjacency(),
        ),
        alternative=tr(
            "Step chart of epsilon over time for {population}: spent {spent}, with what is promised {promised}, "
            "{limit}.",
            population=population.name,
            spent=epsilon_text(population.spent.value),
            promised=epsilon_text(population.promised_and_spent.value),
            limit=limit,
        ),
    )


def _by_study(studies: Sequence[StudyReport]) -> Picture:
    bars = [
        Bar(
            name=s.study if len(s.study) <= _LONGEST_NAME else f"{s.study[: _LONGEST_NAME - 1]}…",
            value=_number(s.spent.value),
            whole=_number(s.worst_case.value),
            text=tr("{spent} of {worst}", **_pair(s)),
        )
        for s in studies
    ]
    deltas = ", ".join(delta_text(delta) for delta in sorted({study.spent.delta for study in studies}))
    numbers = "; ".join(tr("{study}: {spent} spent of {worst}", study=s.study, **_pair(s)) for s in studies)
    return Picture(
        name="studies.svg",
        svg=plot_bars(bars, unit=tr("epsilon: spent (dark) of the worst case that was approved (light)")),
        caption=tr(
            "Epsilon by study at δ {deltas} ({accountant}; {adjacency}).",
            deltas=deltas,
            accountant=words.pld(),
            adjacency=words.adjacency(),
        ),
        alternative=tr("Bar chart of epsilon by study: {numbers}.", numbers=numbers),
    )


def _pair(study: StudyReport) -> dict[str, object]:
    return {"spent": epsilon_text(study.spent.value), "worst": epsilon_text(study.worst_case.value)}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
