"""A whole consortium in one process, stepped by hand: so that a fault can be put at one exact place, and repeated.

The orchestrator is its real application (over httpx, without a network), the keyholder and the hospitals are their real
classes with stores on disk; only trainers are given. Every role can be closed and opened again from what lies on disk.

    with Played(folder, sites=3) as played:
        played.open()
        played.propose("pilot", length=100)
        assert played.play("pilot")["state"] == "finished"
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from harness.consortium import Consortium, Hospital, playing

from datasites.helper.custody import PadCustody
from datasites.helper.daemon import Helper
from datasites.keyholder.custody import KeyCustody
from datasites.keyholder.daemon import Keyholder
from datasites.keyholder.rollback import KeyholderStanding
from datasites.node.http import SignedClient
from datasites.node.work import Witness, WorkQueue
from datasites.study.messages import BlockShape
from datasites.study.signing import dump
from datasites.worker.job import Trainer
from orchestrator.api import metrics
from orchestrator.api.server import create_app
from orchestrator.rounds import helping
from orchestrator.rounds.service import Service
from orchestrator.rounds.store import Store
from orchestrator.rounds.summing import intake
from orchestrator.rounds.summing.sum_worker import Sums
from orchestrator.rounds.summing.sums import WorkerDied
from orchestrator.studies.status import OVER
from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import TesseraError
from privacy.ledger.journal import Journal


class SumsHere:
    """What :class:`orchestrator.rounds.summing.sums.RunningSumProcess` does, without a process to wait for."""

    died = 0

    def __init__(self, parameters: EncryptionParameters) -> None:
        self._parameters = parameters
        self._sums: Sums | None = None
        self.sites: set[str] = set()

    async def restart(self, blocks: Mapping[str, int]) -> None:
        self.sites, self._sums = set(), Sums()
        self._ask({"op": "start", "parameters": dump(self._parameters), "blocks": dict(blocks)})

    async def add(self, site: str, path: Path, shapes: tuple[BlockShape, ...]) -> None:
        self._ask({"op": "add", "path": str(path), "shapes": [dump(s) for s in shapes]})
        self.sites.add(site)

    async def finish(self, path: Path) -> str:
        return str(self._ask({"op": "finish", "path": str(path)})["hash"])

    async def close(self) -> None:
        self.sites, self._sums = set(), None

    def _ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        if self._sums is None:
            raise WorkerDied("the sum was closed")
        return self._sums.handle(command)


class Wire(httpx.BaseTransport):
    """Carries requests to the application that is open now; a closed one does not answer."""

    def __init__(self) -> None:
        self.app: TestClient | None = None
        self.cut: Callable[[httpx.Request], bool] = lambda _: False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.app is None or self.cut(request):
            raise httpx.ConnectError("nobody answers")
        assert self.app.portal is not None
        request.read()
        return self.app.portal.call(self._carry, self.app.app, request)

    async def _carry(self, app: Any, request: httpx.Request) -> httpx.Response:
        """Ask in the application's own loop: one change of threads a request."""
        answer = await httpx.ASGITransport(app, raise_app_exceptions=False).handle_async_request(request)
        return httpx.Response(answer.status_code, content=await answer.aread(), headers=answer.headers)


