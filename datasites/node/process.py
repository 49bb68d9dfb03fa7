"""The life of a role's process: its log, one server or none, worker threads, and an end within ten seconds.

The log goes to standard error: lines for people, or one JSON object a line for machines.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, TextIO

import structlog

from datasites.node.files import only_holder, write_atomically
from datasites.node.home import Home
from datasites.node.tracing.spans import sent
from datasites.study.text import visible
from privacy.errors import InvalidInput, TesseraError

Format = Literal["text", "json"]
FORMATS: tuple[Format, ...] = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

_REMOVED = "[removed]"
_SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?i)\b(?:tessera|bearer|basic)\s+[A-Za-z0-9+/_=.~-]{16,}"),
    re.compile(r"(?i)(?<=\btoken=)[^\s&\"']+"),
    re.compile(r"(?i)(?<=\bpassword=)[^\s&\"']+"),
    re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"),
    re.compile(r"(?i)\btessera-[0-9a-f]{12}=[^\s;\"']+"),
)
_SECRET_FIELDS = re.compile(r"(?i)authorization|cookie|password|secret|token|csrf|private_?key")


def configure_logs(
    format_: str = "text", level: str = "warning", *, role: str = "", stream: TextIO | None = None
) -> None:
    """Send everything this process logs to ``stream`` (standard error), in one format.

    Args:
        format_: ``text`` or ``json``.
        level: ``debug``, ``info`` (one line per request), ``warning`` or ``error``.
        role: put into every JSON line.
        stream: where to; tests give another.

    Raises:
        InvalidInput: an unknown format or level.
    """
    if format_ not in FORMATS:
        raise InvalidInput(f"expected a log format out of {', '.join(FORMATS)}, got {format_[:20]!r}")
    if level.lower() not in LEVELS:
        raise InvalidInput(f"expected a log level out of {', '.join(LEVELS)}, got {level[:20]!r}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_json_formatter(role) if format_ == "json" else _TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "asyncio"):  # they would log every request of the long polls, with its address
        logging.getLogger(noisy).setLevel(logging.WARNING)


def without_secrets(text: str) -> str:
    """Return ``text`` with everything cut out that looks like a token, key or password.

    >>> without_secrets("sent Authorization: Tessera eyJhdWRpZW5jZSI6Ij.c2lnbmF0dXJl")
    'sent Authorization: [removed]'
    """
    for pattern in _SECRETS:
        text = pattern.sub(_REMOVED, text)
    return text


def _json_formatter(role: str) -> logging.Formatter:
    def add_role(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**event, "role": role} if role else event

    before: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_role,
        structlog.processors.format_exc_info,
        _clean,
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(sort_keys=True, default=lambda value: without_secrets(str(value))),
        ],
    )


def _clean(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: _cleaned(key, value) for key, value in event.items()}


def _cleaned(key: str, value: Any) -> Any:
    if _SECRET_FIELDS.search(key):
        return _REMOVED
    return without_secrets(value) if isinstance(value, str) else value


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Keep a message on its line: whoever caused it may have chosen its words."""
        record.message = visible(record.message, besides="\t")
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return visible(without_secrets(super().format(record)))


_log = logging.getLogger(__name__)
_LONGEST_PAUSE_SECONDS = 10.0


def keep_private(folder: Path) -> None:
    """Close a role's folder, and what this process writes from now on, to every other user of the machine.

    A folder that came back from a backup may have lost the mode it was made with.

    Raises:
        InvalidInput: the folder is another user's.
    """
    os.umask(0o077)
    try:
        if folder.is_dir() and folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
    except PermissionError as error:
        raise InvalidInput(
            f"expected {folder.name} to belong to the user who runs this role; run chown on it"
        ) from error


@contextmanager
def alone_in(folder: Path) -> Iterator[Home]:
    """Open a role's folder for the one process that runs the role; nobody else runs it until this context ends.

    Raises:
        InvalidInput: the folder is no role's, or another user's.
        Refused: another process runs the role on this folder.
    """
    home = Home(folder=folder)
    config = home.config()
    keep_private(home.folder)
    with only_holder(home.folder, f"the {config.role} {config.name}"), sent(config.role, config.name):
        yield home


_START = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv[1]); sys.argv[:] = sys.argv[2:]; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


