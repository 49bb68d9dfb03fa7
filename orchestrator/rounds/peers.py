"""What every peer runs, as it last said itself: kept across restarts, for ``tessera upgrade --check``."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from datasites.node.files import write_atomically
from datasites.study.proposal import Proposal
from datasites.study.protocol import MOST_CHARACTERS, UNSAID, UNSAID_PROPOSALS, major_minor
from privacy.errors import InvalidInput, Refused
from privacy.sentences import joined

FILE = "peers.json"
_HASH = re.compile("[0-9a-f]{64}")
_NUMBER = re.compile("[1-9][0-9]?", re.ASCII)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Software:
    """One peer's software: its protocol, its release of Tessera, the hash of what touches data, and since when.

    ``proposals`` is the newest version of a proposal that it understands; 0 in what was kept before peers said so.
    """

    protocol: str
    release: str = ""
    data: str = ""
    since: str = ""
    proposals: int = 0

    @property
    def name(self) -> str:
        """The software as people call it."""
        return f"Tessera {self.release}" if self.release else "a release from before 0.2"


@dataclass
class Peers:
    """The peers' software, in one file of the orchestrator's folder; ``path`` None keeps it in memory."""

    path: Path | None = None
    _known: dict[str, Software] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.path is not None:
            self._known = read_peers(self.path)

    def heard(self, name: str, protocol: str, release: str, data: str, proposals: str = "") -> None:
        """Note what a peer says of itself; what is no version, no hash or no small number is left out.

        A request that says nothing, as one that was not made by Tessera, changes nothing that is known.
        """
        if not (protocol or release) and name in self.known():
            return
        said = Software(
            protocol=protocol if _is_version(protocol) else UNSAID,
            release=release if _is_version(release) else "",
            data=data if _HASH.fullmatch(data) else "",
            proposals=int(proposals) if _NUMBER.fullmatch(proposals) else UNSAID_PROPOSALS,
        )
        with self._lock:
            before = self._known.get(name)
            if before is not None and said in (
                replace(before, since="", data=data) for data in ("", before.data)
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


def check_understood(proposal: Proposal, peers: Mapping[str, Software]) -> None:
    """Check that everybody in a study understands its proposal, as far as they have said what they run.

    Raises:
        Refused: who does not, what they run, and what to do.
    """
    parties = (*proposal.participants, proposal.keyholder, *proposal.helpers)
    behind = [
        f"{name} runs {peers[name].name} and understands version {peers[name].proposals}"
        for name in dict.fromkeys(party.name for party in parties)
        if name in peers and 0 < peers[name].proposals < proposal.protocol
    ]
    if behind:
        raise Refused(
            f"the proposal is of version {proposal.protocol}, which not everybody understands: {joined(behind)}. "
            "Upgrade Tessera there first (`tessera upgrade --check` says what will happen), then propose again"
        )


def _is_version(text: str) -> bool:
    try:
        return len(text) <= MOST_CHARACTERS and bool(major_minor(text))
    except InvalidInput:
        return False