class Played(Consortium):
    """A consortium without processes; ``failures`` are the errors that steps ended with, the newest last."""

    def __init__(
        self,
        folder: Path,
        *,
        sites: int,
        names: Sequence[str] = (),
        trainers: Mapping[int, Trainer] | None = None,
        sums_here: bool = True,
        helpers: int = 0,
    ) -> None:
        super().__init__(folder, sites=sites, names=names, trainers=trainers, helpers=helpers)
        self.wire, self.failures = Wire(), list[tuple[str, Exception]]()
        self.service: Service
        self.keyholder: Keyholder | None = None
        self.helping: dict[str, Helper] = {}
        self._queues: dict[str, WorkQueue] = {}
        self._real_sums: Any = intake.RunningSumProcess
        if sums_here:
            intake.RunningSumProcess = SumsHere  # type: ignore[misc,assignment]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        intake.RunningSumProcess = self._real_sums  # type: ignore[misc]
        super().__exit__(kind, error, trace)

    def open(self) -> None:
        """Open every role from what lies on disk."""
        self.open_orchestrator()
        self.open_keyholder()
        for name in self.helpers:
            self.open_helper(name)
        for index in range(len(self.names)):
            self.open_hospital(index)
        self.client = self.signed("orchestrator")

    def close(self) -> None:
        """Close every role."""
        self.close_orchestrator()
        self.close_keyholder()
        for name in self.helpers:
            self.close_helper(name)
        for hospital in self.hospitals:
            hospital.close()
        self.hospitals = []

    def signed(self, name: str) -> SignedClient:
        """Return a client that asks as one of the roles; it tries once."""
        identity = self.homes[name].identity()
        key = self.roster.orchestrator.public_key
        return SignedClient(identity, "http://orchestrator", key, transport=self.wire, retry_seconds=0.0)

    # roles -----------------------------------------------------------------------------------------------------

    def open_orchestrator(self) -> None:
        """Start the orchestrator's application."""
        folder = self.homes["orchestrator"].folder
        self.service = Service(
            identity=self.identity,
            roster=self.roster,
            store=Store(folder / "store"),
            journal=Journal(folder / "journal.sqlite", self.identity),
        )
        app = create_app(self.service, mailbox_folder=folder / "mailbox")
        metrics.install(app, self.service, folder)
        self.wire.app = TestClient(app, raise_server_exceptions=False)
        self.wire.app.__enter__()

    def close_orchestrator(self) -> None:
        """End it, as at a shutdown; nothing is written on the way."""
        if self.wire.app is not None:
            with suppress(Exception, asyncio.CancelledError):
                self.wire.app.__exit__(None, None, None)
            self.wire.app = None
            self.service.journal.close()

    def open_keyholder(self) -> None:
        """Open the keyholder as its daemon does."""
        home = self.homes["keyholder"]
        client, custody = self.signed("keyholder"), KeyCustody(home.folder / "keys", home.identity())
        journal = Journal(home.folder / "journal.sqlite", home.identity())
        standing = KeyholderStanding(home=home, client=client, custody=custody, journal=journal)
        witness = Witness(home=home, client=client, trouble=lambda: standing.trouble)
        self.keyholder = Keyholder(
            home=home,
            client=client,
            custody=custody,
            journal=journal,
            queue=WorkQueue(client, wait_seconds=0.0, witness=witness),
            standing=standing,
            witness=witness,
        )

    def close_keyholder(self) -> None:
        """Close the keyholder's stores."""
        if self.keyholder is not None:
            self.keyholder.client.close()
            self.keyholder.custody.close()
            self.keyholder.journal.close()
            self.keyholder = None

    def open_helper(self, name: str) -> None:
        """Open a helper as its daemon does."""
        home, client = self.homes[name], self.signed(name)
        self.helping[name] = Helper(
            home=home,
            client=client,
            custody=PadCustody(home.folder / "rounds-kept", home.identity()),
            journal=Journal(home.folder / "journal.sqlite", home.identity()),
            queue=WorkQueue(client, wait_seconds=0.0, witness=Witness(home=home, client=client)),
        )

    def close_helper(self, name: str) -> None:
        """Close a helper, as a kill does."""
        helper = self.helping.pop(name, None)
        if helper is not None:
            helper.client.close()
            helper.journal.close()

    def open_hospital(self, index: int) -> None:
        """Open one hospital's stores."""
        name = self.names[index]
        made = Hospital.open(self.homes[name], self._trainers.get(index) or playing(index))
        made.participant.client.close()
        hospital = replace(made, participant=replace(made.participant, client=self.signed(name)))
        witness = Witness(home=hospital.home, client=hospital.client, proposals=hospital.approvals.sealed_proposals)
        self._queues[name] = WorkQueue(hospital.client, wait_seconds=0.0, witness=witness)
        self.hospitals[index : index + 1] = [hospital]

    # playing ---------------------------------------------------------------------------------------------------

    def step(self, role: str) -> None:
        """Let the keyholder or a hospital do what it is asked to; a failing step is noted and tried again later."""
        try:
            if role in self.helpers:
                if role in self.helping:
                    self.helping[role].step()
                return
            if role == "keyholder":
                if self.keyholder is not None:
                    self.keyholder.step()
                return
            for item in self._queues[role].ask():
                self.hospitals[self.names.index(role)].participant.handle(item)
            self._queues[role].handled()
        except Exception as error:  # as the loops of the daemons do
            self.failures.append((role, error))

    def play(
        self,
        study: str,
        *roles: str,
        until: Callable[[dict[str, Any]], bool] = lambda status: status["state"] in OVER,
        seconds: float = 120.0,
    ) -> dict[str, Any]:
        """Step the roles (all without names) in turn until the study's status is as wished; return it.

        Raises:
            TesseraError: it is not so in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            with suppress(TesseraError):
                if until(status := self.status(study)):
                    return status
            if time.monotonic() > deadline:
                raise TesseraError(f"{study} did not come so far in {seconds:g} s; failures: {self.failures[-3:]}")
            for role in roles or (*self.names, *self.helpers, "keyholder"):
                self.step(role)
            time.sleep(0.002)


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    """Four hospitals and two helpers, of whom nobody is gone, however slow this machine is."""
    monkeypatch.setattr(helping, "HELPER_SECONDS", 60.0)
    with Played(tmp_path, sites=4, helpers=2) as consortium:
        consortium.open()
        yield consortium


def commit_falsely(
    monkeypatch: pytest.MonkeyPatch, liar: str, change: Callable[[int, dict[str, str]], dict[str, str]]
) -> None:
    """Have a helper commit to what ``change`` makes of the round and the hashes of its parts."""
    real = PadCustody.commit

    def lying(custody: PadCustody, listed: Any, name: str) -> Any:
        said = real(custody, listed, name)
        return replace(said, parts=change(listed.round, dict(said.parts))) if name == liar else said

    monkeypatch.setattr(PadCustody, "commit", lying)
