"""The study report at the hospital: fetched from the orchestrator when a study is over, and kept beside its own.

The PDF has to carry the signature of the orchestrator that the hospital approved, and the JSON to name the approved
proposal. No page of the orchestrator's is shown at the hospital's own address.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from datasites.language import LANGUAGES
from datasites.node.credentials.signed_pdf import MOST_BYTES, check_pdf
from datasites.node.files import write_atomically
from datasites.node.http import SignedClient
from datasites.review.endings import STUDY_REPORT
from datasites.study.proposal import Proposal
from privacy.errors import Tampered, TesseraError
from privacy.ledger.journal import Journal

PREFIX = "study-report"


def fetch_study_report(client: SignedClient, proposal: Proposal, folder: Path, journal: Journal) -> bool:
    """Fetch, check and keep the report of a study in every language; return whether all of it came.

    What came, or why nothing did, is journaled as ``study-report``. Nothing is kept of a report that is not as it
    should be.

    Args:
        client: asks the orchestrator as the hospital.
        proposal: of the study, as it was approved here.
        folder: for the files, made when missing.
        journal: the hospital's.
    """
    stem = f"{PREFIX}.{proposal.proposal_hash[:16]}"
    where = f"/studies/{proposal.study}/report"
    about = {"study": proposal.study, "proposal_hash": proposal.proposal_hash}
    try:
        found = {
            f"{stem}.{language}.pdf": client.get_bytes(
                where, params={"kind": "pdf", "language": language}, max_bytes=MOST_BYTES
            )
            for language in LANGUAGES
        }
        for document in found.values():
            _check(document, proposal)
        found[f"{stem}.json"] = client.get_bytes(where, params={"kind": "json"}, max_bytes=MOST_BYTES)
        _check_facts(found[f"{stem}.json"], proposal)
    except TesseraError as error:
        journal.append(STUDY_REPORT, {**about, "problem": str(error)})
        return False
    for name, document in found.items():
        write_atomically(folder / name, document)
    files = {name: hashlib.sha256(document).hexdigest() for name, document in found.items()}
    journal.append(STUDY_REPORT, {**about, "files": files})
    return True


def _check_facts(document: bytes, proposal: Proposal) -> None:
    try:
        facts = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise Tampered("the orchestrator's study report is no JSON") from error
    if not isinstance(facts, dict) or facts.get("proposal_hash") != proposal.proposal_hash:
        raise Tampered("the orchestrator's study report is about another proposal")


def _check(document: bytes, proposal: Proposal) -> None:
    if check_pdf(document).public_key != proposal.orchestrator.public_key:
        raise Tampered("the study report was signed by somebody else than the orchestrator of the study")
