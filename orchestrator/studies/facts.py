"""The study report as values: what the orchestrator's report says as web page, PDF and JSON.

:func:`study_facts` collects them from the status of a study. Facts that come from elsewhere are written as the same
JSON, and :func:`datasites.study.signing.parse` checks them.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from datasites.language import current, speaking, tr
from datasites.language.remembered import retold
from datasites.node.plugins import DISTRIBUTION
from datasites.study.messages import Approval
from datasites.study.outcome_words import outcome_text
from datasites.study.proposal import Proposal
from datasites.study.recomputed.released_numbers import PROXIMITY
from datasites.study.signing import Message, parse
from datasites.study.text import self_scaled_text
from datasites.study.thread import SHOWN, TO_ALL, Word
from models.config import ModelConfig
from orchestrator.rounds.scoring.dp_evaluation import DpEvaluation
from orchestrator.rounds.scoring.dp_outcomes import OutcomeEvaluation

FORMAT: Literal["tessera-study-report/1"] = "tessera-study-report/1"


@dataclass(frozen=True, kw_only=True)
class SiteFacts(Message):
    """One hospital in the study.

    ``patients`` is the noised count it released; ``epsilon_spent`` and ``epsilon_cap`` are what the hospital itself
    reported, null where it did not or where there is no bound; ``epsilon_study`` is the study's own worst case.
    """

    name: str
    institution: str
    cohort: str
    modalities: tuple[str, ...]
    patients: int
    approved: str | None
    approved_by: tuple[str, ...]
    rounds: int
    missed_rounds: tuple[int, ...]
    refusals: tuple[str, ...]
    epsilon_spent: float | None = None
    epsilon_cap: float | None = None
    delta: float | None = None


@dataclass(frozen=True, kw_only=True)
class RoundFacts(Message):
    """One finished round; ``weights[block][site]`` and ``scales[block]`` are relative to the largest.

    ``releases`` are noised numbers; ``at`` is when it was finished, empty in studies from before that was kept.
    """

    round: int
    seconds: float | None
    uplink_bytes: int
    sites: tuple[str, ...]
    missing: tuple[str, ...]
    model_hash: str
    weights: Mapping[str, Mapping[str, float]]
    releases: Mapping[str, Mapping[str, float]]
    scales: Mapping[str, float] = field(default_factory=dict)
    at: str = ""


@dataclass(frozen=True, kw_only=True)
class MetricFact(Message):
    """One number about the finished model."""

    label: str
    value: float


@dataclass(frozen=True, kw_only=True)
class CurvePoint(Message):
    """The model's AUROC after a round, where it was measured; its concordance where no classes are told apart."""

    round: int
    auroc: float | None = None
    concordance: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationFact(DpEvaluation, Message):
    """One differentially private evaluation (:class:`orchestrator.rounds.scoring.dp_evaluation.DpEvaluation`); errors
    are standard."""


@dataclass(frozen=True, kw_only=True)
class OutcomeFact(OutcomeEvaluation, Message):
    """The same of numbers and survival (:class:`orchestrator.rounds.scoring.dp_outcomes.OutcomeEvaluation`)."""


@dataclass(frozen=True, kw_only=True)
class Line(Message):
    """One labelled text."""

    label: str
    value: str


@dataclass(frozen=True, kw_only=True)
class StudyFacts(Message):
    """Everything the study report shows. ``metrics_label`` says on which data the metrics are and how exact.

    The sentences are in ``language``; ``proposed`` and ``made`` are times of the proposal and of the report, and
    ``number`` names the study and how many rounds the report covers. ``filing`` says who answers for the study,
    ``thread`` what was said to everybody.
    """

    format: Literal["tessera-study-report/1"]
    study: str
    state: str
    reason: str
    purpose: str
    legal_basis: str
    task: str
    architecture: str
    aggregation: str
    noise: str
    proposal_hash: str
    orchestrator: str
    keyholder: str
    min_sites: int
    rounds_planned: int
    noise_multiplier: float
    epsilon_study: float | None
    delta: float
    against: str
    watermarks: tuple[str, ...]
    sites: tuple[SiteFacts, ...]
    rounds: tuple[RoundFacts, ...]
    metrics: tuple[MetricFact, ...] = ()
    metrics_label: str = ""
    evaluations: tuple[EvaluationFact | OutcomeFact, ...] = ()
    curve: tuple[CurvePoint, ...] = field(default=())
    language: str = "en"
    number: str = ""
    proposed: str = ""
    made: str = ""
    version: str = ""
    software: Mapping[str, str] = field(default_factory=dict)
    filing: tuple[Line, ...] = ()
    thread: tuple[Line, ...] = ()


def _filed(proposal: Proposal) -> tuple[tuple[str, str], ...]:
    return proposal.filing.lines() if proposal.filing else ()


