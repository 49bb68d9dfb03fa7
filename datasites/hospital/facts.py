"""What the portal shows, read from the datasite's stores at this moment; and the reports it offers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasites.data.dataset import read_schema
from datasites.data.glance import Glance, glance
from datasites.hospital.reports import write_reports_apart
from datasites.hospital.study_reports import PREFIX
from datasites.language import LANGUAGES, current, mark, tr
from datasites.node.joining.changes import confirm, offered
from datasites.portal.context import PortalContext, ReportFile
from datasites.review import budgets
from datasites.review.budgets import CostPreview, StudyStatus
from datasites.review.endings import held_rounds
from datasites.review.records import Request
from datasites.study.proposal import Proposal
from datasites.study.recomputed.chain import voids
from datasites.worker.sandbox import available_layers
from privacy.ledger.views import Point

if TYPE_CHECKING:
    from datasites.hospital.datasite import Datasite
    from datasites.review.oidc import OidcProvider
    from datasites.worker.trainer import Trial


_TITLES = {
    "html": mark("Privacy report (web page)"),
    "pdf": mark("Privacy report (PDF)"),
    "json": mark("Privacy report (JSON)"),
}


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
        budgets=lambda: budgets.budgets(datasite.ledger),
        history=lambda: history(datasite),
        studies=lambda: studies(datasite),
        reports=lambda: reports(datasite.home.folder / "reports", _studies(datasite)),
        dry_run=lambda request, watch: dry_run(datasite, request, watch),
        budget_details=lambda: {p: budgets.details(datasite.ledger, p) for p in datasite.ledger.populations()},
        budget_acts=datasite.acts,
        policy_problem=lambda: datasite.policies.problem,
        write_reports=lambda: write_reports_apart(datasite.home),
        error=lambda: datasite.standing.trouble,
        absences=datasite.absences,
        jobs=datasite.jobs,
        unchecked=lambda proposal: voids(proposal, knows=datasite.participant.models.known),
        glance=lambda proposal: at_a_glance(datasite, proposal),
        layers=lambda: {str(name): on for name, on in available_layers().items()},
        public_url=config.public_url,
        folder=datasite.home.folder,
        roster_change=lambda: offered(datasite.home),
        confirm_roster=lambda digest: confirm(datasite.home, digest),
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
    return budgets.preview(datasite.ledger, population, proposal, datasite.site)


def at_a_glance(datasite: Datasite, proposal: Proposal) -> Glance | None:
    """Return the dataset that a study asks for, or None where that version is not here any more."""
    asked = proposal.participant(datasite.site).dataset
    for folder in datasite.home.datasets():
        schema = read_schema(folder)
        if (schema.name, schema.version) == (asked.name, asked.version):
            return glance(folder, asked.patients)
    return None


def studies(datasite: Datasite) -> tuple[StudyStatus, ...]:
    """Return the studies that have a line in the ledger."""
    accounts = [datasite.ledger.account(population) for population in datasite.ledger.populations()]
    return tuple(
        replace(
            budgets.study_status(account, study, datasite.approvals.request(study.proposal_hash).state),
            failed=held_rounds(datasite.journal, study.study),
        )
        for account in accounts
        for study in account.studies
    )


def history(datasite: Datasite) -> dict[str, tuple[Point, ...]]:
    """Return, by population, its budget after every entry that concerns it."""
    return {population: datasite.ledger.timeline(population) for population in datasite.ledger.populations()}


def dry_run(datasite: Datasite, request: Request, watch: Callable[[Path], object]) -> Trial:
    """Run one round of a request on the mock part, in the sandbox; ``watch`` is called with the path of its log."""
    reference = request.proposal.participant(datasite.site).dataset
    _, folder = datasite.datasets.here(reference.name)
    return datasite.trainer.try_on_mock(request, folder, watch=watch)


def reports(folder: Path, studies: Mapping[str, str]) -> tuple[ReportFile, ...]:
    """Return the reports that lie in a folder, those in the language that is spoken first.

    Args:
        folder: of the reports.
        studies: names of studies by the first 16 digits of the proposal's hash.
    """
    spoken = sorted(LANGUAGES, key=lambda code: code != current())
    found = []
    for language in spoken:
        middle = "" if language == "en" else f".{language}"
        for suffix, title in _TITLES.items():
            found.append(_file(folder / f"privacy-report{middle}.{suffix}", _in(tr(title), language)))
    for short, study in studies.items():
        for language in spoken:
            title = _in(tr("Report of the study {study} (PDF, signed by the orchestrator)", study=study), language)
            found.append(_file(folder / f"{PREFIX}.{short}.{language}.pdf", title))
        title = tr("Report of the study {study} (JSON)", study=study)
        found.append(_file(folder / f"{PREFIX}.{short}.json", title))
    return tuple(file for file in found if file is not None)


def _in(title: str, language: str) -> str:
    return title if language == current() else f"{title}, {LANGUAGES[language]}"


def _file(path: Path, title: str) -> ReportFile | None:
    if not path.exists():
        return None
    made = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC).isoformat(timespec="seconds")
    return ReportFile(name=path.name, title=title, path=path, created=made)


def _studies(datasite: Datasite) -> dict[str, str]:
    requests = (request for request in datasite.approvals.requests() if request.approval is not None)
    return {request.proposal_hash[:16]: request.proposal.study for request in requests}
