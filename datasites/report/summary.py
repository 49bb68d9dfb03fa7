"""The first page of the report: one verdict, four numbers, a few sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from datasites.report import words
from datasites.report.facts import (
    ChainLine,
    DeniedRequest,
    Figure,
    PopulationReport,
    ReleaseLine,
    StudyReport,
    Summary,
    Tone,
)
from datasites.study.text import delta_text, epsilon_text

_STUDIES_IN_FULL = 3


def summarise(
    populations: Sequence[PopulationReport],
    studies: Sequence[StudyReport],
    releases: Sequence[ReleaseLine],
    denied: Sequence[DeniedRequest],
    chains: Sequence[ChainLine],
) -> Summary:
    """Return the summary of the parts of a report."""
    by_hand = [release for release in releases if release.epsilon is None]
    verdict, tone = _verdict(populations, studies, by_hand, chains)
    return Summary(
        verdict=verdict,
        tone=tone,
        sentences=tuple(_sentences(populations, studies, by_hand)),
        figures=_figures(populations, studies, denied, by_hand, chains),
        left=tuple(_left(studies, releases, by_hand)),
        limits=words.limits(
            free_python=any("honest" in w for s in studies for w in s.warnings),
            shared=any(s.without_colluders is not None for s in studies),
        ),
    )


def _verdict(
    populations: Sequence[PopulationReport],
    studies: Sequence[StudyReport],
    by_hand: Sequence[ReleaseLine],
    chains: Sequence[ChainLine],
) -> tuple[str, Tone]:
    if not all(chain.holds for chain in chains):
        return "The records do not verify. Do not rely on the figures of this report before that is cleared up.", "bad"
    if any(w.startswith("NO PRIVACY") for s in studies for w in s.warnings):
        return "This report covers a study without privacy protection, as its watermark says.", "bad"
    if any(_share(p) > 1 + 1e-9 for p in populations):
        return "The privacy budget is overdrawn. Nothing more is computed on these patients.", "bad"
    if by_hand:
        return "The budget was kept, but something was released by hand that no figure here covers.", "watch"
    if any(p.cap is None for p in populations):
        return "Some patients have no cap yet; no study can use their data.", "watch"
    return "The privacy budget was kept, and all records verify.", "good"


def _figures(
    populations: Sequence[PopulationReport],
    studies: Sequence[StudyReport],
    denied: Sequence[DeniedRequest],
    by_hand: Sequence[ReleaseLine],
    chains: Sequence[ChainLine],
) -> tuple[Figure, ...]:
    fullest = max(populations, key=_share, default=None)
    rounds = sum(study.rounds_charged for study in studies)
    holds = all(chain.holds for chain in chains)
    return (
        _budget_figure(fullest),
        Figure(
            label="Studies approved",
            value=str(len(studies)),
            note=f"{rounds} rounds charged; requests or rounds turned down: {len(denied)}",
            tone="good",
        ),
        Figure(
            label="Released without guarantee",
            value=str(len(by_hand)),
            note="by hand, covered by no epsilon" if by_hand else "everything that left has a stated bound",
            tone="watch" if by_hand else "good",
        ),
        Figure(
            label="Records",
            value="verified" if holds else "broken",
            note=f"{sum(chain.entries for chain in chains)} signed entries checked for this report",
            tone="good" if holds else "bad",
        ),
    )


def _budget_figure(population: PopulationReport | None) -> Figure:
    if population is None or population.cap is None:
        return Figure(label="Budget used", value="none", note="no cap is set", tone="watch")
    if population.cap.value is None:
        return Figure(label="Budget used", value="no cap", note="the owner set no limit", tone="bad")
    spent, promised = population.share_spent or 0.0, _share(population)
    note = f"{100 * promised:.0f} % with what is promised; {population.name}, the fullest line of budget"
    return Figure(label="Budget used", value=f"{100 * spent:.0f} %", note=note, tone="bad" if promised > 1 else "good")


def _sentences(
    populations: Sequence[PopulationReport], studies: Sequence[StudyReport], by_hand: Sequence[ReleaseLine]
) -> list[str]:
    sentences = []
    for population in populations:
        cap = population.cap
        if cap is None:
            continue
        void = population.spent.against == words.NOBODY
        spent = f"ε {epsilon_text(population.spent.value)}"
        limit = "no limit was set" if cap.value is None else f"the owner allows ε {epsilon_text(cap.value)}"
        sentences.append(
            f"{_datasets(population)}: {spent} at δ {delta_text(cap.delta)} was spent so far, {limit} "
            f"({words.ADJACENCY}). {words.odds(None if void else population.spent.value, cap.delta)}"
        )
    if not populations:
        sentences.append("No dataset is registered here yet, so nothing can have left.")
    if any(p.cap is not None and p.cap.value is not None for p in populations):
        sentences.append(
            "Further studies are refused by the share of the budget. Shares add up, epsilons do not: half of the "
            "budget is more than half of the epsilon."
        )
    running = [study.study for study in studies if study.state in ("running", "approved, not started")]
    if running:
        sentences.append(f"Still under way: {', '.join(running)}. Their worst case is reserved already.")
    if by_hand:
        sentences.append(f"Released by hand, outside every figure here: {', '.join(line.name for line in by_hand)}.")
    return sentences


def _left(studies: Sequence[StudyReport], releases: Sequence[ReleaseLine], by_hand: Sequence[ReleaseLine]) -> list[str]:
    """Return what left the hospital, why and to whom; the newest studies in full, so that it stays one page."""
    active = [study for study in studies if study.rounds_charged]
    lines = [] if by_hand else ["Patients' records stayed in this hospital; the software sends none."]
    if len(active) > _STUDIES_IN_FULL:
        lines.append(f"Updates of {len(active)} studies, the newest {_STUDIES_IN_FULL} of which are:")
    lines += [_study_left(study) for study in active[-_STUDIES_IN_FULL:]]
    counted = len(releases) - len(by_hand)
    if counted:
        lines.append(f"{counted} noised count{'s' * (counted != 1)} of patients, part of the figures above.")
    if by_hand:
        lines.append(f"By hand, outside every figure: {', '.join(line.name for line in by_hand)}.")
    return lines


def _study_left(study: StudyReport) -> str:
    others = sum(party.role == "hospital" for party in study.parties) - 1
    keyholder = next((party.institution for party in study.parties if party.role == "keyholder"), "")
    text = f"{study.study}: one noised, encrypted update of a model in each of {study.rounds_charged} rounds"
    numbers = sum(bool(line.releases) for line in study.rounds)
    if numbers:
        text += f" (with noised losses or scores in {numbers} of them)"
    if keyholder:
        text += f"; only its sum with those of other hospitals ({others} take part) was decrypted, by {keyholder}"
    text += f". Legal basis: {study.legal_basis.rstrip('.')}." if study.legal_basis else "."
    return f"{text} Custody: {study.custody}." if study.custody else text


def _datasets(population: PopulationReport) -> str:
    names = ", ".join(f"{d.name} (version {d.version})" for d in population.datasets)
    known = [d.patients for d in population.datasets if d.patients is not None]
    return f"{names}, about {known[-1]} patients" if known else names


def _share(population: PopulationReport) -> float:
    if population.cap is None or population.cap.value is None:
        return 0.0
    share = population.share_promised_and_spent
    return math.inf if share is None else share
