"""The journal: what a role did, saw and refused, in an order that cannot be edited afterwards.

    >>> journal = Journal(folder / "journal.db", identity)
    >>> journal.append("proposal-denied", {"study": "pilot", "reason": "no legal basis"}).index
    1

Participants of a round also note each other's heads in it (``attested``), so that nobody can rewrite a past that others
have seen. Bodies are plain JSON and never hold a secret, a record or a patient identifier.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from privacy.identity import Identity
from privacy.ledger.chain import Chain, Entry, Head, Mirror
from privacy.ledger.links import Row

PRIVACY_AUDIT = "privacy-audit"
"""Kind of the entries that hold the result of ``tessera audit-privacy``."""

_HASHES = ("list_hash", "plan_hash")
Rounds = dict[tuple[str, int], tuple[Mapping[str, Any], ...]]
"""By study and round, the hashes that entries of one kind name."""

__all__ = ["PRIVACY_AUDIT", "Entry", "Head", "Journal"]


class Journal:
    """A role's journal in the SQLite file ``path``, signed by ``identity`` (None: for reading only)."""

    def __init__(
        self,
        path: Path,
        identity: Identity | None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._chain = Chain(path, identity, purpose="journal", clock=clock)
        self._looked: dict[str, tuple[int, Rounds]] = {}
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        """Where the journal lies."""
        return self._chain.path

    @property
    def public_key(self) -> str:
        """The key its entries are signed with."""
        return self._chain.public_key

    @property
    def public_keys(self) -> tuple[str, ...]:
        """All keys that it was signed with, the present one last."""
        return self._chain.public_keys

    def rotate(self, successor: Identity) -> None:
        """Go on with another key, which the old one signs (:meth:`privacy.ledger.chain.Chain.rotate`)."""
        self._chain.rotate(successor)

    @property
    def head(self) -> Head:
        """The signed end of the journal, to be shown to peers."""
        return self._chain.head

    def now(self) -> datetime:
        """Return the time by the high-water mark: never earlier than the newest entry."""
        return self._chain.now()

    def mirrored(self, mirror: Mirror | None) -> None:
        """Have every new entry kept elsewhere too, before it can be seen here; None ends it."""
        self._chain.mirror = mirror

    def rows(self, since: int) -> Sequence[Row]:
        """Return the rows of the entries above ``since``, oldest first, for a mirror."""
        return self._chain.rows(since)

    def adopt(self, rows: Sequence[Row]) -> None:
        """Add what this journal's owner wrote elsewhere (:meth:`privacy.ledger.chain.Chain.adopt`)."""
        self._chain.adopt(rows)

    def append(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """Write one entry and return it once it is on disk (safe from several threads and processes)."""
        return self._chain.append(kind, body)

    def append_all(self, entries: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Write several entries, all of them or none; they are on disk when this returns."""
        with self._chain.transaction():
            for kind, body in entries:
                self._chain.add(kind, body)

    def entries(self, *, since: int = 0, kind: str | None = None) -> Iterator[Entry]:
        """Yield entries with an index above ``since``, oldest first, of one kind or of all."""
        return self._chain.entries(since=since, kind=kind)

    def by_round(self, kind: str) -> Rounds:
        """Return what the entries of one kind say of each (study, round), oldest first; entries without are left out.

        Entries never change, so only those that are new are read; of each only its hashes are kept.
        """
        with self._lock:
            since, known = self._looked.get(kind, (0, {}))
            for entry in self._chain.entries(since=since, kind=kind):
                since, body = entry.index, entry.body
                if "study" in body and "round" in body:
                    said = {name: body[name] for name in _HASHES if name in body}
                    known[(str(body["study"]), int(body["round"]))] = (
                        *known.get((str(body["study"]), int(body["round"])), ()),
                        said,
                    )
            self._looked[kind] = since, known
            return dict(known)

    def verify(self) -> None:
        """Raise Tampered at the first hash, signature, number or time that does not hold."""
        self._chain.verify()

    def check_not_rolled_back(self, heads: Iterable[Head | str]) -> None:
        """Raise Tampered when a head that a peer has seen is not in this journal (a restore from backup)."""
        self._chain.check_not_rolled_back(heads)

    def contains(self, digest: str) -> bool:
        """Tell whether an entry has this hash."""
        return self._chain.contains(digest)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._looked.clear()
        self._chain.close()
