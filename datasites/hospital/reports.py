"""Writes a datasite's privacy reports in a process of its own (``python -m datasites.hospital.reports HOME``).

Plots and PDF need libraries that a daemon should not carry. The report is read from the ledger, the journal and the
approvals of the home; ``summary.json`` beside it is what machines read first.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasites.language import LANGUAGES, speaking, tr
from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.node.http import SignedClient
from datasites.node.process import end_with_parent
from datasites.node.warm import start_module
from datasites.review.approvals import ApprovalStore
from datasites.review.environment import current_environment
from datasites.review.policy import Policy
from privacy.errors import TesseraError
from privacy.ledger.journal import PRIVACY_AUDIT, Journal
from privacy.ledger.ledger import Ledger

if TYPE_CHECKING:
    from datasites.report.facts import EmpiricalAudit, Report
    from datasites.report.writing import Sign
    from datasites.review.records import Request
    from privacy.ledger.chain import Entry


_LONGEST_SECONDS = 300.0


def write_reports(home: Home, languages: Sequence[str] = tuple(LANGUAGES), *, finished: str = "") -> tuple[Path, ...]:
    """Write HTML, PDF, JSON and summary into the home's ``reports`` folder; return the paths of the reports.

    Args:
        home: the datasite's.
        languages: of the reports, codes of :data:`datasites.language.LANGUAGES`.
        finished: a study whose own report is fetched from the orchestrator as well, by name.

    Raises:
        TesseraError: a PDF could not be set; everything else was written.
    """
    from datasites.node.credentials.signed_pdf import signer_of
    from datasites.report.build import build_report
    from datasites.report.records import Records

    config, identity = home.config(), home.identity()
    journal = Journal(home.folder / "journal.sqlite", identity)
    ledger = Ledger(home.folder / "ledger.sqlite", identity)
    approvals = ApprovalStore(
        home.folder / "approvals.sqlite",
        site=config.name,
        identity=identity,
        policy=Policy.load(home.folder / "policy.toml"),
        record=journal.append,
    )
    folder = home.folder / "reports"
    folder.mkdir(exist_ok=True, mode=0o700)
    try:
        facts: dict[str, Any] = {
            "site": config.name,
            "institution": config.institution,
            "records": Records.read(home.folder, config.name, ledger, journal),
            "requests": approvals.requests(),
            "policy_hash": approvals.policy.policy_hash,
            "environment": current_environment(),
        }
        built: list[tuple[Report, Sign]] = []
        for language in languages:
            with speaking(language):
                audits = tuple(_audit(entry) for entry in journal.entries(kind=PRIVACY_AUDIT))
                report = build_report(**facts, audits=audits, language=language)
                built.append((report, signer_of(home, f"{tr('Privacy budget report')} {report.number}")))
        paths, problem = _written(built, folder)
        write_atomically(folder / "summary.json", json.dumps(summary(ledger, config.name)).encode())
        if finished:
            _fetch(home, finished, facts["requests"], folder, journal)
        if problem is not None:
            raise problem
    finally:
        for store in (approvals, ledger, journal):
            store.close()
    return paths


def _written(built: Sequence[tuple[Report, Sign]], folder: Path) -> tuple[tuple[Path, ...], TesseraError | None]:
    """Write the JSON of every language, then pages and PDFs; return the paths, and why a PDF could not be set."""
    from datasites.report.writing import json_of, write_all

    paths: list[Path] = []
    problem = None
    for report, _ in built:
        json_of(report, folder)
    for report, sign in built:
        try:
            paths += write_all(report, folder, sign=sign)
        except TesseraError as error:
            problem = problem or error
    return tuple(paths), problem


def _fetch(home: Home, study: str, requests: Sequence[Request], folder: Path, journal: Journal) -> None:
    from datasites.hospital.study_reports import fetch_study_report

    approved = [r.proposal for r in requests if r.proposal.study == study and r.approval is not None]
    if not approved:
        return
    config = home.config()
    key = home.roster().orchestrator.public_key
    with SignedClient(home.identity(), config.orchestrator_url, key, ca=config.ca, proxy=config.proxy) as client:
        fetch_study_report(client, approved[-1], folder, journal)


def _audit(entry: Entry) -> EmpiricalAudit:
    from datasites.report import words
    from datasites.report.facts import EmpiricalAudit, Epsilon, PathAudit

    found = entry.body
    claimed = Epsilon(
        value=None if found["claimed"] == "inf" else float(found["claimed"]),
        delta=float(found["delta"]),
        adjacency=words.adjacency(),
        accountant=words.pld(),
        against=words.everybody(),
    )
    return EmpiricalAudit(
        at=entry.at,
        study=str(found["study"]),
        data=str(found["data"]),
        canaries=int(found["canaries"]),
        confidence=float(found["confidence"]),
        lower_bound=float(found["lower"]),
        claimed=claimed,
        flagged=bool(found["flagged"]),
        paths=tuple(
            PathAudit(
                noise=str(path["noise"]),
                canaries=int(path["curve"]["canaries"]),
                tests=int(path["curve"]["tests"]),
                observed=float(path["curve"]["observed"]),
                allowed=float(path["curve"]["allowed"]),
                flagged=bool(path["flagged"]),
            )
            for path in found.get("paths", ())
        ),
    )


def summary(ledger: Ledger, site: str) -> dict[str, Any]:
    """Return what was spent of which cap, for the population that has spent most; infinite is the string "inf"."""
    accounts = [ledger.account(population) for population in ledger.populations()]
    most = max(accounts, key=lambda account: account.spent.epsilon)
    return {
        "site": site,
        "population": most.population,
        "epsilon_spent": _plain(most.spent.epsilon),
        "epsilon_cap": _plain(most.cap.epsilon) if most.cap else None,
        "delta": most.spent.delta,
        "studies": {
            s.study: {"rounds": len(s.charged_rounds), "epsilon": _plain(s.spent.epsilon)} for s in most.studies
        },
    }


def _plain(epsilon: float) -> float | str:
    return "inf" if math.isinf(epsilon) else epsilon  # JSON has no such number


def write_reports_apart(home: Home, *, finished: str = "") -> None:
    """Write the reports in a process of their own, which ends with this one; see :func:`write_reports`.

    Raises:
        TesseraError: it failed, or took more than five minutes; its message is in this process's log.
    """
    writer = start_module("datasites.hospital.reports", [str(home.folder), finished], pipe=True)
    try:
        code = writer.wait(_LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        writer.kill()
        writer.wait()
        raise TesseraError(
            f"the privacy report was not written within {_LONGEST_SECONDS:g} seconds; try again when the machine "
            "is less busy"
        ) from None
    finally:
        if writer.stdin is not None:
            writer.stdin.close()
    if code != 0:
        raise TesseraError("the privacy report could not be written; the reason is in the log above")


if __name__ == "__main__":
    end_with_parent()
    write_reports(Home(folder=Path(sys.argv[1])), finished=sys.argv[2])