def _thread(status: Mapping[str, Any]) -> tuple[Line, ...]:
    """Return what was said to everybody; what one hospital and the scientist said to each other stays between them."""
    told = [parse(Word, word["payload"]) for word in status.get("words", ())]
    return tuple(
        Line(label=tr("{who} {did}", who=w.author, did=tr(SHOWN[w.kind])), value=f"{w.text} ({w.who}, {w.at})")
        for w in told
        if w.kind in TO_ALL
    )


def study_facts(
    status: Mapping[str, Any],
    *,
    metrics: Mapping[str, Any] | None = None,
    sites: Sequence[Mapping[str, Any]] = (),
    curve: Sequence[tuple[int, float]] = (),
    made: dt.datetime | None = None,
    language: str = "en",
) -> StudyFacts:
    """Collect the facts of a study.

    Args:
        status: as ``GET /studies/STUDY`` gives it (:func:`orchestrator.studies.status.study_status`).
        metrics: as :func:`orchestrator.studies.evaluation.final_metrics` gives them; None when nothing was measured.
        sites: what hospitals reported: ``name``, ``epsilon_spent``, ``epsilon_cap``, ``delta``.
        curve: (round, AUROC or concordance) where it was measured on the way.
        made: the time on the report; None means none.
        language: of the sentences, one of :data:`datasites.language.LANGUAGES`.
    """
    with speaking(language):
        return _facts(status, metrics or {}, sites, curve, made.isoformat(timespec="seconds") if made else "")


def _facts(
    status: Mapping[str, Any],
    metrics: Mapping[str, Any],
    sites: Sequence[Mapping[str, Any]],
    curve: Sequence[tuple[int, float]],
    made: str,
) -> StudyFacts:
    proposal = parse(Proposal, status["proposal"]["payload"])
    rounds = tuple(_round(n, c, proposal) for n, c in enumerate(status["checkpoints"], start=1))
    reported = {str(site["name"]): site for site in sites}
    return StudyFacts(
        format=FORMAT,
        study=proposal.study,
        state=str(status["state"]),
        reason=str(status.get("reason") or ""),
        purpose=proposal.purpose,
        legal_basis=proposal.legal_basis,
        filing=tuple(Line(label=label, value=text) for label, text in _filed(proposal)),
        thread=_thread(status),
        task=outcome_text(proposal.task, proposal.model.predicts, proposal.model.classes),
        architecture=proposal.model.architecture,
        aggregation=proposal.training.aggregation,
        noise=proposal.noise,
        proposal_hash=proposal.proposal_hash,
        orchestrator=proposal.orchestrator.institution,
        keyholder=proposal.keyholder.institution,
        min_sites=proposal.min_sites,
        rounds_planned=proposal.rounds,
        noise_multiplier=proposal.mechanism.noise_multiplier,
        epsilon_study=_finite(proposal.charged.epsilon(rounds=len(rounds))) if rounds else 0.0,
        delta=proposal.mechanism.target_delta,
        against=_against(proposal),
        watermarks=_watermarks(proposal),
        sites=tuple(_site(p.name, proposal, status, rounds, reported.get(p.name, {})) for p in proposal.participants),
        rounds=rounds,
        metrics=_metrics(metrics),
        metrics_label=tr(str(metrics.get("label", ""))),
        evaluations=tuple(_evaluation(c["evaluation"]) for c in status["checkpoints"] if c.get("evaluation")),
        curve=tuple(CurvePoint(round=n, **{measure_of(proposal.model): float(value)}) for n, value in curve),
        language=current(),
        number=f"{proposal.study}-R{len(rounds)}",
        proposed=proposal.created,
        made=made,
        version=importlib.metadata.version(DISTRIBUTION),
        software={**proposal.environment.packages, "tessera": proposal.environment.code_hash},
    )


def losses_by_round(facts: StudyFacts) -> dict[str, list[tuple[int, float]]]:
    """Return noised loss sums per patient, in nats, of the sites that sent them, by name and round."""
    patients = {site.name: site.patients for site in facts.sites}
    found: dict[str, list[tuple[int, float]]] = {}
    for line in facts.rounds:
        for name in sorted({n for of in line.releases.values() for n in of if n.startswith("loss")}):
            having = [site for site, of in line.releases.items() if name in of]
            total = sum(line.releases[site][name] for site in having)
            found.setdefault(name, []).append((line.round, total / sum(patients[site] for site in having)))
    return found


