"""What the dashboard says of a study: the facts of its report as they are now, and the round that is under way.

Every participant of the study may ask for the same (:mod:`orchestrator.studies.status`): approvals, noised releases,
public weights, and who was in which sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasites.language import current, tr
from datasites.language.remembered import retold
from datasites.node.web.charts import Chart, lines, series_of
from datasites.strategy.registry import noise_named, strategy_named
from datasites.study.proposal import Proposal
from datasites.study.signing import parse
from datasites.study.thread import WORD, Word
from orchestrator.rounds.store import Store
from orchestrator.studies.facts import SiteFacts, StudyFacts, losses_by_round, proximities_by_round, study_facts
from orchestrator.studies.status import said, study_status
from privacy.dp.mechanism import Mechanism


@dataclass(frozen=True, kw_only=True)
class SiteNow:
    """One hospital: its facts, what it does now, and the epsilon of the sums it was in or that were lost.

    Both epsilons are of this study alone, at its delta, add or remove one patient, by privacy loss distributions; None
    stands for infinite. The hospital's ledger decides: it also counts rounds that were charged and came too late.
    """

    facts: SiteFacts
    now: str
    epsilon_now: float | None
    epsilon_study: float | None


@dataclass(frozen=True, kw_only=True)
class StudyNow:
    """One study as the dashboard shows it; ``lost`` names rounds whose sum was refused, ``words`` is its thread."""

    facts: StudyFacts
    phase: str
    sites: tuple[SiteNow, ...]
    charts: tuple[Chart, ...]
    lost: Mapping[int, str]
    words: tuple[Word, ...] = ()

    @property
    def approved(self) -> int:
        """How many hospitals have approved."""
        return sum(site.facts.approved is not None for site in self.sites)

    @property
    def dropouts(self) -> int:
        """How many updates are missing in all finished rounds together."""
        return sum(len(line.missing) for line in self.facts.rounds if line.round not in self.lost)


def study_now(store: Store, study: str, caller: str, waiting: str = "") -> StudyNow:
    """Read one study as ``caller``, one of its parties, may see it; ``waiting`` is what it waits for.

    Raises:
        InvalidInput: no such study.
        Refused: ``caller`` takes no part in it.
    """
    status = study_status(store, study, caller)
    facts = study_facts(status, language=current())
    mechanism = parse(Proposal, status["proposal"]["payload"]).charged
    lost = {n: str(c["lost"]) for n, c in enumerate(status["checkpoints"], 1) if c and c.get("lost")}
    return StudyNow(
        facts=facts,
        phase=" ".join(
            filter(None, [_phase(store, study, status), waiting and tr("Now {what}.", what=retold(waiting))])
        ),
        sites=tuple(
            SiteNow(
                facts=site,
                now=_doing(site.name, status),
                epsilon_now=_epsilon(mechanism, site.rounds + len(lost)),
                epsilon_study=_epsilon(mechanism, facts.rounds_planned),
            )
            for site in facts.sites
        ),
        charts=tuple(_charts(facts, _scales(store, status))),
        lost=lost,
        words=said(status),
    )


def traces(store: Store) -> dict[str, tuple[object, ...]]:
    """Return, by study, a few figures that differ whenever a page about it would."""
    found = {}
    for name, _, state, reason in store.studies():
        now = store.last_round(name, "checkpoint") + 1
        kinds = ("refusal", "key", "update", "commitments", "attestation", "result")
        counts = tuple(len(store.documents(name, now, kind)) for kind in kinds)
        said_now = store.count(name, 0, WORD, author="")
        found[name] = (state, reason, now, len(store.documents(name, 0, "approval")), said_now, *counts)
    return found


def _phase(store: Store, study: str, status: Mapping[str, Any]) -> str:
    if status["state"] not in ("waiting", "running"):
        return ""
    participants = status["proposal"]["payload"]["participants"]
    missing = len(participants) - len(status["approvals"])
    number = status["rounds_completed"] + 1
    if missing:
        return tr(
            "Waiting for the approval of {missing} of {sites} hospitals.", missing=missing, sites=len(participants)
        )
    if number > status["rounds"]:
        return tr("The last round is finished.")
    if not store.documents(study, number, "key"):
        return tr("Round {round}: the keyholder makes a fresh key.", round=number)
    if not store.documents(study, number, "commitments"):
        return tr(
            "Round {round}: {here} of {sites} encrypted updates are here.",
            round=number,
            here=len(status["updates_now"]),
            sites=len(participants),
        )
    if not store.documents(study, number, "result"):
        signed = len(store.documents(study, number, "attestation"))
        return tr(
            "Round {round}: the sum is fixed; {signed} hospitals have signed it, then the keyholder decrypts it.",
            round=number,
            signed=signed,
        )
    return tr("Round {round}: the sum is decrypted; the model takes its step.", round=number)


def _doing(name: str, status: Mapping[str, Any]) -> str:
    if status["state"] not in ("waiting", "running") or name not in status["approvals"]:
        return ""
    refusal = status["refusals"].get(str(status["rounds_completed"] + 1), {}).get(name)
    if refusal:
        return tr("refused: {reason}", reason=retold(refusal["payload"]["reason"]))
    return tr("update is here") if name in status["updates_now"] else tr("not yet")


def _epsilon(mechanism: Mechanism, rounds: int) -> float | None:
    value = mechanism.epsilon(rounds=rounds) if rounds else 0.0
    return value if math.isfinite(value) else None


def _scales(store: Store, status: Mapping[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Return the blending scale of every block by round; nothing where the study does not blend."""
    if not strategy_named(status["proposal"]["payload"]["training"]["aggregation"]).blending.blends:
        return {}
    found: dict[str, list[tuple[int, float]]] = {}
    for number in range(1, status["rounds_completed"] + 1):
        plan = store.document(status["study"], number, "plan") or {"payload": {"scales": {}}}
        for block, scale in plan["payload"]["scales"].items():
            found.setdefault(block, []).append((number, float(scale)))
    return found


