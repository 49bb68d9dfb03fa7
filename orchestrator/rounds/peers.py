"""What every peer runs, as it last said itself: kept across restarts, for ``tessera upgrade --check``."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasites.node.files import write_atomically
from datasites.study.protocol import MOST_CHARACTERS, UNSAID, major_minor
from privacy.errors import InvalidInput

FILE = "peers.json"
_HASH = re.compile("[0-9a-f]{64}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Software:
    """One peer's software: its protocol, its release of Tessera, the hash of what touches data, and since when."""

    protocol: str
    release: str = ""
    data: str = ""
    since: str = ""


@dataclass
class Peers:
    """The peers' software, in one file of the orchestrator's folder; ``path`` None keeps it in memory."""

    path: Path | None = None
    _known: dict[str, Software] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.path is not None:
            self._known = read_peers(self.path)

    def heard(self, name: str, protocol: str, release: str, data: str) -> None:
        """Note what a peer says of itself; what is no version or no hash is left out."""
        said = Software(
            protocol=protocol if _is_version(protocol) else UNSAID,
            release=release if _is_version(release) else "",
            data=data if _HASH.fullmatch(data) else "",
        )
        with self._lock:
            before = self._known.get(name)
            if before is not None and said in (
                Software(protocol=before.protocol, release=before.release, data=data) for data in ("", before.data)
            ):  # a hospital's commands do not name what touches data
                return
            since = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            self._known[name] = Software(**{**asdict(said), "since": since})
            if self.path is not None:
                self._keep(self.path)

    def known(self) -> Mapping[str, Software]:
        """Return what is known, by the peer's name."""
        with self._lock:
            return dict(self._known)

    def _keep(self, path: Path) -> None:
        value = {name: asdict(software) for name, software in sorted(self._known.items())}
        try:
            write_atomically(path, json.dumps(value, indent=1).encode())
        except OSError as error:  # nobody's round depends on it
            _log.warning("what the peers run could not be kept: %s", error.strerror)


def read_peers(path: Path) -> dict[str, Software]:
    """Return what was kept in a file; nothing if there is none or it cannot be read."""
    try:
        value: dict[str, dict[str, Any]] = json.loads(path.read_bytes())
        return {name: Software(**fields) for name, fields in value.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _is_version(text: str) -> bool:
    try:
        return len(text) <= MOST_CHARACTERS and bool(major_minor(text))
    except InvalidInput:
        return False
