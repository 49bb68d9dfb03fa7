"""The PySyft side of a hospital: it publishes mocks, receives proposals for review, and runs plain jobs on mocks."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
from functools import cached_property
from pathlib import Path

from datasites.hospital.datasite import Datasite
from datasites.node.home import Home
from datasites.node.roster import Roster
from datasites.review.approvals import ApprovalStore
from datasites.review.checks import check_code
from datasites.review.records import PROPOSAL, Request, open_proposal
from datasites.study.proposal import Proposal
from datasites.study.requests import REQUEST_FILE, check_request
from datasites.study.signing import Signed, open_sealed, parse
from datasites.syft.client import OwnerNode, ReceivedJob
from datasites.syft.postbox import Postbox
from datasites.syft.runner import PROPOSAL_FILE, in_workers
from privacy.errors import Refused, TesseraError
from privacy.ledger.journal import Journal

_POLL_SECONDS = 20.0
_JOBS_SECONDS = 2.0
"""How soon a decision about a plain job is seen."""


class Node:
    """The PySyft side: publishes mocks, receives proposals, runs plain jobs on mocks."""

    def __init__(self, datasite: Datasite) -> None:
        self._datasite = datasite
        self._published = False
        self._undecided: set[str] = set()

    @cached_property
    def _owner(self) -> OwnerNode:
        """PySyft's client; it speaks to the orchestrator at once, so it is made where failures are tried again."""
        home = self._datasite.home
        roster = home.roster()
        postbox = Postbox(self._datasite.client, self._datasite.site, home.keys_of)
        sandbox = in_workers(self._datasite.pool)
        asking = [roster.orchestrator.name, *(scientist.name for scientist in roster.scientists)]
        return OwnerNode(home.folder / "syft", postbox, scientists=asking, sandbox=sandbox)

    def step(self) -> float:
        """Publish once, then wait for news and deal with it; begin again from the folder after a failed disk."""
        try:
            return self._step()
        except OSError:
            vars(self).pop("_owner", None)
            raise

    def _step(self) -> float:
        jobs = self._datasite.jobs
        if self._published:
            waits = bool(self._undecided)
            news = self._owner.wait_for_news(_JOBS_SECONDS if waits else _POLL_SECONDS)
            if not news and all(jobs.job(job_id).decision == "waiting" for job_id in self._undecided):
                return 0.0
        else:
            self._publish()
            self._published = True
        self._owner.sync()
        waiting = self._owner.pending_jobs()
        self._undecided.clear()
        for job in waiting:
            self._receive(job)
        if waiting or any(not job.is_proposal for job in self._owner.approved_jobs()):
            self._owner.run_approved_on_mock()
            self._owner.sync()
        return 0.0

    def _publish(self) -> None:
        for folder in self._datasite.home.datasets():
            published = self._datasite.datasets.publish(folder)
            self._owner.publish_dataset(
                folder.parent.name,
                mock_path=published,
                private_location="the datasite's own folder",
                summary=f"{self._datasite.site}: staging data, mock rows only",
            )

    def _receive(self, job: ReceivedJob) -> None:
        if not job.is_proposal:
            self._receive_plain(job)
            return
        try:
            home = self._datasite.home
            check_asked(job, home.roster(), self._datasite.journal)
            receive_proposal(self._datasite.approvals, job.folder, home.folder / "plans", now=dt.datetime.now(dt.UTC))
            self._owner.approve(job, "received for review; training needs the portal's approval")
        except TesseraError as error:
            self._datasite.journal.append("proposal-rejected", {"job": job.name, "reason": str(error)})
            self._owner.reject(job, str(error))
            decline(self._datasite.approvals, job.folder, self._datasite.home, str(error))

    def _receive_plain(self, job: ReceivedJob) -> None:
        """Have people look at a plain job, and tell its submitter what they decided; or follow the owner's rule."""
        datasite, now = self._datasite, dt.datetime.now(dt.UTC)
        try:
            kept = datasite.jobs.receive(job.name, job.submitter, job.folder, job.files, now=now)
            if kept.decision == "waiting" and datasite.policy.review.auto_approve_plain_jobs:
                rule = "the policy's auto_approve_plain_jobs"
                kept = datasite.jobs.decide(kept.job_id, "approved", person=rule, reason="", now=now)
            if kept.decision == "approved":
                self._owner.approve(job, kept.reason or "runs on mock data only")
            elif kept.decision == "rejected":
                self._owner.reject(job, kept.reason or "rejected by the hospital's people")
            else:
                self._undecided.add(kept.job_id)
        except Refused as error:
            datasite.journal.append("plain-job-refused", {"name": job.name, "reason": str(error)})
            self._owner.reject(job, str(error))


def check_asked(job: ReceivedJob, roster: Roster, journal: Journal) -> None:
    """Check who asks for a study, and journal a scientist's own signature.

    Raises:
        Refused: the scientist that it names did not ask for it, is not in the roster, or somebody else sent it.
    """
    proposal = open_proposal(parse(Signed, (job.folder / PROPOSAL_FILE).read_bytes()))
    path = job.folder / REQUEST_FILE
    request = parse(Signed, path.read_bytes()) if path.is_file() else None
    check_request(proposal, request, roster.scientists)
    asker = proposal.scientist
    if job.submitter not in {roster.orchestrator.name, *([asker.name] if asker else [])}:
        raise Refused(f"{job.submitter} sent a proposal that is not theirs")
    if asker is not None and request is not None:
        body = {"study": proposal.study, "proposal_hash": proposal.proposal_hash, "scientist": asker.name}
        known = journal.entries(kind=ASKED)
        if not any(entry.body["proposal_hash"] == proposal.proposal_hash for entry in known):
            journal.append(ASKED, {**body, "public_key": asker.public_key, "signature": request.signature})


def receive_proposal(approvals: ApprovalStore, job: Path, plans: Path, *, now: dt.datetime) -> Request:
    """Keep a submitted proposal and its code where PySyft's synchronisation cannot change it any more.

    Signature and file list are checked where the job lies, before anything is copied; nothing stays of what is refused.

    Args:
        approvals: receives it.
        job: the submitted tree, with the signed proposal in it.
        plans: gets one folder for it.
        now: the present time, with zone.

    Raises:
        Refused, InvalidInput, Tampered: as :meth:`ApprovalStore.receive`.
    """
    signed = parse(Signed, (job / PROPOSAL_FILE).read_bytes())
    proposal = open_proposal(signed)
    check_code(proposal, job, besides=(PROPOSAL_FILE, REQUEST_FILE))
    folder = plans / str(signed.signature).translate(_SAFE)[:40]
    new = not folder.exists()
    if new:
        staging = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(job, staging, ignore=shutil.ignore_patterns(PROPOSAL_FILE, REQUEST_FILE))
        staging.replace(folder)
    try:
        return approvals.receive(signed, folder, now=now)
    except TesseraError:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def decline(approvals: ApprovalStore, job: Path, home: Home, reason: str) -> None:
    """Have the scientist read why a submitted proposal was not taken, if our own orchestrator signed it."""
    with contextlib.suppress(TesseraError):
        signed = parse(Signed, (job / PROPOSAL_FILE).read_bytes())
        proposal = open_sealed(signed, PROPOSAL, home.orchestrator_keys(), Proposal)
        approvals.thread.decline(proposal, reason, now=dt.datetime.now(dt.UTC))


ASKED = "study-asked"
_SAFE = str.maketrans({"/": "_", "+": "-", "=": None})
