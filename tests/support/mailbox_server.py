"""A real mailbox server on a loopback port, for tests of PySyft's transport."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from harness.ports import kept_port
from support.waiting import LONG_SECONDS

from datasites.node.http import SignedClient
from datasites.node.warm import Warm, own_warm
from datasites.node.web.problems import install_problem_handlers
from datasites.review.policy import SandboxPolicy
from datasites.study.proposal import Party
from datasites.syft.postbox import Postbox
from datasites.syft.runner import MockRun, Sandbox, in_workers, nothing_runs
from datasites.syft.session import Role, connect
from datasites.worker.pool import WorkerPool
from orchestrator.api.authentication import Authenticator
from orchestrator.api.mailbox import create_mailbox_router
from orchestrator.api.mailbox_store import MailboxStore
from privacy.errors import InvalidInput
from privacy.identity import Identity

SERVER = Identity.from_seed(b"mailbox-server-identity-for-test")


class MailboxServer:
    """A mailbox in its own thread; :meth:`restart` ends it and starts another one on the same folder and port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identities: dict[str, Identity] = {}
        self.requests: list[str] = []
        self._clients: list[SignedClient] = []
        self.port = kept_port()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def identity(self, name: str) -> Identity:
        return self.identities.setdefault(name, Identity.from_seed(name.encode().ljust(32, b".")))

    def http(self, name: str, identity: Identity | None = None) -> SignedClient:
        client = SignedClient(identity or self.identity(name), self.url, SERVER.public_key, retry_seconds=120)
        self._clients.append(client)
        return client

    def postbox(self, name: str, identity: Identity | None = None) -> Postbox:
        self.identity(name)
        return Postbox(self.http(name, identity), name, self.public_key_of)

    def connect(self, name: str, folder: Path, role: Role, sandbox: Sandbox = nothing_runs) -> Any:
        return connect(self.postbox(name), folder, role=role, sandbox=sandbox)

    def public_key_of(self, name: str) -> str:
        if name not in self.identities:
            raise InvalidInput(f"nobody called {name!r}")
        return self.identities[name].public_key

    def everything_stored(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file())

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.stop()

    def _party(self, public_key: str) -> Party | None:
        for name, identity in self.identities.items():
            if identity.public_key == public_key:
                return Party(name=name, institution=name, public_key=public_key)
        return None

    def _app(self, store: MailboxStore) -> FastAPI:
        app = FastAPI()
        install_problem_handlers(app)
        authenticate = Authenticator(SERVER.public_key, self._party)
        app.include_router(create_mailbox_router(store, authenticate, knows=self.identities.__contains__))

        @app.middleware("http")
        async def count(request: Any, call_next: Any) -> Any:
            self.requests.append(f"{request.method} {request.url.path}")
            return await call_next(request)

        return app

    def start(self) -> None:
        self._store = MailboxStore(self.folder)
        config = uvicorn.Config(
            self._app(self._store), port=self.port, log_level="warning", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the mailbox did not start")
            self._thread.join(0.005)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(LONG_SECONDS)
        self._store.close()


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[MailboxServer]:
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = MailboxServer(tmp_path / "mailbox")
    yield server
    server.close()


@pytest.fixture(scope="session")
def workers(warm_process: Warm) -> Iterator[Sandbox]:
    """The sandbox of plain jobs; their fork server is forked from a process that has imported what it needs."""
    with WorkerPool(SandboxPolicy(output_bytes=1 << 24)) as pool:
        own_warm.append(warm_process)
        try:
            pool.start()
        finally:
            own_warm.remove(warm_process)
        yield in_workers(pool)


@pytest.fixture(scope="session")
def sandbox(workers: Sandbox) -> Sandbox:
    """Skip where the kernel does not let a process close itself in; no output of a plain job leaves there."""
    with tempfile.TemporaryDirectory() as name:
        outcome = workers(mock_run(Path(name), "", seconds=60.0))
        if not outcome.isolated:
            pytest.skip(f"no sandbox for plain jobs here: {outcome.stderr.decode().strip()}")
    return workers


def mock_run(folder: Path, code: str, *, seconds: float = 30.0) -> MockRun:
    """Return a run of one file in new folders below ``folder``."""
    for name in ("code", "data", "work"):
        (folder / name).mkdir(parents=True)
    (folder / "code" / "main.py").write_text(code)
    return MockRun(
        code=folder / "code",
        entrypoint="main.py",
        data=folder / "data",
        work=folder / "work",
        environment={},
        timeout_seconds=seconds,
    )


@pytest.fixture
def mailbox_identity() -> Identity:
    return SERVER
