"""What the orchestrator's endpoints share: its stores, its board, and every study that runs."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from datasites.node.roster import Roster
from datasites.node.wellbeing import Contacts
from datasites.study.messages import WorkItem
from datasites.study.proposal import Proposal
from datasites.study.signing import open_sealed
from datasites.study.thread import OVER_FOR_GOOD
from orchestrator.rounds.board import Bell, Board
from orchestrator.rounds.peers import Peers
from orchestrator.rounds.restarting.rollback import Standing
from orchestrator.rounds.restarting.unwritten import write_down
from orchestrator.rounds.runner import StudyRunner
from orchestrator.rounds.store import Store
from orchestrator.rounds.summing.own_rules import OwnRules
from orchestrator.rounds.summing.sums import WorkerDied
from orchestrator.rounds.thread import Threads
from privacy.errors import Refused
from privacy.identity import Identity
from privacy.ledger.journal import Journal

_log = logging.getLogger(__name__)
_STORAGE_SECONDS = 3.0
TOLD = "end-told"
"""Kind of the stored documents that name who has done its last part of a study that is over."""

_PROPOSALS_KEPT = 200


@dataclass
class Service:
    """What the endpoints share."""

    identity: Identity
    roster: Roster
    store: Store
    journal: Journal
    board: Board = field(default_factory=Board)
    bell: Bell = field(default_factory=Bell)
    runners: dict[str, StudyRunner] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    stuck: dict[str, str] = field(default_factory=dict)
    peers: Peers = field(default_factory=Peers)
    contacts: Contacts = field(default_factory=Contacts)
    standing: Standing = field(init=False)
    _proposals: dict[str, Proposal] = field(default_factory=dict)
    threads: Threads = field(init=False)
    rules: OwnRules = field(init=False)

    def __post_init__(self) -> None:
        self.threads = Threads(self)
        self.rules = OwnRules(self.store)
        self.standing = Standing(
            folder=self.store.folder, store=self.store, journal=self.journal, identity=self.identity
        )

    async def begin(self) -> None:
        """Go on with all studies, unless journal or store turn out to be older than what was shown to others."""
        if self.standing.trouble or not self.standing.look():
            await self.pause_all()
            return
        write_down(self.store, self.journal)
        self.board.done = self._told
        for name, state, _reason in self.store.states():
            if state in ("waiting", "running"):
                self.start(name)
            elif state in OVER_FOR_GOOD:
                self.threads.close(name)
                self.tell_end(name)

    def tell_end(self, study: str) -> None:
        """Ask those who have not done it yet for the last part of a study that is over; a restart asks them again.

        Of a finished study, hospitals recompute the last model. Keyholder and helpers destroy the round keys.
        """
        proposal, told = self.proposal(study), self.store.documents(study, 0, TOLD)
        finished = self.store.study(study)[1] == "finished"
        rounds = proposal.rounds if finished else self.store.last_round(study, "key")
        parties = [proposal.keyholder, *proposal.helpers, *(proposal.participants if finished else ())]
        if rounds:
            item = WorkItem(
                kind="finished" if finished else "forget", study=study, round=rounds, closing=0, documents={}
            )
            self.board.publish([party.name for party in parties if party.name not in told], item)

    def _told(self, party: str, item: WorkItem) -> None:
        self.store.put_document(item.study, 0, TOLD, {"kind": item.kind}, author=party)

    async def pause_all(self) -> None:
        """Stop every study with the reason why no round runs here."""
        tasks, self.tasks = list(self.tasks.values()), {}
        self.runners = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name, _proposal, state, _reason in self.store.studies():
            self.board.withdraw(name)
            if state in ("waiting", "running"):
                self.store.set_state(name, "paused", self.standing.trouble)

    def proposal(self, study: str) -> Proposal:
        """Return the proposal of a study, which never changes; its signature was checked when it was read first.

        Raises:
            InvalidInput: there is no such study.
        """
        if study not in self._proposals:
            signed, _, _ = self.store.study(study)
            opened = open_sealed(signed, "proposal", self.journal.public_keys, Proposal)
            while len(self._proposals) >= _PROPOSALS_KEPT:
                del self._proposals[next(iter(self._proposals))]
            self._proposals[study] = opened
        return self._proposals[study]

    def waiting(self, study: str) -> str:
        """Return what a running study waits for, and what keeps those it waits for; nothing if it waits for nobody."""
        if study in self.stuck:
            return self.stuck[study]
        runner = self.runners.get(study)
        if runner is None or not self._runs(study):
            return ""
        proposal = runner.proposal
        parties = {p.name for p in (*proposal.participants, *proposal.helpers, proposal.keyholder)}
        kept = [f"{name}: {self.troubles[name]}" for name in sorted(parties & set(self.troubles))]
        return "; ".join(filter(None, [runner.waits.text, *kept]))

    def resume(self, study: str) -> str:
        """Let a study that has stopped go on, and return its state; one that runs or is finished is left as it is.

        Raises:
            Refused: it was ended for good.
        """
        self.standing.require()
        _, state, reason = self.store.study(study)
        if state in OVER_FOR_GOOD - {"finished"}:
            raise Refused(f"the study is {state} and cannot go on ({reason}); propose a new one")
        if not self._runs(study):
            self.store.set_state(study, "waiting")
            self.start(study)
        return self.store.study(study)[1]

    def start(self, study: str) -> None:
        """Run a study on the event loop, unless it runs already."""
        self.standing.require()
        if self._runs(study):
            return
        runner = self.runners[study] = self._runner(study)
        self.tasks[study] = asyncio.create_task(self._run(runner), name=f"study-{study}")

    async def stop(self, study: str) -> None:
        """End a study's task, if it runs; what it has written stays."""
        task = self.tasks.pop(study, None)
        self.runners.pop(study, None)
        if task is None or task is asyncio.current_task():
            return
        while not task.done():  # a library may lose a cancellation
            task.cancel()
            await asyncio.wait([task], timeout=1.0)
        await asyncio.gather(task, return_exceptions=True)

    def _runs(self, study: str) -> bool:
        return study in self.tasks and not self.tasks[study].done()

    async def _run(self, runner: StudyRunner) -> None:
        study = runner.proposal.study
        try:
            while not await self._ran(runner):
                await asyncio.sleep(_STORAGE_SECONDS)
                runner = self._runner(study)  # begins where the store says, not where memory was
        except Exception as error:  # a bug must pause the study with a reason, not vanish with its task
            self.store.set_state(study, "failed", f"{type(error).__name__}: {error}")
            raise
        self.threads.close(study)
        state = self.store.study(study)[1]
        if state == "expired":
            self.board.withdraw(study)
        if state in OVER_FOR_GOOD:
            self.tell_end(study)

    async def _ran(self, runner: StudyRunner) -> bool:
        """Run a study to its end or pause; False when our own disk, database or summing process failed on the way."""
        study = runner.proposal.study
        self.runners[study] = runner
        self.stuck.pop(study, None)
        try:
            await runner.run()
        except (OSError, sqlite3.Error, SQLAlchemyError, WorkerDied) as error:
            self.runners.pop(study, None)
            reason = str(getattr(error, "orig", None) or error)[:200]
            self.stuck[study] = f"the orchestrator's own storage fails ({reason}); tried again every few seconds"
            _log.warning("%s: %s", study, self.stuck[study])
            return False
        return True

    def _runner(self, study: str) -> StudyRunner:
        made = StudyRunner(
            study=study, store=self.store, board=self.board, identity=self.identity, journal=self.journal
        )
        made.optimizer.own = self.rules(made.proposal)
        return made

    def runner(self, study: str) -> StudyRunner:
        """Return the running study.

        Raises:
            Refused: it does not run.
        """
        self.standing.require()
        if study not in self.runners:
            raise Refused(f"study {study[:80]!r} does not run here; `tessera status` lists the studies")
        return self.runners[study]

    def end_waiting(self) -> None:
        """Answer every long poll now, so that a shutdown need not wait for them."""
        self.board.close()
        self.bell.close()

    async def close(self) -> None:
        """End all studies; they continue at the next start."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        self.rules.close()
        self.store.close()
