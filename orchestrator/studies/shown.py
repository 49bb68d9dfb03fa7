"""What page and PDF of the study report show: the facts as text, in the language that is spoken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasites.language import mark, tr, tr_plural
from datasites.language.formats import decimal, listed, moment, significant, whole
from datasites.language.remembered import retold
from datasites.study.text import delta_text, epsilon_text
from orchestrator.rounds.scoring.dp_outcomes import OutcomeFigure
from orchestrator.studies.facts import EvaluationFact, OutcomeFact, RoundFacts, SiteFacts, StudyFacts

_WORDS = (
    mark("waiting"), mark("running"), mark("paused"), mark("finished"), mark("failed"), mark("local"), mark("shared"),
)  # fmt: skip
"""States and kinds of noise, as the facts have them."""


def shown(facts: StudyFacts) -> dict[str, Any]:
    """Return the cards, the tables and the lists of the report; every cell is text."""
    return {
        "study": facts.study,
        "number": facts.number,
        "orchestrator": facts.orchestrator,
        "state": f"{tr(facts.state)} ({retold(facts.reason)})" if facts.reason else tr(facts.state),
        "proposal": facts.proposal_hash,
        "made": moment(facts.made) if facts.made else "",
        "purpose": facts.purpose,
        "watermarks": facts.watermarks,
        "cards": _cards(facts),
        "facts": _facts(facts),
        "metrics": _metrics(facts),
        "sites": [_site(site) for site in facts.sites],
        "remarks": [{"site": site.institution, "lines": _remarks(site)} for site in facts.sites if _remarks(site)],
        "rounds": [_round(line) for line in facts.rounds],
        "weights": [_weights(line, facts.sites) for line in facts.rounds if line.weights],
        "software": _software(facts),
        "format": facts.format,
    }


def _cards(facts: StudyFacts) -> list[dict[str, str]]:
    timed = [r.seconds for r in facts.rounds if r.seconds is not None]
    missed = sum(len(r.missing) for r in facts.rounds)
    complete = sum(not r.missing for r in facts.rounds)
    note = tr("{count} with every hospital in the sum", count=complete)
    note += "; " + tr_plural("{count} update missed in all", "{count} updates missed in all", missed)
    done = tr("{done} of {planned}", done=len(facts.rounds), planned=facts.rounds_planned)
    cards = [(tr("Rounds"), done, note)]
    if facts.metrics:
        cards.append((facts.metrics[0].label, decimal(facts.metrics[0].value, 3), facts.metrics_label))
    megabytes = decimal(sum(r.uplink_bytes for r in facts.rounds) / 1e6, 1)
    cards += [
        (tr("Sent by hospitals"), tr("{count} MB", count=megabytes), tr("encrypted updates of all rounds")),
        (tr("Time in rounds"), tr("{count} s", count=decimal(sum(timed), 0)), tr("from plan to checkpoint")),
    ]
    return [{"label": label, "value": value, "note": note, "tone": "good"} for label, value, note in cards]


def _facts(facts: StudyFacts) -> list[dict[str, str]]:
    cost = tr(
        "ε {epsilon} at δ {delta} for a hospital that was in every round; add or remove one patient at one hospital; "
        "by privacy loss distributions; against {against}",
        epsilon=epsilon_text(facts.epsilon_study),
        delta=delta_text(facts.delta),
        against=facts.against,
    )
    ended = [line.at for line in facts.rounds if line.at]
    period = tr("{first} to {last}", first=moment(ended[0]), last=moment(ended[-1])) if ended else ""
    keyholder = tr(
        "{keyholder}; no sum over fewer than {count} hospitals is decrypted",
        keyholder=facts.keyholder,
        count=facts.min_sites,
    )
    multiplier = significant(facts.noise_multiplier, 3)
    rows = (
        (tr("Report number"), facts.number),
        (tr("Made"), moment(facts.made) if facts.made else ""),
        (tr("Proposed"), moment(facts.proposed) if facts.proposed else ""),
        (tr("Rounds finished"), period),
        (tr("Cost to one patient of one hospital"), cost),
        (tr("Legal basis"), facts.legal_basis),
        *((line.label, line.value) for line in (*facts.filing, *facts.thread)),
        (tr("Task and model"), f"{facts.task}, {facts.architecture}, {facts.aggregation}"),
        (tr("Noise"), tr("{kind}, multiplier {multiplier}", kind=tr(facts.noise), multiplier=multiplier)),
        (tr("Keyholder"), keyholder),
        (tr("Product"), tr("Tessera {version}", version=facts.version) if facts.version else ""),
    )
    return [{"label": label, "value": value} for label, value in rows if value]


def _metrics(facts: StudyFacts) -> list[dict[str, Any]]:
    rows = [(m.label, decimal(m.value, 3), "") for m in facts.metrics]
    first = [{"caption": facts.metrics_label or tr("Metrics"), "rows": rows}] if rows else []
    return first + [
        table
        for e in facts.evaluations
        for table in (_evaluation(e) if isinstance(e, EvaluationFact) else _outcome_evaluation(e), *_groups(e))
    ]


def _groups(e: EvaluationFact | OutcomeFact) -> list[dict[str, Any]]:
    """Return a table for every group of records that has figures of its own."""
    captions = {
        "cohort": tr("Of the cohort {name} alone, about {records} records, 90 % intervals"),
        "site": tr("Of the hospital {name} alone, which allows it, about {records} records, 90 % intervals"),
        "pattern": tr("Of patients with {name} and nothing else, about {records} records, 90 % intervals"),
    }
    return [
        {
            "caption": captions[group.by].format(name=group.name.replace("+", " + "), records=whole(group.records)),
            "rows": [_figure(figure, getattr(e, "unit", "")) for figure in group.figures],
        }
        for group in e.groups
    ]


def _figure(figure: OutcomeFigure, unit: str) -> tuple[str, str, str]:
    labels = {
        "auroc": tr("AUROC, 90 % interval"),
        "cross_entropy": tr("Cross entropy, nats"),
        "brier": tr("Brier score, 90 % interval"),
        "calibration_slope": tr("Calibration slope (1 is calibrated), 90 % interval"),
        "calibration_error": tr("Calibration error, 90 % interval"),
        "concordance": tr("Concordance over groups of outcomes, 90 % interval"),
        "mean_absolute_error": tr("Mean absolute error, {unit}", unit=unit or tr("in its unit")),
    }
    at = "" if figure.at is None else tr("Brier score at {time} {unit}", time=decimal(figure.at, 1), unit=unit)
    value, low, high = decimal(figure.value, 3), decimal(figure.low, 3), decimal(figure.high, 3)
    return (at or labels[figure.name], value, f"[{low}; {high}]")


def _intervals(e: EvaluationFact) -> list[tuple[str, str, str]]:
    """Return the rows of figures that have an interval; evaluations from before have none."""
    rows = []
    for label, value, low, high in (
        (tr("AUROC, 90 % interval"), e.auroc, e.auroc_low, e.auroc_high),
        (
            tr("Calibration slope (1 is calibrated), 90 % interval"),
            e.calibration_slope,
            e.calibration_slope_low,
            e.calibration_slope_high,
        ),
        (
            tr("Calibration error, 90 % interval"),
            e.calibration_error,
            e.calibration_error_low,
            e.calibration_error_high,
        ),
        (tr("Brier score, 90 % interval"), e.brier, e.brier_low, e.brier_high),
    ):
        if value is not None and low is not None and high is not None:
            rows.append((label, decimal(value, 3), f"[{decimal(low, 3)}; {decimal(high, 3)}]"))
    return rows


def _evaluation(e: EvaluationFact) -> dict[str, Any]:
    rows = [
        (tr("AUROC (mean over cohorts)"), decimal(e.auroc, 3), decimal(e.auroc_error, 3)),
        (tr("Cross entropy, nats"), decimal(e.cross_entropy, 3), decimal(e.cross_entropy_error, 3)),
    ]
    rows += _intervals(e)
    rows += [
        (tr("AUROC, {cohort}", cohort=cohort), decimal(area, 3), decimal(e.auroc_error_by_cohort[cohort], 3))
        for cohort, area in e.auroc_by_cohort.items()
    ]
    return {"caption": _caption(e), "rows": rows}


def _outcome_evaluation(e: OutcomeFact) -> dict[str, Any]:
    rows = [_figure(figure, e.unit) for figure in e.figures]
    return {"caption": _caption(e), "rows": rows}


def _caption(e: EvaluationFact | OutcomeFact) -> str:
    return tr(
        "{label}: the model that went into round {round}, about {records} records of {sites} hospitals, noise {noise} "
        "times the largest effect of one patient",
        label=tr(e.label)[:1].upper() + tr(e.label)[1:],
        round=e.round,
        records=whole(e.records),
        sites=e.sites,
        noise=significant(e.noise_multiplier, 3),
    )


def _site(site: SiteFacts) -> tuple[str, ...]:
    told = site.delta is not None
    return (
        site.institution,
        f"{site.cohort}: {', '.join(site.modalities)}",
        whole(site.patients),
        str(site.rounds),
        epsilon_text(site.epsilon_spent) if told else tr("not reported"),
        epsilon_text(site.epsilon_cap) if told else "",
        delta_text(site.delta) if site.delta is not None else "",
        ", ".join(site.approved_by) or tr("not approved"),
        moment(site.approved) if site.approved else "",
    )


def _remarks(site: SiteFacts) -> list[str]:
    missed = site.missed_rounds
    first = (
        [
            tr_plural(
                "missing in round {rounds}",
                "missing in rounds {rounds}",
                len(missed),
                rounds=listed(str(number) for number in missed),
            )
        ]
        if missed
        else []
    )
    return [*first, *(tr("refused {what}", what=line) for line in site.refusals)]


def _round(line: RoundFacts) -> tuple[str, ...]:
    return (
        str(line.round),
        moment(line.at) if line.at else "",
        str(len(line.sites)),
        ", ".join(line.missing),
        whole(line.uplink_bytes),
        "" if line.seconds is None else decimal(line.seconds, 1),
        line.model_hash[:16],
    )


def _weights(line: RoundFacts, sites: Sequence[SiteFacts]) -> dict[str, Any]:
    rows = [
        (block, *(decimal(of[site.name], 2) if site.name in of else "" for site in sites))
        for block, of in line.weights.items()
    ]
    return {
        "caption": tr("Round {round}: weights relative to the largest", round=line.round),
        "header": (tr("Block"), *(site.name for site in sites)),
        "rows": rows,
    }


def _software(facts: StudyFacts) -> list[dict[str, str]]:
    packages = ", ".join(f"{name} {version}" for name, version in sorted(facts.software.items()) if name != "tessera")
    rows = ((tr("Tessera's code"), facts.software.get("tessera", "")), (tr("Packages"), packages))
    return [{"label": label, "value": value} for label, value in rows if value]
