"""What the portal shows, read from the datasite's stores at this moment; and the reports it offers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from datasites.hospital.reports import write_reports_apart
from datasites.portal.context import BudgetLine, CostPreview, DryRun, PortalContext, ReportFile, Spending, StudyStatus
from datasites.review.records import Request
from datasites.study.proposal import Proposal
from datasites.worker.sandbox import available_layers
from privacy.ledger.views import Account, StudyAccount, timeline

if TYPE_CHECKING:
    from datasites.hospital.datasite import Datasite
    from datasites.review.oidc import OidcProvider


_ACCOUNTANT = "RDP filter across studies; add or remove one patient"
_TITLES = {"html": "Privacy report (web page)", "pdf": "Privacy report (PDF)", "json": "Privacy report (JSON)"}


def context(datasite: Datasite) -> PortalContext:
    """Return the portal's view of a datasite."""
    config = datasite.home.config()
    return PortalContext(
        site=config.name,
        institution=config.institution,
        public_key=datasite.home.identity().public_key,
        accounts=datasite.accounts,
        approvals=datasite.approvals,
        journal=datasite.journal,
        preview=lambda proposal: preview(datasite, proposal),
        budget=lambda: budget(datasite),
        studies=lambda: studies(datasite),
        reports=lambda: reports(datasite.home.folder / "reports"),
        dry_run=lambda request, watch: dry_run(datasite, request, watch),
        write_reports=lambda: write_reports_apart(datasite.home),
        trouble=lambda: datasite.standing.trouble,
        layers=lambda: {str(name): on for name, on in available_layers().items()},
        public_url=config.public_url,
        hospital_login=_hospital_login(datasite.home.folder),
        secure_cookies=config.public_url.startswith("https:") or bool(config.tls_certificate),
    )


def _hospital_login(folder: Path) -> OidcProvider | None:
    path = folder / "oidc.toml"
    if not path.exists():
        return None
    from datasites.review.oidc import OidcProvider, OidcSettings  # costs memory that most hospitals need not spend

    settings = OidcSettings.load(path)
    return None if settings is None else OidcProvider(settings)


def preview(datasite: Datasite, proposal: Proposal) -> CostPreview:
    """Return what a study would cost the population it asks for."""
    population = datasite.datasets.population_of(proposal.participant(datasite.site).dataset)
    account = datasite.ledger.account(population)
    if account.cap is not None and any(s.proposal_hash == proposal.proposal_hash for s in account.studies):
        cap, before, after, fits, reserved = account.cap, account.spent, account.committed, True, True
    else:
        found = datasite.ledger.preview(population, proposal.mechanism)
        cap, before, after, fits, reserved = found.cap, found.before, found.after, found.fits, False
    return CostPreview(
        population=population,
        delta=cap.delta,
        cap=cap.epsilon,
        before=before.epsilon,
        cost=proposal.mechanism.epsilon(cap.delta),
        after=after.epsilon,
        accountant=_ACCOUNTANT,
        fits=fits,
        reserved=reserved,
    )


def budget(datasite: Datasite) -> tuple[BudgetLine, ...]:
    """Return one line per patient population, with its history."""
    return tuple(_budget_line(datasite, name) for name in datasite.ledger.populations())


def _budget_line(datasite: Datasite, population: str) -> BudgetLine:
    account = datasite.ledger.account(population)
    return BudgetLine(
        population=population,
        datasets=tuple(f"{name} version {version}" for name, version in account.datasets),
        cap=account.cap.epsilon if account.cap else 0.0,
        delta=account.cap.delta if account.cap else 0.0,
        spent=account.spent.epsilon,
        reserved=account.committed.epsilon,
        timeline=_timeline(datasite, population),
    )


def _timeline(datasite: Datasite, population: str) -> tuple[Spending, ...]:
    """Return the epsilon spent after every entry that concerns a population, oldest first."""
    return tuple(
        Spending(at=point.at, study=point.study or "", event=point.event, epsilon=point.spent.epsilon)
        for point in timeline(datasite.ledger.entries(), population)
    )


def studies(datasite: Datasite) -> tuple[StudyStatus, ...]:
    """Return the studies that have a line in the ledger."""
    found = []
    for population in datasite.ledger.populations():
        account = datasite.ledger.account(population)
        found += [_study_status(datasite, account, study) for study in account.studies]
    return tuple(found)


def _study_status(datasite: Datasite, account: Account, study: StudyAccount) -> StudyStatus:
    done = len(study.charged_rounds)
    state = datasite.approvals.request(study.proposal_hash).state
    if state == "approved":
        state_now = "finished" if done == study.rounds else "running" if done else "waiting"
    else:
        state_now = "stopped"
    return StudyStatus(
        study=study.study,
        proposal_hash=study.proposal_hash,
        state=state_now,
        rounds_done=done,
        rounds=study.rounds,
        epsilon_spent=study.spent.epsilon,
        delta=account.cap.delta if account.cap else 0.0,
    )


def dry_run(datasite: Datasite, request: Request, watch: Callable[[Path], object]) -> DryRun:
    """Run one round of a request on the mock part, in the sandbox of the real one; ``watch`` hears where its log is."""
    reference = request.proposal.participant(datasite.site).dataset
    _, folder = datasite.datasets.here(reference.name)
    trial = datasite.trainer.try_on_mock(request, folder, watch=watch)
    return DryRun(
        outcome=trial.outcome.status,
        seconds=trial.outcome.seconds,
        memory_bytes=trial.outcome.peak_memory_bytes,
        log=trial.log,
        leaves=trial.leaves,
        checks=trial.checks,
        layers=trial.outcome.layers,
    )


def reports(folder: Path) -> tuple[ReportFile, ...]:
    """Return the reports that lie in a folder."""
    found = []
    for suffix, title in _TITLES.items():
        path = folder / f"privacy-report.{suffix}"
        if path.exists():
            made = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC).isoformat(timespec="seconds")
            found.append(ReportFile(name=path.name, title=title, path=path, created=made))
    return tuple(found)
