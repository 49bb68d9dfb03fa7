"""A hospital's process: portal for its staff, PySyft node, and rounds; it only dials out otherwise.

Three threads beside the portal's server: one receives proposals and plain jobs over PySyft, one tells the
orchestrator about approvals, one asks for work and does it. Each is a loop that a restart simply begins again.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from datasites import portal_facts
from datasites.accounts import AccountStore
from datasites.approval_checks import check_code
from datasites.approval_records import Request, open_proposal
from datasites.approvals import ApprovalStore
from datasites.contract import Proposal, Signed, WorkItem, dump, parse
from datasites.files import lack_of_room, remove_unfinished, write_atomically
from datasites.home import Home
from datasites.http import SignedClient
from datasites.lifecycle import Loop, announce, bind, keep_private, on_end_signal, stop_loops
from datasites.policy import Policy
from datasites.portal.app import create_portal
from datasites.publishing import Datasets
from datasites.reporting import write_reports_apart
from datasites.rollback import Standing
from datasites.rounds import RoundParticipant
from datasites.sandbox import say_layers
from datasites.syft.client import OwnerNode, ReceivedJob
from datasites.syft.postbox import Postbox
from datasites.syft.runner import PROPOSAL_FILE
from datasites.training import SandboxedTrainer
from datasites.web_server import WebServer
from datasites.witness import Witness
from datasites.work import WorkQueue
from datasites.worker_pool import WorkerPool
from datasites.worker_protocol import Outcome
from privacy.errors import Refused, TesseraError
from privacy.journal import Journal
from privacy.ledger import Ledger

_POLL_SECONDS = 20.0
_LAYERS_SECONDS = 10.0  # trying them takes a process of its own, which may wait until the start is over
_ROLLED_BACK_SECONDS = 5.0
_ASK_AGAIN_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Datasite:
    """Everything one datasite consists of."""

    home: Home
    site: str
    client: SignedClient
    policy: Policy
    journal: Journal
    ledger: Ledger
    accounts: AccountStore
    approvals: ApprovalStore
    datasets: Datasets
    pool: WorkerPool
    trainer: SandboxedTrainer
    participant: RoundParticipant
    standing: Standing

    @classmethod
    def open(cls, home: Home) -> Datasite:
        """Open a home's stores.

        Raises:
            InvalidInput: a file is missing or malformed.
        """
        config, identity, roster = home.config(), home.identity(), home.roster()
        policy = Policy.load(home.folder / "policy.toml")
        journal = Journal(home.folder / "journal.sqlite", identity)
        ledger = Ledger(home.folder / "ledger.sqlite", identity)
        datasets = Datasets(home=home, ledger=ledger, journal=journal, policy=policy)
        client = SignedClient(identity, config.orchestrator_url, roster.orchestrator.public_key, ca=config.ca)

        standing = Standing(home=home, client=client, ledger=ledger, journal=journal)

        def reserve(proposal: Proposal) -> None:
            standing.require()
            population = datasets.population_of(proposal.participant(config.name).dataset)
            ledger.reserve(
                population,
                study=proposal.study,
                proposal_hash=proposal.proposal_hash,
                plan=proposal.mechanism,
            )

        approvals = ApprovalStore(
            home.folder / "approvals.sqlite",
            site=config.name,
            identity=identity,
            policy=policy,
            record=journal.append,
            reserve=reserve,
        )
        pool = WorkerPool(policy.sandbox)
        trainer = SandboxedTrainer(
            site=config.name,
            pool=pool,
            folder=home.folder / "scratch",
            code_of=lambda proposal_hash: approvals.request(proposal_hash).folder,
            failed=lambda outcome, log: _keep_log(home, outcome, log),
        )
        participant = RoundParticipant(
            site=config.name,
            home=home,
            client=client,
            approvals=approvals,
            ledger=ledger,
            journal=journal,
            train=trainer,
            dataset=datasets.here,
            round_seconds=policy.sandbox.round_seconds,
        )
        journal.append("started", {"policy_hash": policy.policy_hash})
        return cls(
            home=home,
            site=config.name,
            client=client,
            policy=policy,
            journal=journal,
            ledger=ledger,
            accounts=AccountStore(home.folder / "accounts.sqlite"),
            approvals=approvals,
            datasets=datasets,
            pool=pool,
            trainer=trainer,
            participant=participant,
            standing=standing,
        )

    def close(self) -> None:
        """Close everything; workers are ended."""
        self.pool.close()
        self.client.close()
        for store in (self.approvals, self.accounts, self.ledger, self.journal):
            store.close()


def _keep_log(home: Home, outcome: Outcome, log: str) -> None:
    """Keep a failed worker's log for the hospital's own staff."""
    name = dt.datetime.now(dt.UTC).strftime("worker-%Y%m%dT%H%M%S.log")
    text = f"{outcome.status}: {outcome.reason} after {outcome.seconds:.1f} s\n\n{log}"
    write_atomically(home.folder / "worker-logs" / name, text.encode())


class Node:
    """The PySyft side: publishes mocks, receives proposals, runs plain jobs on mocks."""

    def __init__(self, datasite: Datasite) -> None:
        self._datasite = datasite
        self._published = False

    @cached_property
    def _owner(self) -> OwnerNode:
        """PySyft's client; it speaks to the orchestrator at once, so it is made where failures are tried again."""
        home = self._datasite.home
        roster = home.roster()
        postbox = Postbox(self._datasite.client, self._datasite.site, lambda name: roster.by_name(name).public_key)
        return OwnerNode(home.folder / "syft", postbox, scientists=[roster.orchestrator.name])

    def step(self) -> float:
        """Publish once, then wait for news and deal with it; begin again from the folder after a failed disk."""
        try:
            return self._step()
        except OSError:
            vars(self).pop("_owner", None)
            raise

    def _step(self) -> float:
        if self._published:
            if not self._owner.wait_for_news(_POLL_SECONDS):
                return 0.0
        else:
            self._publish()
            self._published = True
        self._owner.sync()
        waiting = self._owner.pending_jobs()
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
            # a plain job runs on the mock only, in the sandbox, so it needs no reviewer
            self._datasite.journal.append("plain-job", {"name": job.name, "submitter": job.submitter})
            self._owner.approve(job, "runs on mock data only")
            return
        try:
            plans = self._datasite.home.folder / "plans"
            receive_proposal(self._datasite.approvals, job.folder, plans, now=dt.datetime.now(dt.UTC))
            self._owner.approve(job, "received for review; training needs the portal's approval")
        except TesseraError as error:
            self._datasite.journal.append("proposal-rejected", {"job": job.name, "reason": str(error)})
            self._owner.reject(job, str(error))


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
    check_code(proposal, job, besides=(PROPOSAL_FILE,))
    folder = plans / str(signed.signature).translate(_SAFE)[:40]
    new = not folder.exists()
    if new:
        staging = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(job, staging, ignore=shutil.ignore_patterns(PROPOSAL_FILE))
        staging.replace(folder)
    try:
        return approvals.receive(signed, folder, now=now)
    except TesseraError:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