_SIDES = {
    "training": lambda: tr("Losses by modality, training"),
    "validation": lambda: tr("Losses by modality, validation"),
}


def _charts(facts: StudyFacts, scales: Mapping[str, list[tuple[int, float]]]) -> list[Chart]:
    drawn = []
    for side in _SIDES:
        named = {n: p for n, p in losses_by_round(facts).items() if n.startswith(f"loss.{side}.")}
        if named:
            series = series_of({name.rsplit(".", 1)[1]: points for name, points in named.items()})
            note = tr(
                "Noised, clipped loss sums that the hospitals released, divided by their released patient counts."
            )
            drawn.append(lines(series, title=_SIDES[side](), unit=tr("nats per patient"), note=note))
    if scales:
        note = tr("How much each modality's gradient counts, the same public number at every hospital.")
        drawn.append(lines(series_of(scales), title=tr("Blending weights"), unit=tr("scale"), note=note))
    proximities = proximities_by_round(facts)
    if proximities:
        series = series_of(dict(sorted(proximities.items())))
        note = tr(
            "The cosine between a hospital's noised update and the mean of the others', as the hospital reports it."
        )
        drawn.append(lines(series, title=tr("Proximity of the hospitals"), unit=tr("cosine"), note=note))
    return drawn + [_weights(facts, blocks) for blocks in _alike(facts)]


def _alike(facts: StudyFacts) -> list[tuple[str, ...]]:
    """Group the blocks that had the same weights in every round, so that each picture is drawn once."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for block in sorted({block for line in facts.rounds for block in line.weights}):
        key = tuple(tuple(sorted(line.weights.get(block, {}).items())) for line in facts.rounds)
        groups.setdefault(key, []).append(block)
    return [tuple(blocks) for blocks in groups.values()]


def _weights(facts: StudyFacts, blocks: tuple[str, ...]) -> Chart:
    found: dict[str, list[tuple[int, float]]] = {}
    for line in facts.rounds:
        for site, weight in line.weights.get(blocks[0], {}).items():
            found.setdefault(site, []).append((line.round, weight))
    series = series_of(dict(sorted(found.items())))
    title = tr("Weights of the hospitals: {blocks}", blocks=", ".join(blocks))
    return lines(series, title=title, unit=tr("relative to the largest"), note=_weighing(facts), top=1.0)


def _weighing(facts: StudyFacts) -> str:
    return tr(noise_named(facts.noise).weighing or strategy_named(facts.aggregation).weights.explanation)
