"""The first page of the report: one verdict, four numbers, a few sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from datasites.language import tr, tr_plural
from datasites.language.formats import listed, percent, whole
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
            free_python=any(s.foreign_code for s in studies),
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
        return tr(
            "The records do not verify. Do not rely on the figures of this report before that is cleared up."
        ), "bad"
    if any(study.watermarks for study in studies):
        return tr("This report covers a study without privacy protection, as its watermark says."), "bad"
    if any(_share(p) > 1 + 1e-9 for p in populations):
        return tr("The privacy budget is overdrawn. Nothing more is computed on these patients."), "bad"
    if by_hand:
        return tr("The budget was kept, but something was released by hand that no figure here covers."), "watch"
    if any(p.cap is None for p in populations):
        return tr("Some patients have no cap yet; no study can use their data."), "watch"
    return _kept(populations), "good"


def _kept(populations: Sequence[PopulationReport]) -> str:
    """Return what was kept and what it means, for the population that lost most."""
    most = max(populations, key=lambda p: p.spent.value or 0.0, default=None)
    if most is None or most.cap is None or not most.spent.value:
        return tr("The privacy limit was kept: nothing that depends on a single patient has left. All records verify.")
    values = {"spent": epsilon_text(most.spent.value), "cap": epsilon_text(most.cap.value)}
    return tr(
        "The privacy limit that the owner set was kept: at most ε {spent} of {cap} was used for any patient, and all "
        "records verify. Nobody who sees everything that left can become more than {certainty} sure that a certain "
        "patient is in the data.",
        certainty=words.certainty(most.spent.value),
        **values,
    )


def _figures(
    populations: Sequence[PopulationReport],
    studies: Sequence[StudyReport],
    denied: Sequence[DeniedRequest],
    by_hand: Sequence[ReleaseLine],
    chains: Sequence[ChainLine],
) -> tuple[Figure, ...]:
    fullest = max(populations, key=_share, default=None)
    holds = all(chain.holds for chain in chains)
    return (
        _budget_figure(fullest),
        Figure(label=tr("Studies approved"), value=whole(len(studies)), note=_counts(studies, denied), tone="good"),
        Figure(
            label=tr("Released without guarantee"),
            value=whole(len(by_hand)),
            note=tr("by hand, covered by no epsilon") if by_hand else tr("everything that left has a stated bound"),
            tone="watch" if by_hand else "good",
        ),
        Figure(
            label=tr("Records"),
            value=tr("verified") if holds else tr("broken"),
            note=tr(
                "{count} signed entries checked for this report", count=whole(sum(chain.entries for chain in chains))
            ),
            tone="good" if holds else "bad",
        ),
    )


def _counts(studies: Sequence[StudyReport], denied: Sequence[DeniedRequest]) -> str:
    rounds = sum(study.rounds_charged for study in studies)
    requests = sum(line.kind == "request" for line in denied)
    charged = tr_plural("{count} round charged", "{count} rounds charged", rounds)
    return f"{charged}; " + tr_plural("{count} request turned down", "{count} requests turned down", requests)


def _budget_figure(population: PopulationReport | None) -> Figure:
    label = tr("Budget used")
    if population is None or population.cap is None:
        return Figure(label=label, value=tr("none"), note=tr("no cap is set"), tone="watch")
    if population.cap.value is None:
        return Figure(label=label, value=tr("no cap"), note=tr("the owner set no limit"), tone="bad")
    spent, promised = population.share_spent or 0.0, _share(population)
    note = tr(
        "{share} with what is promised; {population}, the fullest line of budget",
        share=percent(promised) if math.isfinite(promised) else tr("more than everything"),
        population=population.name,
    )
    return Figure(label=label, value=percent(spent), note=note, tone="bad" if promised > 1 else "good")


def _sentences(
    populations: Sequence[PopulationReport], studies: Sequence[StudyReport], by_hand: Sequence[ReleaseLine]
) -> list[str]:
    sentences = [_loss(population) for population in populations if population.cap is not None]
    if not populations:
        sentences.append(tr("No dataset is registered here yet, so nothing can have left."))
    if any(p.cap is not None and p.cap.value is not None for p in populations):
        sentences.append(
            tr(
                "Further studies are refused by the share of the budget. Shares add up, epsilons do not: half of the "
                "budget is more than half of the epsilon."
            )
        )
    running = [study.study for study in studies if study.state in ("running", "approved, not started")]
    if running:
        sentences.append(
            tr("Still under way: {studies}. Their worst case is reserved already.", studies=listed(running))
        )
    if by_hand:
        names = listed(line.name for line in by_hand)
        sentences.append(tr("Released by hand, outside every figure here: {names}.", names=names))
    return sentences


def _loss(population: PopulationReport) -> str:
    spent, cap = population.spent, population.cap
    void = spent.against == words.nobody()
    values = {
        "datasets": _datasets(population),
        "spent": epsilon_text(spent.value),
        "delta": delta_text(spent.delta),
        "adjacency": words.adjacency(),
    }
    if cap is None or cap.value is None:
        text = tr("{datasets}: ε {spent} at δ {delta} was spent so far, no limit was set ({adjacency}).", **values)
    else:
        text = tr(
            "{datasets}: ε {spent} at δ {delta} was spent so far, the owner allows ε {cap} ({adjacency}).",
            cap=epsilon_text(cap.value),
            **values,
        )
    return f"{text} {words.odds(None if void else spent.value, spent.delta)}"


def _left(studies: Sequence[StudyReport], releases: Sequence[ReleaseLine], by_hand: Sequence[ReleaseLine]) -> list[str]:
    """Return what left the hospital, why and to whom; the newest studies in full, so that it stays one page."""
    active = [study for study in studies if study.rounds_charged]
    lines = [] if by_hand else [tr("Patients' records stayed in this hospital; the software sends none.")]
    if len(active) > _STUDIES_IN_FULL:
        lines.append(
            tr(
                "Updates of {count} studies, the newest {shown} of which are:",
                count=whole(len(active)),
                shown=_STUDIES_IN_FULL,
            )
        )
    lines += [_study_left(study) for study in active[-_STUDIES_IN_FULL:]]
    counted = len(releases) - len(by_hand)
    if counted:
        lines.append(
            tr_plural(
                "{count} noised count of patients, part of the figures above.",
                "{count} noised counts of patients, part of the figures above.",
                counted,
            )
        )
    if by_hand:
        lines.append(tr("By hand, outside every figure: {names}.", names=listed(line.name for line in by_hand)))
    return lines


def _study_left(study: StudyReport) -> str:
    others = sum(party.role == "hospital" for party in study.parties) - 1
    keyholder = next((party.institution for party in study.parties if party.role == "keyholder"), "")
    parts = [
        tr_plural(
            "{study}: one noised, encrypted update of a model in {count} round.",
            "{study}: one noised, encrypted update of a model in each of {count} rounds.",
            study.rounds_charged,
            study=study.study,
        )
    ]
    numbers = sum(bool(line.releases) for line in study.rounds)
    if numbers:
        parts.append(
            tr_plural(
                "{count} of them came with noised losses or scores.",
                "{count} of them came with noised losses or scores.",
                numbers,
            )
        )
    if keyholder:
        parts.append(
            tr(
                "Only the sum with the updates of other hospitals ({others} take part) was decrypted, by {keyholder}.",
                others=others,
                keyholder=keyholder,
            )
        )
    if study.legal_basis:
        parts.append(tr("Legal basis: {basis}.", basis=study.legal_basis.rstrip(".")))
    if study.custody:
        parts.append(tr("Custody: {custody}.", custody=study.custody))
    return " ".join(parts)


def _datasets(population: PopulationReport) -> str:
    names = ", ".join(tr("{name} (version {version})", name=d.name, version=d.version) for d in population.datasets)
    known = [d.patients for d in population.datasets if d.patients is not None]
    return tr("{names}, about {count} patients", names=names, count=whole(known[-1])) if known else names


def _share(population: PopulationReport) -> float:
    if population.cap is None or population.cap.value is None:
        return 0.0
    share = population.share_promised_and_spent
    return math.inf if share is None else share