_SAFE = str.maketrans({"/": "_", "+": "-", "=": None})


class Messenger:
    """Tells the orchestrator about approvals, until it has taken them."""

    def __init__(self, datasite: Datasite) -> None:
        self._datasite = datasite
        self._told: set[str] = set()
        self._declined: dict[str, float] = {}

    def step(self) -> float:
        """Send what was approved since, and once more what the orchestrator declined a while ago."""
        for request in self._datasite.approvals.requests():
            if request.state == "approved" and request.approval and request.proposal_hash not in self._told:
                self._tell(request.proposal_hash, request.proposal.study, request.approval)
        return 0.3

    def _tell(self, proposal_hash: str, study: str, approval: Signed) -> None:
        if time.monotonic() < self._declined.get(proposal_hash, 0.0):
            return
        try:
            self._datasite.client.post_json(f"/studies/{study}/approvals", dump(approval))
        except Refused as error:
            if proposal_hash not in self._declined:
                self._datasite.journal.append("approval-unwanted", {"reason": str(error)})
            self._declined[proposal_hash] = time.monotonic() + _ASK_AGAIN_SECONDS
            return
        self._told.add(proposal_hash)
        self._datasite.pool.start()  # the first round should not wait for the worker's imports


class Worker:
    """Asks for work and does it."""

    def __init__(self, datasite: Datasite) -> None:
        self._datasite = datasite
        self._witness = Witness(
            home=datasite.home,
            client=datasite.client,
            proposals=datasite.approvals.sealed_proposals,
            trouble=lambda: datasite.standing.trouble or lack_of_room(datasite.home.folder),
        )
        self._queue = WorkQueue(datasite.client, witness=self._witness)
        self._reported: set[str] = set()
        self._stands = False

    def step(self) -> float:
        """Do what is to be done now, or wait for it; nothing at all while the chains are older than what left."""
        if not self._stands:
            self._stands = self._datasite.standing.holds()
            if not self._stands:
                self._witness.meet()  # the orchestrator shows why nothing comes from here
                return _ROLLED_BACK_SECONDS
        self._queue.deal(self._handle)
        return 0.0

    def _handle(self, item: WorkItem) -> None:
        if item.kind != "finished":
            self._datasite.participant.handle(item)
        elif item.study not in self._reported:
            self._datasite.pool.close()  # its memory is not needed until the next study
            write_reports_apart(self._datasite.home)
            self._reported.add(item.study)


def first_link(accounts: AccountStore, home: Home) -> str:
    """Return a one-time link for the first steward; empty when there are accounts, or a link that still holds."""
    now = dt.datetime.now(dt.UTC)
    if accounts.accounts() or accounts.invited(now=now):
        return ""
    return registration_link(home, accounts.invite("steward", now=now))


def registration_link(home: Home, token: str) -> str:
    """Return where the portal turns an invitation into an account; the portal must have announced itself."""
    url = json.loads((home.folder / "address.json").read_bytes())["url"]
    return f"{url}/register?token={token}"


def run(folder: Path) -> None:
    """Serve until the process is asked to end.

    Raises:
        InvalidInput: the folder is no datasite's, or the portal's port is taken.
    """
    keep_private(folder)
    home = Home(folder=folder)
    config = home.config()
    listener = bind(config.host, config.port)
    remove_unfinished(folder)
    datasite = Datasite.open(home)
    node = Node(datasite)
    loops = [
        Loop("syft", node.step),
        Loop("approvals", Messenger(datasite).step),
        Loop("work", Worker(datasite).step),
    ]
    app = create_portal(portal_facts.context(datasite))
    server = WebServer(app, config, app.state.desk.streams.close)
    layers = threading.Timer(_LAYERS_SECONDS, say_layers, [datasite.policy.sandbox.minimum_layers])
    layers.daemon = True
    on_end_signal(lambda: setattr(server, "should_exit", True))
    try:
        for loop in loops:
            loop.start()
        announce(folder, listener, "datasite", public_url=config.public_url, https=bool(config.tls_certificate))
        welcome = first_link(datasite.accounts, home)
        if welcome:  # not by the log, which would cut the secret out
            sys.stdout.write(f"{config.name}: make the first steward's account within three days at {welcome}\n")
            sys.stdout.flush()
        layers.start()
        server.run(sockets=[listener])
    finally:
        layers.cancel()
        stop_loops(loops)
        datasite.close()
        (folder / "address.json").unlink(missing_ok=True)