def own_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs one of our modules in a process of its own, with the packages of this process.

    Neither the folder it is started in nor the environment can put another ``models`` or ``privacy`` in the place of
    ours, and packages are found where this process finds them: also those of ``pip install --user`` and ``PYTHONPATH``.
    """
    return [sys.executable, "-I", "-c", _START, json.dumps(package_folders()), module, *arguments]


def package_folders() -> list[str]:
    """Return where this process finds packages: our own folder first, and never the one it was started in."""
    found = sys.path if sys.flags.safe_path else sys.path[1:]  # the first one is a script's folder, or the present one
    own = os.fspath(Path(__file__).resolve().parents[2])
    return list(dict.fromkeys([own, *(path for path in found if path.startswith("/"))]))


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        InvalidInput: somebody listens there already, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol is named because asyncio sends small answers at once (TCP_NODELAY) only where it is
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"expected to listen on {host}:{port}, but {os.strerror(error.errno or 0).lower()}; "
            "end the other program or choose another port"
        ) from error
    listener.set_inheritable(False)
    return listener


def announce(
    folder: Path, listener: socket.socket | None, role: str, *, public_url: str = "", https: bool = False
) -> None:
    """Write ``address.json`` in the role's folder once it is ready.

    It holds role, process id, ``listens`` (the URL on this machine) and ``url`` (where others reach it).
    """
    address: dict[str, Any] = {"role": role, "pid": os.getpid()}
    if listener is not None:
        host, port = listener.getsockname()[:2]
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (looked up, not listened on)
        address["listens"] = f"http{'s' * https}://{f'[{here}]' if ':' in here else here}:{port}"
        address["url"] = public_url or address["listens"]
    write_atomically(folder / "address.json", json.dumps(address).encode())


def end_with_parent() -> None:
    """End this process when its standard input closes, so that no child outlives a parent that was killed."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


class Closable(Protocol):
    """What is closed when a process ends."""

    def close(self) -> None:
        """Close it."""


class Loop(threading.Thread):
    """Calls ``step`` again and again until :meth:`stop`; a failing step is logged and tried again, ever more slowly.

    ``step`` returns how many seconds to rest before the next call.
    """

    def __init__(self, name: str, step: Callable[[], float]) -> None:
        super().__init__(name=name, daemon=True)
        self._step = step
        self._ended = threading.Event()
        self._woken = threading.Event()

    def run(self) -> None:
        """Run until stopped."""
        failures = 0
        while not self._ended.is_set():
            try:
                pause = self._step()
                failures = 0
            except TesseraError as error:
                failures += 1
                if self._ended.is_set():
                    return  # what it needed is being closed
                _log.warning("%s: %s", self.name, error)
                pause = min(_LONGEST_PAUSE_SECONDS, 0.2 * 2**failures)
            except Exception:  # one bad message must not end a hospital's daemon
                failures += 1
                if self._ended.is_set():
                    return
                _log.exception("%s failed", self.name)
                pause = min(_LONGEST_PAUSE_SECONDS, 0.5 * 2**failures)
            self._woken.wait(pause)
            self._woken.clear()

    def wake(self) -> None:
        """Make the next step come at once."""
        self._woken.set()

    def stop(self) -> None:
        """Make the current step the last."""
        self._ended.set()
        self._woken.set()


def stop_loops(loops: Sequence[Loop], *, seconds: float = 1.5) -> None:
    """Stop all loops and wait a moment for steps that are nearly done; one in a long poll ends with the process."""
    for loop in loops:
        loop.stop()
    deadline = time.monotonic() + seconds
    for loop in loops:
        loop.join(max(0.0, deadline - time.monotonic()))


def work_until_asked(folder: Path, name: str, step: Callable[[], float], *stores: Closable) -> None:
    """Run a role that has no server: its one loop, until the process is asked to end; then close its stores."""
    loop = Loop(name, step)
    try:
        loop.start()
        announce(folder, None, name)
        wait_for_signal()
    finally:
        stop_loops([loop])
        for store in stores:
            store.close()
        (folder / "address.json").unlink(missing_ok=True)


def on_end_signal(end: Callable[[], object]) -> None:
    """Let SIGTERM and SIGINT call ``end`` from now on, and never end the process by themselves.

    uvicorn, once it has stopped, raises the signal again for whoever handled it before: by default that would end the
    process there and then, before its stores are closed.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end())


def leave() -> NoReturn:
    """End this process at once, with everything closed and said; exit code 0.

    Python would first take every imported module apart, which takes a busy machine seconds of the ten that it has.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def wait_for_signal() -> None:
    """Return when this process is asked to end (SIGTERM or SIGINT)."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    while not ended.wait(0.5):
        time.sleep(0)
