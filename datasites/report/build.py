"""Collect the privacy report of a datasite from its ledger, its journal and the requests it decided about."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import math
from collections.abc import Iterator, Sequence

from datasites.language import speaking, tr, tr_plural
from datasites.node.plugins import DISTRIBUTION
from datasites.report import words
from datasites.report.facts import (
    CapChange,
    DatasetLine,
    EmpiricalAudit,
    PopulationReport,
    ReleaseLine,
    Report,
    StudyReport,
    TimelinePoint,
)
from datasites.report.records import Records
from datasites.report.refusals import turned_down
from datasites.report.studies import software, study_report
from datasites.report.summary import summarise
from datasites.review.records import Request
from datasites.strategy.registry import noise_named
from datasites.study.proposal import Environment
from datasites.study.text import delta_text, epsilon_text
from privacy.identity import fingerprint
from privacy.ledger.ledger import Account, Point
from privacy.ledger.state import Posting


def build_report(
    *,
    site: str,
    institution: str,
    records: Records,
    requests: Sequence[Request] = (),
    audits: Sequence[EmpiricalAudit] = (),
    made: dt.datetime | None = None,
    policy_hash: str = "",
    environment: Environment | None = None,
    language: str = "en",
) -> Report:
    """Return the report of everything up to now.

    Args:
        site, institution: the datasite's name in the consortium, and the hospital's.
        records: of this datasite.
        requests: every proposal that arrived, with its decisions.
        audits: empirical audits to show beside the claims.
        made: the time on the report; None means that of the records.
        policy_hash: of the owner's policy that is in force.
        environment: the software that writes the report.
        language: of its sentences, one of :data:`datasites.language.LANGUAGES`.
    """
    by_hash = {request.proposal_hash: request for request in requests}
    seeded = {r.proposal_hash for r in requests if r.proposal.seed is not None}
    scaled = {r.proposal_hash for r in requests if r.proposal.model.self_scaled}
    with speaking(language):
        studies = tuple(
            study_report(account, study, by_hash.get(study.proposal_hash), records, environment)
            for account in records.accounts
            for study in account.studies
        )
        populations = tuple(_population(account, records, seeded, scaled) for account in records.accounts)
        releases = tuple(line for account in records.accounts for line in _releases(account))
        denied = tuple(sorted(turned_down(requests, records), key=lambda line: line.at))
        return Report(
            format="tessera-privacy-report/1",
            site=site,
            institution=institution,
            public_key=records.public_key,
            fingerprint=fingerprint(records.public_key),
            made=(made or records.at).isoformat(timespec="seconds"),
            watermarks=tuple(dict.fromkeys(w for s in studies for w in s.watermarks)),
            summary=summarise(populations, studies, releases, denied, records.chains),
            populations=populations,
            studies=studies,
            releases=releases,
            denied=denied,
            audits=tuple(audits),
            chains=records.chains,
            how_to_verify=words.how_to_verify(),
            terms=words.terms(),
            language=language,
            number=f"{site}-J{records.chains[0].entries}-L{records.chains[1].entries}",
            since=min((entry.at for entry in (*records.ledger[:1], *records.journal[:1])), default=""),
            version=importlib.metadata.version(DISTRIBUTION),
            software=software(environment) if environment else (),
            policy_hash=policy_hash,
        )


def _population(account: Account, records: Records, seeded: set[str], scaled: set[str]) -> PopulationReport:
    delta = account.cap.delta if account.cap else 0.0
    counts = {
        (e.body["dataset"], e.body["version"]): e.body["patients"]
        for e in records.journal
        if e.kind == "count-released"
    }
    points = records.timelines[account.population]
    modes = [noise_named(study.mechanism["noise"]) for study in account.studies if study.mechanism]
    shared = not all(mode.covers_single_updates for mode in modes)
    whom = words.as_assumed() if shared else words.everybody()
    if any(study.proposal_hash in seeded and study.charged_rounds for study in account.studies):
        whom = words.nobody()
    spent, committed = account.spent.epsilon, account.committed.epsilon
    if any(study.proposal_hash in scaled and study.charged_rounds for study in account.studies):
        spent = committed = math.inf  # older code charged it as if one patient moved her own inputs only
    return PopulationReport(
        name=account.population,
        datasets=tuple(DatasetLine(name=n, version=v, patients=counts.get((n, v))) for n, v in account.datasets),
        cap=words.stated(account.cap.epsilon, delta, words.filter_name(), whom) if account.cap else None,
        spent=words.stated(spent, delta, words.filter_name(), whom),
        promised_and_spent=words.stated(committed, delta, words.filter_name(), whom),
        share_spent=_finite(account.spent.share) if account.cap else None,
        share_promised_and_spent=_finite(account.committed.share) if account.cap else None,
        closed=account.closed,
        acts=tuple(_acts(account, records)),
        timeline=tuple(_timeline_point(point) for point in points),
    )


def _timeline_point(point: Point) -> TimelinePoint:
    return TimelinePoint(
        at=point.at,
        event=point.event,
        study=point.study,
        epsilon_spent=_finite(point.spent.epsilon),
        epsilon_promised_and_spent=_finite(point.committed.epsilon),
        epsilon_cap=_finite(point.cap.epsilon) if point.cap else None,
        share_spent=_finite(point.spent.share),
        share_promised_and_spent=_finite(point.committed.share),
    )


def _acts(account: Account, records: Records) -> Iterator[CapChange]:
    for entry in records.ledger:
        if entry.body.get("population") != account.population or entry.kind not in ("cap", "close", "free"):
            continue
        if entry.kind == "close":
            what = tr("closed for ever")
        elif entry.kind == "free":
            what = tr_plural(
                "{study}: the cost of {count} round given back",
                "{study}: the cost of {count} rounds given back",
                len(entry.body["rounds"]),
                study=entry.body["study"],
            )
        elif entry.body["epsilon"] is None:
            what = tr("cap removed (δ {delta})", delta=delta_text(entry.body["delta"]))
        else:
            epsilon, delta = epsilon_text(entry.body["epsilon"]), delta_text(entry.body["delta"])
            what = tr("cap set to ε {epsilon} at δ {delta}", epsilon=epsilon, delta=delta)
        yield CapChange(at=entry.at, what=what, by=entry.body["by"], reason=entry.body["reason"])


def _releases(account: Account) -> Iterator[ReleaseLine]:
    delta = account.cap.delta if account.cap else 0.0
    groups = (
        (account.releases, tr("noised and charged")),
        (account.imports, tr("spent elsewhere, counted here")),
        (account.unguaranteed, tr("WITHOUT GUARANTEE: released by hand, covered by no epsilon")),
    )
    for postings, guarantee in groups:
        yield from (_release(account, posting, delta, guarantee) for posting in postings)


def _release(account: Account, posting: Posting, delta: float, guarantee: str) -> ReleaseLine:
    cost = posting.cost
    return ReleaseLine(
        at=posting.at,
        population=account.population,
        name=posting.name,
        study=posting.study,
        by=posting.by,
        reason=posting.reason,
        epsilon=None
        if cost is None
        else words.stated(cost.epsilon(delta) if delta else math.inf, delta, words.filter_name(), words.everybody()),
        guarantee=guarantee,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


__all__ = ["StudyReport", "build_report"]
