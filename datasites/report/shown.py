"""What page and PDF show of a report: its values as text, in the report's language."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from datasites.language import mark, tr, tr_plural
from datasites.language.formats import listed, moment, percent, whole
from datasites.language.remembered import retold
from datasites.report.facts import (
    ChainLine,
    DeniedRequest,
    EmpiricalAudit,
    Epsilon,
    PartyLine,
    Person,
    PopulationReport,
    ReleaseLine,
    Report,
    RoundLine,
    StudyReport,
    TimelinePoint,
)
from datasites.study.text import delta_text, epsilon_text

_EVENTS = (
    mark("cap set"), mark("study approved"), mark("rounds freed"), mark("population closed"),
    mark("reservation released"),
)  # fmt: skip
"""Entries of the ledger, as it calls them."""
_TIMES = {"at", "made", "since", "last_entry"}
_STORED = {"reason", "by"}
"""What ledger and journal keep in English: our own sentences are said in the report's language."""


def presentable(report: Report) -> dict[str, Any]:
    """Return the report as nested dictionaries of text and numbers, in the language that is spoken.

    Every epsilon gains ``text`` (``ε 3.21``) and ``fine`` (delta, adjacency, accountant, against whom); times are
    written out; numbers and states that are shown get a field with their text.
    """
    shown: dict[str, Any] = _present(report)
    return shown


def _present(value: Any, name: str = "") -> Any:
    if dataclasses.is_dataclass(value):
        shown = {field.name: _present(getattr(value, field.name), field.name) for field in dataclasses.fields(value)}
        add = _ADDED.get(type(value))
        return {**shown, **add(value)} if add else shown
    if isinstance(value, tuple):
        return [_present(item) for item in value]
    if not isinstance(value, str):
        return value
    return moment(value) if name in _TIMES else retold(value) if name in _STORED else value


def _epsilon(value: Epsilon) -> dict[str, Any]:
    number, small = epsilon_text(value.value), delta_text(value.delta)
    parts = {"delta": small, "adjacency": value.adjacency, "accountant": value.accountant}
    return {
        "number": number,
        "small": small,
        "text": f"ε {number}",
        "short": tr("at δ {delta}; {adjacency}; by {accountant}", **parts),
        "fine": tr("at δ {delta}; {adjacency}; by {accountant}; against {against}", against=value.against, **parts),
    }


def _share(share: float | None) -> str:
    return tr("no limit") if share is None else percent(share)


def _report(report: Report) -> dict[str, Any]:
    period = tr("{first} to {last}", first=moment(report.since), last=moment(report.made)) if report.since else ""
    facts = (
        (tr("Report number"), report.number),
        (tr("Made"), moment(report.made)),
        (tr("Period"), period),
        (tr("Product"), tr("Tessera {version}", version=report.version) if report.version else ""),
        (tr("Policy in force"), report.policy_hash),
    )
    return {"document": [{"label": label, "value": value} for label, value in facts if value]}


def _population(p: PopulationReport) -> dict[str, Any]:
    lines = [
        tr("{name} (version {version})", name=d.name, version=d.version)
        if d.patients is None
        else tr(
            "{name} version {version} (about {count} patients, the released noised count)",
            name=d.name,
            version=d.version,
            count=whole(d.patients),
        )
        for d in p.datasets
    ]
    return {
        "names": ", ".join(dict.fromkeys(d.name for d in p.datasets)),
        "datasets_text": ", ".join(lines),
        "spent_text": _share(p.share_spent),
        "promised_text": _share(p.share_promised_and_spent),
        "filter_text": tr("Gaussian: squares of mu add up, whatever each study saw before"),
    }


def _point(point: TimelinePoint) -> dict[str, Any]:
    head, _, number = point.event.partition(" ")
    counted = head == "round" and number.isdigit()
    return {
        "event_text": tr("round {number}", number=number) if counted else retold(point.event),
        "spent_text": epsilon_text(point.epsilon_spent),
        "promised_text": epsilon_text(point.epsilon_promised_and_spent),
        "share_text": "" if point.epsilon_cap is None else _share(point.share_promised_and_spent),
    }


def _study(study: StudyReport) -> dict[str, Any]:
    rounds = tr("{charged} of {planned} charged", charged=study.rounds_charged, planned=study.rounds_planned)
    if study.rounds_freed:
        rounds += "; " + tr("{count} given back", count=study.rounds_freed)
    signed = (p.name for p in study.people if p.decision.startswith("approved"))
    return {
        "state_text": tr(study.state),
        "rounds_text": rounds,
        "approved_by": listed(dict.fromkeys(signed)),
    }


def _round(line: RoundLine) -> dict[str, Any]:
    return {"bytes_text": "" if line.bytes_sent is None else whole(line.bytes_sent)}


def _person(person: Person) -> dict[str, Any]:
    return {"role_text": tr(person.role), "decision_text": tr(person.decision), "reason": person.reason}


def _party(party: PartyLine) -> dict[str, Any]:
    return {"role_text": tr(party.role)}


def _release(line: ReleaseLine) -> dict[str, Any]:
    return {"name": retold(line.name)}


def _denied(line: DeniedRequest) -> dict[str, Any]:
    return {"by_text": tr("datasite") if line.by == "datasite" else line.by}


def _audit(audit: EmpiricalAudit) -> dict[str, Any]:
    measured = tr(
        "ε at least {epsilon} ({confidence} confidence)",
        epsilon=epsilon_text(audit.lower_bound),
        confidence=percent(audit.confidence),
    )
    paths = [
        tr(
            "whole path, {noise} noise: {observed} of the canaries found where {allowed} may be ({result})",
            noise=path.noise,
            observed=percent(path.observed),
            allowed=percent(path.allowed),
            result=tr("refuted") if path.flagged else tr("not refuted"),
        )
        for path in audit.paths
    ]
    return {"measured": "; ".join([measured, *paths])}


def _chain(chain: ChainLine) -> dict[str, Any]:
    if not chain.last_entry:
        return {"entries_text": whole(chain.entries)}
    return {
        "entries_text": tr_plural(
            "{count} entry, on {last}",
            "{count} entries, the last on {last}",
            chain.entries,
            last=moment(chain.last_entry),
        )
    }


_ADDED: Mapping[type, Callable[[Any], dict[str, Any]]] = {
    Epsilon: _epsilon,
    Report: _report,
    PopulationReport: _population,
    TimelinePoint: _point,
    StudyReport: _study,
    RoundLine: _round,
    Person: _person,
    PartyLine: _party,
    DeniedRequest: _denied,
    ReleaseLine: _release,
    EmpiricalAudit: _audit,
    ChainLine: _chain,
}
