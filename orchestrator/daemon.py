"""The orchestrator's process: one address for mailbox, studies and rounds."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import socket
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from datasites.node.credentials.tls import renew_own
from datasites.node.files import remove_unfinished
from datasites.node.home import Config, Home
from datasites.node.joining.entering import FOLDER
from datasites.node.process import alone_in, announce, bind, on_end_signal
from datasites.node.web.server import WebServer
from datasites.node.wellbeing import Wellbeing
from datasites.study.thread import OVER_FOR_GOOD
from orchestrator.api import metrics
from orchestrator.api.joining import follow_roster, founding_app
from orchestrator.api.server import create_app
from orchestrator.dashboard.app import MOUNT, create_dashboard
from orchestrator.rounds.keeping.retention import enforce
from orchestrator.rounds.keeping.tidying import KEPT_BYTES, room_taken, tidy
from orchestrator.rounds.leadership import Leadership
from orchestrator.rounds.notices import ScientistsNotices
from orchestrator.rounds.peers import FILE, Peers
from orchestrator.rounds.service import Service
from orchestrator.rounds.store import Store
from privacy.errors import InvalidInput, Refused
from privacy.ledger.journal import Journal

_log = logging.getLogger(__name__)
_SWEEP_SECONDS = 3600.0
_TIDY_SECONDS = 20.0
_NOTICE_SECONDS = 5.0
_PORT_SECONDS = 60.0
_FOUNDING_SECONDS = 0.5


def run(folder: Path) -> None:
    """Serve until the process is asked to end.

    Raises:
        InvalidInput: the folder is no orchestrator's, or its port is taken.
        Refused: another process runs on it.
    """
    with alone_in(folder) as home:
        _serve(home)


def _serve(home: Home) -> None:
    folder, config, identity = home.folder, home.config(), home.identity()
    remove_unfinished(folder)
    renew_own(home)
    if not (folder / "roster.json").exists() and not _founded(home):
        return
    server: WebServer | None = None
    ended = threading.Event()

    def end() -> None:
        ended.set()
        if server is not None:
            server.should_exit = True

    on_end_signal(end)
    files = Path(os.environ.get("STORE_FOLDER") or folder)
    store, journal = _store(files / "store"), Journal(folder / "journal.sqlite", identity)
    lease = _lease(store, home)
    if lease is not None and not lease.wait(ended):
        return
    if lease is not None:
        lease.share(journal)
        lease.hold()
    listener = _bound(config, patient=lease is not None)
    service = Service(identity=identity, roster=home.roster(), store=store, journal=journal, peers=Peers(folder / FILE))
    app = create_app(service, mailbox_folder=files / "mailbox", home=home)
    metrics.install(app, service, folder)
    https = config.public_url.startswith("https:") or bool(config.tls_certificate)
    dashboard, end_streams = create_dashboard(service, folder, https=https)
    app.mount(MOUNT, dashboard)
    server = WebServer(app, config, service.end_waiting, end_streams)
    server.should_exit = ended.is_set()

    async def serve() -> None:
        announce(folder, listener, "orchestrator", public_url=config.public_url, https=bool(config.tls_certificate))
        watching = (_sweep(service), _tidy(service), _notify(notices, service), follow_roster(service, home))
        beside = [asyncio.create_task(work) for work in watching]
        threading.Thread(target=app.state.summaries.read_ahead, name="summaries", daemon=True).start()
        await server.serve(sockets=[listener])
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)

    notices = ScientistsNotices(folder, service.journal, name=config.name)
    with Wellbeing(home, {"keyholder": lambda: service.contacts.trouble(service.roster.keyholder.name)}):
        asyncio.run(serve())
    notices.outbox.close()
    if lease is not None:
        lease.release()
    (folder / "address.json").unlink(missing_ok=True)


def _lease(store: Store, home: Home) -> Leadership | None:
    holder = f"{socket.gethostname()} {home.folder}"
    return store.leadership(holder=holder, public_key=home.identity().public_key, former=home.orchestrator_keys())


def _bound(config: Config, *, patient: bool) -> socket.socket:
    """Return the socket to listen on; the leader before may hold the port until it notices that it leads no more.

    Raises:
        InvalidInput: somebody listens there.
    """
    deadline = time.monotonic() + (_PORT_SECONDS if patient else 0.0)
    while True:
        try:
            return bind(config.host, config.port)
        except InvalidInput:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)


def tidy_home(home: Home, dry_run: bool) -> list[dict[str, Any]]:
    """Delete what rounds that are over no longer need, where the process does not run; or only say what would go."""
    store = _store(Path(os.environ.get("STORE_FOLDER") or home.folder) / "store")
    journal = None if dry_run else Journal(home.folder / "journal.sqlite", home.identity())
    lease = None if dry_run else _lease(store, home)
    try:
        if lease is not None and journal is not None:
            if leader := lease.take():
                raise Refused(f"the orchestrator of {leader} leads and tidies by itself; nothing was deleted")
            lease.share(journal)
        found = tidy(store, journal, dry_run=dry_run)
    finally:
        if lease is not None:
            lease.release()
        store.close()
        if journal is not None:
            journal.close()
    return [{"study": one.study, "files": one.files, "bytes": one.bytes} for one in found]


def open_studies(home: Home) -> list[str]:
    """Return the studies that are not over, where the process does not run."""
    store = _store(Path(os.environ.get("STORE_FOLDER") or home.folder) / "store")
    try:
        return [study for study, state, _ in store.states() if state not in OVER_FOR_GOOD]
    finally:
        store.close()


def _founded(home: Home) -> bool:
    """Answer the invited parties until the operator has admitted them; return whether there is a roster then."""
    config, roster = home.config(), home.folder / "roster.json"
    if not (home.folder / FOLDER).is_dir():
        home.roster()  # says that it is missing: nobody was invited, so it is to be built by hand
    listener = bind(config.host, config.port)
    server = WebServer(founding_app(home), config)
    on_end_signal(lambda: setattr(server, "should_exit", True))
    sys.stdout.write(f"{config.name}: answers invited parties; next: tessera admit, once they have joined\n")
    sys.stdout.flush()

    async def serve() -> None:
        announce(
            home.folder, listener, "orchestrator", public_url=config.public_url, https=bool(config.tls_certificate)
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not roster.exists() and not serving.done():
            await asyncio.sleep(_FOUNDING_SECONDS)
        server.should_exit = True
        await serving

    asyncio.run(serve())
    (home.folder / "address.json").unlink(missing_ok=True)
    return roster.exists()


async def _notify(notices: ScientistsNotices, service: Service) -> None:
    """End what has expired and tell scientists what happened; a mail server that is slow keeps no request waiting."""
    while True:
        try:
            if not service.standing.trouble:
                await service.threads.expire(dt.datetime.now(dt.UTC))
            await asyncio.to_thread(notices.step, dt.datetime.now(dt.UTC))
        except (OSError, sqlite3.Error, SQLAlchemyError) as error:
            _log.warning("notices wait: %s", error)
        await asyncio.sleep(_NOTICE_SECONDS)


async def _sweep(service: Service) -> None:
    """Delete every hour the models whose retention is over."""
    while True:
        if not service.standing.trouble:
            enforce(service, dt.datetime.now(dt.UTC))
        await asyncio.sleep(_SWEEP_SECONDS)


async def _tidy(service: Service) -> None:
    """Delete what rounds that are over no longer need, as soon as the files take more than a study may keep."""
    while True:
        began = time.monotonic()
        try:
            if not service.standing.trouble and await asyncio.to_thread(room_taken, service.store) > KEPT_BYTES:
                await asyncio.to_thread(tidy, service.store, service.journal)
        except (OSError, sqlite3.Error, SQLAlchemyError) as error:
            _log.warning("files of rounds that are over stay for now: %s", error)
        await asyncio.sleep(max(_TIDY_SECONDS, 50 * (time.monotonic() - began)))


def _store(folder: Path) -> Store:
    """Open the store, with its database and its bucket where the environment names them."""
    return Store(folder, _database_url(), objects=os.environ.get("STORE_URL", ""))


def _database_url() -> str | None:
    """Return the database's address from ``DATABASE_URL``, or from the file that ``DATABASE_URL_FILE`` names.

    Raises:
        InvalidInput: the file cannot be read.
    """
    file = os.environ.get("DATABASE_URL_FILE")
    if not file:
        return os.environ.get("DATABASE_URL") or None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidInput("expected a readable file in DATABASE_URL_FILE; check the path and its owner") from error
