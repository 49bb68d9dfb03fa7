"""A hospital's process: portal for its staff, PySyft node, and rounds; it only dials out otherwise.

Three threads beside the portal's server: one receives proposals and plain jobs over PySyft, one tells the
orchestrator about approvals, one asks for work and does it. Each is a loop that a restart simply begins again.
"""

from __future__ import annotations

import datetime as dt
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from datasites.hospital import facts
from datasites.hospital.datasite import Datasite
from datasites.hospital.people.invitations import first_link
from datasites.hospital.proposals import Node
from datasites.hospital.reports import write_reports_apart
from datasites.hospital.rounds.lanes import Lanes
from datasites.hospital.thread import Thread
from datasites.hospital.watch import Watch
from datasites.node.files import lack_of_room, remove_unfinished
from datasites.node.home import Home
from datasites.node.joining.changes import look
from datasites.node.notices.delivery import Delivery
from datasites.node.notices.outbox import Outbox
from datasites.node.notices.settings import NoticeSettings
from datasites.node.process import Loop, alone_in, announce, bind, on_end_signal, stop_loops
from datasites.node.web.server import WebServer
from datasites.node.wellbeing import watched
from datasites.node.work import Witness, WorkQueue
from datasites.portal.app import create_portal
from datasites.review.budgets import budgets
from datasites.review.endings import FINISHED, STUDY_REPORT
from datasites.review.people.acts import people_acts
from datasites.study.messages import WorkItem
from datasites.study.signing import Signed, dump
from datasites.worker.machine import allowance
from datasites.worker.sandbox import say_layers
from privacy.errors import Refused

_LAYERS_SECONDS = 10.0  # trying them takes a process of its own, which may wait until the start is over
_ROLLED_BACK_SECONDS = 5.0
_ASK_AGAIN_SECONDS = 10.0
_NOTICE_SECONDS = 5.0
_SETTLE_SECONDS = 1.0
_REPORTS_SECONDS = 0.3
_ROSTER_SECONDS = 10.0
_EXPIRE_APART = dt.timedelta(hours=1)


class Messenger:
    """Tells the orchestrator about approvals and every other decision, until it has taken them, and hears answers."""

    def __init__(self, datasite: Datasite) -> None:
        self._datasite = datasite
        self._told: set[str] = set()
        self._declined: dict[str, float] = {}
        self._thread = Thread(
            client=datasite.client,
            approvals=datasite.approvals,
            journal=datasite.journal,
            forget=lambda proposal: datasite.participant.models.forget(proposal),
        )
        self._settled = float("-inf")
        self._expired = dt.datetime.min.replace(tzinfo=dt.UTC)

    def step(self) -> float:
        """Send what was decided since, and once more what the orchestrator declined a while ago."""
        for request in self._datasite.approvals.requests():
            if request.state == "approved" and request.approval and request.proposal_hash not in self._told:
                self._tell(request.proposal_hash, request.proposal.study, request.approval)
        self._thread.step()
        if time.monotonic() - self._settled >= _SETTLE_SECONDS:
            self._settled = time.monotonic()
            self._datasite.policies.current()
            now = dt.datetime.now(dt.UTC)
            self._datasite.endings.settle(now=now)
            self._expire(now)
        return 0.3

    def _expire(self, now: dt.datetime) -> None:
        """Once an hour, write down which acts nobody confirmed within their week."""
        if now - self._expired >= _EXPIRE_APART:
            self._expired = now
            self._datasite.acts.expire(now=now)
            people_acts(self._datasite.journal).expire(now=now)

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


class Notices:
    """Queues what people should know, and sends it; a slow mail server keeps nothing else waiting."""

    def __init__(self, datasite: Datasite) -> None:
        home = datasite.home
        settings = NoticeSettings.load(home.folder)
        self.outbox = Outbox(home.folder / "notices.sqlite")
        self._delivery = Delivery(settings, self.outbox, datasite.journal.append)
        self._watch = Watch(
            site=datasite.site,
            url=home.config().public_url,
            approvals=datasite.approvals,
            journal=datasite.journal,
            budgets=lambda: budgets(datasite.ledger),
            settings=settings,
            outbox=self.outbox,
        )
        self._absences = datasite.absences
        self._wanted = bool(settings.people or settings.webhooks)

    def step(self) -> float:
        """Look once and send what is due."""
        if self._wanted:
            now = dt.datetime.now(dt.UTC)
            self._watch.settings = self._absences.settings()
            self._watch.look(now)
            self._delivery.step(now)
        return _NOTICE_SECONDS