def proximities_by_round(facts: StudyFacts) -> dict[str, list[tuple[int, float]]]:
    """Return, by site, the cosines it released: (round compared, cosine between its update and the others')."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in facts.rounds:
        for site, of in line.releases.items():
            if PROXIMITY in of:
                found.setdefault(site, []).append((line.round - 1, of[PROXIMITY]))
    return found


def _round(number: int, checkpoint: Mapping[str, Any], proposal: Proposal) -> RoundFacts:
    here = tuple(checkpoint["sites"])
    return RoundFacts(
        round=number,
        seconds=checkpoint.get("seconds"),
        uplink_bytes=int(checkpoint["uplink_bytes"]),
        sites=here,
        missing=tuple(p.name for p in proposal.participants if p.name not in here),
        model_hash=str(checkpoint["model_hash"]),
        weights={b: {s: float(w) for s, w in of.items()} for b, of in checkpoint.get("weights", {}).items()},
        releases={s: {n: float(v) for n, v in of.items()} for s, of in checkpoint.get("releases", {}).items()},
        scales={b: float(s) for b, s in checkpoint.get("scales", {}).items()},
        at=str(checkpoint.get("at", "")),
    )


def _site(
    name: str, proposal: Proposal, status: Mapping[str, Any], rounds: Sequence[RoundFacts], report: Mapping[str, Any]
) -> SiteFacts:
    participant = proposal.participant(name)
    approval = _approval(status, name)
    return SiteFacts(
        name=name,
        institution=participant.institution,
        cohort=participant.cohort,
        modalities=tuple(participant.modalities),
        patients=participant.dataset.patients,
        approved=approval.approved if approval else None,
        approved_by=tuple(f"{r.titled} ({tr(r.role)})" for r in approval.reviewers) if approval else (),
        rounds=sum(name in r.sites for r in rounds),
        missed_rounds=tuple(r.round for r in rounds if name not in r.sites),
        refusals=tuple(_refusals(status, name)),
        epsilon_spent=_finite(report.get("epsilon_spent")),
        epsilon_cap=_finite(report.get("epsilon_cap")),
        delta=_finite(report.get("delta")),
    )


def _approval(status: Mapping[str, Any], name: str) -> Approval | None:
    signed = status.get("approvals", {}).get(name)
    return parse(Approval, signed["payload"]) if signed else None


def _refusals(status: Mapping[str, Any], name: str) -> list[str]:
    return [
        tr("round {round}: {reason}", round=number, reason=retold(of[name]["payload"]["reason"]))
        for number, of in sorted(status.get("refusals", {}).items(), key=lambda item: int(item[0]))
        if name in of
    ]


def _metrics(metrics: Mapping[str, Any]) -> tuple[MetricFact, ...]:
    named = (
        (tr("AUROC (mean over cohorts)"), metrics.get("auroc")),
        (tr("Balanced accuracy (mean over cohorts)"), metrics.get("balanced_accuracy")),
        (tr("Cross entropy, nats"), metrics.get("cross_entropy")),
        (tr("Calibration error"), metrics.get("calibration_error")),
        *_outcome_metrics(metrics),
        *(
            (tr("AUROC, {cohort}", cohort=cohort), value)
            for cohort, value in dict(metrics.get("auroc_by_cohort", {})).items()
        ),
    )
    return tuple(MetricFact(label=label, value=float(value)) for label, value in named if value is not None)


def _outcome_metrics(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the figures of numbers and survival, those of guessing beside them."""
    unit = str(metrics.get("unit") or "")
    rows = [
        (tr("Concordance (mean over cohorts)"), metrics.get("concordance")),
        (tr("Mean absolute error, {unit}", unit=unit or tr("in its unit")), metrics.get("mean_absolute_error")),
        (tr("The same of each cohort's median"), metrics.get("guess_absolute_error")),
        (tr("Mean deviance"), metrics.get("deviance")),
        (tr("The same of each cohort's mean"), metrics.get("guess_deviance")),
    ]
    for name, value in dict(metrics.get("brier", {})).items():
        rows.append((tr("Brier score at {time} {unit}", time=name, unit=unit), value))
        rows.append((tr("The same of the Kaplan-Meier curve of all"), metrics["guess_brier"][name]))
    for cohort, value in dict(metrics.get("concordance_by_cohort", {})).items():
        rows.append((tr("Concordance, {cohort}", cohort=cohort), value))
    return rows


def measure_of(model: ModelConfig) -> Literal["auroc", "concordance"]:
    """Return the figure by which models of an outcome are compared."""
    return "auroc" if model.predicts is None or model.predicts.kind == "categorical" else "concordance"


def _evaluation(released: Mapping[str, Any]) -> EvaluationFact | OutcomeFact:
    return parse(OutcomeFact, released) if "figures" in released else parse(EvaluationFact, released)


def _against(proposal: Proposal) -> str:
    if proposal.seed is not None:
        return tr("nobody: the noise came from a public seed")
    return proposal.noise_mode.against(proposal.colluders)


def _watermarks(proposal: Proposal) -> tuple[str, ...]:
    found = []
    if proposal.seed is not None:
        found.append(tr("NO PRIVACY: the noise came from a public seed. This is a demonstration."))
    if proposal.model.self_scaled:
        found.append(self_scaled_text())
    if not proposal.mechanism.private:
        found.append(tr("NO PRIVACY: something is released without noise; epsilon is infinite."))
    return tuple(found)


def _finite(value: Any) -> float | None:
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return None
    return float(value)
