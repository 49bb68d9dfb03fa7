"""A running role looks after itself: what would stop it is written down, with the reason, for health checks to read.

Every quarter of a minute the role's process writes ``health.json`` into its folder: the time, and one line for each
thing that is not as it should be. :mod:`datasites.node.health` reads it. Looked at are the role's own certificate, the
bytes of journal and ledger, a folder that was restored from an old backup, room on the disk, and whom it cannot reach.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import httpx
from cryptography import x509

from datasites.node.files import lack_of_room, write_atomically
from datasites.node.health import FILE
from datasites.node.home import Home
from datasites.node.http import SignedClient
from datasites.node.rollback import GAP
from datasites.node.warm import answer_of
from privacy.errors import TesseraError
from privacy.ledger.verification import FILES

Look = Callable[[], str]
"""Returns what is wrong in one line, or nothing."""
_LOOK_SECONDS = 15.0
_REST = 40.0
"""Whoever checks chains rests forty times as long as the check took."""
_UNREACHED_SECONDS = 60.0
_CHECK_SECONDS = 600.0
_ANSWER_SECONDS = 10.0


class Wellbeing:
    """Looks at a role in a thread of its own, for as long as the context is open.

    Args:
        home: the role's.
        more: what else is looked at, by name.
        every: seconds between two looks.
    """

    def __init__(self, home: Home, more: Mapping[str, Look] | None = None, *, every: float = _LOOK_SECONDS) -> None:
        self._home, self._every = home, every
        chains = Chains(home)
        self._looks: dict[str, Look] = {
            "certificate": lambda: certificate_trouble(home, now=dt.datetime.now(dt.UTC)),
            "records": chains.trouble,
            "restored": lambda: gap_trouble(home.folder),
            "disk": lambda: lack_of_room(home.folder),
            **(more or {}),
        }
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wellbeing", daemon=True)

    def __enter__(self) -> Wellbeing:
        self.look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(1.0)
        (self._home.folder / FILE).unlink(missing_ok=True)

    def look(self) -> list[str]:
        """Look once and write down what is wrong."""
        problems = [f"{name}: {found}" for name, look in self._looks.items() if (found := _looked(look))]
        try:
            write_atomically(self._home.folder / FILE, json.dumps({"at": time.time(), "problems": problems}).encode())
        except OSError:
            return problems  # the disk is full: the old file grows stale, which says so as well
        return problems

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self.look()


@contextmanager
def watched(home: Home) -> Iterator[None]:
    """Look after a role that dials the orchestrator, for as long as the context is open."""
    config = home.config()
    key = home.roster().orchestrator.public_key
    with (
        SignedClient(
            home.identity(),
            config.orchestrator_url,
            key,
            retry_seconds=0,
            timeout_seconds=_ANSWER_SECONDS,
            ca=config.ca,
            proxy=config.proxy,
        ) as client,
        Wellbeing(home, {"orchestrator": Reach(client).trouble}),
    ):
        yield


def _looked(look: Look) -> str:
    try:
        return look()
    except Exception as error:  # whatever it is: it cannot be looked at, and the other looks go on
        return f"cannot be looked at ({type(error).__name__})"


def certificate_trouble(home: Home, *, now: dt.datetime) -> str:
    """Say whether the certificate of the role's own server has expired, or is not valid yet."""
    path = home.config().tls_certificate
    if not path:
        return ""
    try:
        certificate = x509.load_pem_x509_certificates(Path(path).read_bytes())[0]
    except (OSError, ValueError, IndexError):
        return f"no certificate can be read at {Path(path).name}; restore it"
    if now >= certificate.not_valid_after_utc:
        return f"this server's certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}; renew it and restart"
    if now < certificate.not_valid_before_utc:
        return f"this server's certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d}; check the clock"
    return ""


def gap_trouble(folder: Path) -> str:
    """Say whether the role's folder was restored from an old backup and the gap was not imported yet."""
    places = [path for path in (folder / GAP, folder / "store" / GAP) if path.exists()]
    return str(json.loads(places[0].read_bytes())["reason"]) if places else ""


class Chains:
    """Checks the bytes of journal and ledger whenever the files have changed, and not all the time."""

    def __init__(self, home: Home) -> None:
        self._folder, self._home = home.folder, home
        self._seen: list[tuple[int, int]] = []
        self._found = ""
        self._again = 0.0

    def trouble(self) -> str:
        """Say what does not hold in journal or ledger."""
        paths = [self._folder / (name + suffix) for name in FILES.values() for suffix in ("", "-wal")]
        seen = [(at.st_mtime_ns, at.st_size) for path in paths if path.exists() and (at := path.stat())]
        if seen == self._seen or time.monotonic() < self._again:
            return self._found
        began = time.monotonic()
        self._found = self._check()
        self._seen = seen
        self._again = time.monotonic() + _REST * (time.monotonic() - began)
        return self._found

    def _check(self) -> str:
        """Check in a process of its own.

        A process that opens and closes the file of a database loses its locks on it (POSIX), also those of the stores
        that the role has open. The next command to end would then take itself for the last and delete the log.
        """
        own = [str(self._folder), self._home.identity().public_key]
        code, said = answer_of("privacy.ledger.verification", own, seconds=_CHECK_SECONDS)
        if code:
            return "journal and ledger could not be checked"
        return said.strip()


class Reach:
    """Whether the orchestrator answers; one that restarts is waited for."""

    def __init__(self, client: SignedClient, *, patience: float = _UNREACHED_SECONDS) -> None:
        self._client, self._patience = client, patience
        self._since = time.monotonic()

    def trouble(self) -> str:
        """Say since when it does not answer, and why."""
        try:
            self._client.get_json("/healthz")
        except (TesseraError, httpx.HTTPError) as error:
            gone = time.monotonic() - self._since
            return f"{error} ({gone:.0f} s)" if gone >= self._patience else ""
        self._since = time.monotonic()
        return ""


class Contacts:
    """When each party was last heard of."""

    def __init__(self, *, patience: float = _UNREACHED_SECONDS) -> None:
        self._patience, self._began = patience, time.monotonic()
        self._seen: dict[str, float] = {}

    def heard(self, name: str) -> None:
        """Note that a party has just called."""
        self._seen[name] = time.monotonic()

    def trouble(self, name: str) -> str:
        """Say for how long a party has not been heard of."""
        gone = time.monotonic() - self._seen.get(name, self._began)
        return f"{name} has not been heard of for {gone:.0f} s" if gone >= self._patience else ""