class Reports:
    """Writes the reports of finished studies, one after another, while other studies' rounds go on.

    What a process that ended had not written, the next one writes: the end of a study is told only once.
    """

    def __init__(self, datasite: Datasite) -> None:
        self._datasite = datasite
        written = {e.body["proposal_hash"] for e in datasite.journal.entries(kind=STUDY_REPORT)}
        ended = datasite.journal.entries(kind=FINISHED)
        self._wanted = deque(str(e.body["study"]) for e in ended if e.body["proposal_hash"] not in written)

    def want(self, study: str) -> None:
        """Have the reports written once more, with those of a study that is over."""
        self._wanted.append(study)

    def step(self) -> float:
        """Write those of the oldest study; one that fails is tried again."""
        if self._wanted:
            write_reports_apart(self._datasite.home, finished=self._wanted[0])
            self._wanted.popleft()
        return 0.0 if self._wanted else _REPORTS_SECONDS


class Worker:
    """Asks for work and has it done, several studies at once; ``over`` is told of every study that ended, once."""

    def __init__(self, datasite: Datasite, over: Callable[[str], object]) -> None:
        self._datasite, self._tell = datasite, over
        self._witness = Witness(
            home=datasite.home,
            client=datasite.client,
            proposals=datasite.approvals.sealed_proposals,
            trouble=lambda: datasite.standing.trouble or lack_of_room(datasite.home.folder),
        )
        self._queue = WorkQueue(datasite.client, witness=self._witness)
        self.lanes = Lanes(datasite.participant.handle, self._at_once)
        self._over: set[str] = set()
        self._stands = False

    def _at_once(self) -> int:
        policy, here = self._datasite.policies.current(), allowance()
        return policy.workers.at_once(policy.sandbox.memory_bytes, cores=here.cores, memory_bytes=here.memory_bytes)

    def step(self) -> float:
        """Begin what is to be done now, or wait for it; nothing at all while the chains are older than what left."""
        if not self._stands:
            self._stands = self._datasite.standing.holds()
            if not self._stands:
                self._witness.meet()  # the orchestrator shows why nothing comes from here
                return _ROLLED_BACK_SECONDS
        items = self._queue.ask()
        self.lanes.show([item for item in items if item.kind != "finished"])
        for item in items:
            if item.kind == "finished":  # told once: done before the orchestrator hears that it was heard
                self._finish(item)
        self._queue.handled()
        return 0.0

    def _finish(self, item: WorkItem) -> None:
        if item.study in self._over:
            return
        requests = [r for r in self._datasite.approvals.requests() if r.proposal.study == item.study]
        approved = [request.proposal_hash for request in requests if request.state == "approved"]
        new = [self._datasite.endings.finished(proposal_hash, item.study) for proposal_hash in approved]
        self._datasite.participant.handle(item)
        self.lanes.places.when_idle(self._datasite.pool.close)  # its memory is not needed until the next study
        self._over.add(item.study)
        if any(new) or not approved:  # else they were written, or :class:`Reports` had them when this process began
            self._tell(item.study)


def _look_at_roster(datasite: Datasite) -> float:
    """Ask whether the consortium's roster has changed; people confirm it in the portal."""
    look(datasite.home, datasite.client)
    return _ROSTER_SECONDS


def run(folder: Path) -> None:
    """Serve until the process is asked to end.

    Raises:
        InvalidInput: the folder is no datasite's, or the portal's port is taken.
        Refused: another process runs on it.
    """
    with alone_in(folder) as home:
        _serve(home)


def _serve(home: Home) -> None:
    folder, config = home.folder, home.config()
    listener = bind(config.host, config.port)
    remove_unfinished(folder)
    datasite = Datasite.open(home)
    node = Node(datasite)
    notices, reports = Notices(datasite), Reports(datasite)
    worker = Worker(datasite, reports.want)
    loops = [
        Loop("syft", node.step),
        Loop("approvals", Messenger(datasite).step),
        Loop("notices", notices.step),
        Loop("work", worker.step),
        Loop("reports", reports.step),
        Loop("roster", lambda: _look_at_roster(datasite)),
    ]
    app = create_portal(facts.context(datasite))
    server = WebServer(app, config, app.state.service.streams.close)
    layers = threading.Timer(_LAYERS_SECONDS, say_layers, [datasite.policies.current().sandbox.minimum_layers])
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
        with watched(home):
            server.run(sockets=[listener])
    finally:
        layers.cancel()
        stop_loops(loops)
        worker.lanes.close()
        notices.outbox.close()
        datasite.close()
        (folder / "address.json").unlink(missing_ok=True)
