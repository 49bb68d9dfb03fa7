"""What the orchestrator remembers: studies, rounds, headers, attestations (SQLAlchemy) and blobs by hash (files).

Every row is written once or moves forward only, so that a restart continues where the last one stopped. Single
updates lie under ``updates/`` and are served to nobody; models, round keys and sums lie under ``blobs/``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from datasites.node.files import sync_folder, write_atomically
from datasites.node.places import hashed_place
from datasites.study.signing import Signed, dump, parse
from orchestrator.objects.bucket import Objects
from orchestrator.rounds.leadership import Leadership
from orchestrator.rounds.tables import DOCUMENTS as _DOCUMENTS
from orchestrator.rounds.tables import SCHEMA as _SCHEMA
from orchestrator.rounds.tables import STUDIES as _STUDIES
from privacy.canonical import plain_json, sha256_hex
from privacy.errors import InvalidInput, Refused
from privacy.storage import set_pragmas, upgrade

_PLACES_KEPT = 1000
Documents = dict[tuple[str, int], dict[str, Any]]
T = TypeVar("T")

STATES = (
    "waiting",
    "running",
    "paused",
    "finished",
    "failed",
    "denied",
    "revoked",
    "withdrawn",
    "cancelled",
    "expired",
)


class Store:
    """The orchestrator's memory in one folder, or in the database at ``database_url`` with blobs in the folder.

    With ``objects`` (``s3://bucket/prefix``) blobs lie in that bucket too, and the folder is its cache.
    One process at a time has it open; several threads may use it.
    """

    def __init__(self, folder: Path, database_url: str | None = None, *, objects: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._objects = Objects(folder / "blobs", objects) if objects else None
        self._engine = sa.create_engine(database_url or f"sqlite:///{folder / 'orchestrator.sqlite'}")
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _durable)
        upgrade(self._engine, _SCHEMA)
        self._lock = threading.RLock()
        self._require: Callable[[sa.Connection], object] = lambda _: None
        self._known: dict[tuple[str, int, str], Documents] = {}
        self._opened: dict[tuple[str, int, str, int, str], Any] = {}
        self._proposals: dict[str, Signed] = {}
        self._last: dict[tuple[str, str], int] = {}

    @property
    def folder(self) -> Path:
        """Where blobs and ciphertexts lie, and the database unless it is elsewhere."""
        return self._folder

    def leadership(self, *, holder: str, public_key: str, former: Collection[str] = ()) -> Leadership | None:
        """Return the lease that this store's transactions look at from now on; None where nobody else can lead.

        Only PostgreSQL can have several processes at it: a file is held by the one process of its folder.
        """
        if self._engine.dialect.name != "postgresql":
            return None
        lease = Leadership(self._engine, holder=holder, public_key=public_key, former=former)
        self._require = lease.require
        return lease

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._engine.begin() as connection:
            self._require(connection)
            yield connection

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    # studies ---------------------------------------------------------------------------------------------------

    def add_study(self, study: str, proposal: Signed) -> None:
        """Register a study once; the same proposal again is no error.

        Raises:
            Refused: another proposal has this name already.
        """
        text = plain_json(dump(proposal)).decode()
        with self._writing() as connection:
            found = connection.execute(
                sa.select(_STUDIES.c.proposal).where(_STUDIES.c.study == study)
            ).scalar_one_or_none()
            if found is None:
                connection.execute(_STUDIES.insert().values(study=study, proposal=text, state="waiting", reason=""))
            elif found != text:
                raise Refused(f"a study called {study!r} exists with another proposal; choose another name")

    def set_state(self, study: str, state: str, reason: str = "") -> None:
        """Move a study to one of :data:`STATES`, with the reason people should read."""
        if state not in STATES:
            raise InvalidInput(f"expected a study state out of {STATES}, got {state!r}")
        with self._writing() as connection:
            connection.execute(_STUDIES.update().where(_STUDIES.c.study == study).values(state=state, reason=reason))

    def studies(self) -> list[tuple[str, Signed, str, str]]:
        """Return (name, signed proposal, state, reason) of every study."""
        return [(name, self._proposal(name), state, reason) for name, state, reason in self.states()]

    def study(self, name: str) -> tuple[Signed, str, str]:
        """Return (signed proposal, state, reason).

        Raises:
            InvalidInput: there is no such study.
        """
        query = sa.select(_STUDIES.c.state, _STUDIES.c.reason).where(_STUDIES.c.study == name)
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is not None:
            return self._proposal(name), row.state, row.reason
        raise InvalidInput(f"there is no study called {name[:80]!r}; `tessera status` lists them")

    def _proposal(self, study: str) -> Signed:
        """Return the signed proposal of a study that exists; it never changes, so it is read once."""
        found = self._proposals.get(study)
        if found is None:
            query = sa.select(_STUDIES.c.proposal).where(_STUDIES.c.study == study)
            with self._engine.connect() as connection:
                found = parse(Signed, connection.execute(query).scalar_one().encode())
            with self._lock:
                _make_room(self._proposals)
                self._proposals[study] = found
        return found

    def states(self, *, after: str = "") -> list[tuple[str, str, str]]:
        """Return (name, state, reason) of every study whose name comes after ``after``, by name; reads no proposal."""
        query = sa.select(_STUDIES.c.study, _STUDIES.c.state, _STUDIES.c.reason).order_by(_STUDIES.c.study)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(_STUDIES.c.study > after) if after else query).all()
        return [(r.study, r.state, r.reason) for r in rows]

    def last_rounds(self, kind: str) -> dict[str, int]:
        """Return, by study, the last round that has a document of this kind."""
        query = sa.select(_DOCUMENTS.c.study, sa.func.max(_DOCUMENTS.c.round).label("last")).filter_by(kind=kind)
        with self._engine.connect() as connection:
            return {r.study: r.last for r in connection.execute(query.group_by(_DOCUMENTS.c.study))}

    def totals(self, kind: str) -> dict[str, int]:
        """Return, by study, how many documents of a kind there are, over all rounds, authors and closings."""
        query = sa.select(_DOCUMENTS.c.study, sa.func.count().label("number")).filter_by(kind=kind)
        with self._engine.connect() as connection:
            return {r.study: r.number for r in connection.execute(query.group_by(_DOCUMENTS.c.study))}

    def later(self, study: str, kind: str, *, after_round: int) -> list[tuple[int, str, dict[str, Any]]]:
        """Return (round, author, document) of a kind in all rounds after one, oldest first; keeps none in memory.

        An author's documents of one round come in the order of their closings.
        """
        query = (
            sa.select(_DOCUMENTS.c.round, _DOCUMENTS.c.author, _DOCUMENTS.c.document)
            .filter_by(study=study, kind=kind)
            .where(_DOCUMENTS.c.round > after_round)
            .order_by(_DOCUMENTS.c.round, _DOCUMENTS.c.author, _DOCUMENTS.c.closing)
        )
        with self._engine.connect() as connection:
            return [(r.round, r.author, json.loads(r.document)) for r in connection.execute(query)]

    # signed documents of a round ------------------------------------------------------------------------------

    def put_document(
        self,
        study: str,
        round_: int,
        kind: str,
        document: Signed | Mapping[str, Any],
        *,
        closing: int = 0,
        author: str = "",
    ) -> bool:
        """Keep one document for ever; True if it is new, False if the very same was there.

        Raises:
            Refused: another document has this place.
        """
        value = dump(document) if isinstance(document, Signed) else dict(document)
        text = plain_json(value, checked=isinstance(document, Signed)).decode()
        place = {"study": study, "round": round_, "kind": kind, "closing": closing, "author": author}
        with self._lock:
            known = self._place(study, round_, kind)
            if (author, closing) not in known:
                with self._writing() as connection:
                    connection.execute(_DOCUMENTS.insert().values(**place, document=text))
                self._known[(study, round_, kind)] = {**known, (author, closing): json.loads(text)}
                if (study, kind) in self._last:
                    self._last[(study, kind)] = max(round_, self._last[(study, kind)])
                return True
        self.require_place(study, round_, kind, document, closing=closing, author=author)
        return False

    def require_place(
        self,
        study: str,
        round_: int,
        kind: str,
        document: Signed | Mapping[str, Any],
        *,
        closing: int = 0,
        author: str = "",
    ) -> None:
        """Check that :meth:`put_document` would keep a document; before bytes are kept that come with it.

        Raises:
            Refused: another document has this place.
        """
        known = self._place(study, round_, kind).get((author, closing))
        value = dump(document) if isinstance(document, Signed) else document
        if known is not None and plain_json(known) != plain_json(value):
            raise Refused(f"round {round_} of {study!r} has another {kind} from {author or 'this party'} already")

    def document(
        self, study: str, round_: int, kind: str, *, closing: int = 0, author: str = ""
    ) -> dict[str, Any] | None:
        """Return one document, or None; it is not to be changed."""
        return self._place(study, round_, kind).get((author, closing))

    def documents(self, study: str, round_: int, kind: str, *, closing: int | None = None) -> dict[str, dict[str, Any]]:
        """Return all documents of a kind in a round, by author (the newest closing's, unless one is named)."""
        found = sorted(self._place(study, round_, kind).items())
        return {author: value for (author, number), value in found if closing in (None, number)}

    def all_documents(self, study: str, round_: int, kind: str) -> list[dict[str, Any]]:
        """Return all documents of a kind in a round, of every author and closing."""
        return [value for _, value in sorted(self._place(study, round_, kind).items())]

    def count(self, study: str, round_: int, kind: str, *, author: str) -> int:
        """Return how many documents of a kind somebody left in a round, over all closings."""
        return sum(name == author for name, _ in self._place(study, round_, kind))

    def counts(self, round_: int, kind: str) -> dict[str, int]:
        """Return how many documents of a kind lie in a round of every study that has one, by the study's name."""
        places = sa.select(_DOCUMENTS.c.study, sa.func.count()).filter_by(round=round_, kind=kind)
        with self._engine.connect() as connection:
            rows = connection.execute(places.group_by(_DOCUMENTS.c.study).order_by(_DOCUMENTS.c.study)).all()
        return {str(study): int(number) for study, number in rows}

    def opened(
        self, value: type[T], study: str, round_: int, kind: str, *, closing: int = 0, author: str = ""
    ) -> T | None:
        """Return the value inside one signed document, or None; since it never changes, it is parsed once.

        Whoever kept the document has checked its signature.
        """
        place = (study, round_, kind, closing, author)
        found = self._opened.get(place)
        if found is None:
            document = self.document(study, round_, kind, closing=closing, author=author)
            if document is None:
                return None
            found = parse(value, document["payload"])
            with self._lock:
                _make_room(self._opened)
                self._opened[place] = found
        if not isinstance(found, value):
            raise InvalidInput(f"expected a {value.__name__} in a document of kind {kind!r}")
        return found

    def _place(self, study: str, round_: int, kind: str) -> Documents:
        """Return what lies in one place; since nothing in it ever changes, it is read from the database once."""
        place = (study, round_, kind)
        with self._lock:
            if place not in self._known:
                query = sa.select(_DOCUMENTS).filter_by(study=study, round=round_, kind=kind)
                with self._engine.connect() as connection:
                    rows = connection.execute(query).all()
                _make_room(self._known)
                self._known[place] = {(r.author, r.closing): json.loads(r.document) for r in rows}
            return self._known[place]

    def last_round(self, study: str, kind: str) -> int:
        """Return the last round that has a document of this kind; 0 if none has. It is looked up once, then kept."""
        with self._lock:
            if (study, kind) not in self._last:
                query = sa.select(sa.func.max(_DOCUMENTS.c.round)).filter_by(study=study, kind=kind)
                with self._engine.connect() as connection:
                    found = int(connection.execute(query).scalar() or 0)
                _make_room(self._last)
                self._last[(study, kind)] = found
            return self._last[(study, kind)]

    # blobs ----------------------------------------------------------------------------------------------------

    def put_blob(self, data: bytes) -> str:
        """Keep bytes that any participant may fetch by their hash; return the hash."""
        digest = sha256_hex(data)
        path = self._folder / "blobs" / digest
        if not path.exists():
            write_atomically(path, data)
        if self._objects is not None:
            self._objects.keep(path)
        return digest

    def adopt_blob(self, path: Path, digest: str) -> str:
        """Make the durable file at ``path``, whose hash is ``digest``, a blob; return the hash."""
        target = self._folder / "blobs" / _checked_digest(digest)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
        sync_folder(target.parent)
        if self._objects is not None:
            self._objects.keep(target)
        return digest

    def blob_path(self, digest: str) -> Path:
        """Return where the blob lies.

        Raises:
            InvalidInput: not a hash, or no such blob.
        """
        path = self._folder / "blobs" / _checked_digest(digest)
        if not path.exists() and not (self._objects is not None and self._objects.fetch(path)):
            raise InvalidInput("there is no such blob; ask for the hash that the round plan names")
        return path

    def blob(self, digest: str) -> bytes:
        """Return the blob's bytes."""
        return self.blob_path(digest).read_bytes()

    def blob_bytes(self, digest: str) -> int | None:
        """Return how long a blob is, None where there is none; none is fetched for it."""
        path = self._folder / "blobs" / _checked_digest(digest)
        if path.exists():
            return path.stat().st_size
        return self._objects.size(digest) if self._objects is not None else None

    def drop_blob(self, digest: str) -> None:
        """Remove a blob for good."""
        if self._objects is not None:
            self._objects.drop(_checked_digest(digest))
        (self._folder / "blobs" / _checked_digest(digest)).unlink(missing_ok=True)

    def update_folder(self, study: str, round_: int) -> Path:
        """Return where the ciphertexts of a round lie."""

        def is_of(old: Path) -> bool:
            known = [name for name, *_ in self.studies() if sha256_hex(name.encode()).startswith(old.name)]
            return known == [study]

        return hashed_place(self._folder / "updates", study, is_of=is_of) / str(round_)

    def update_path(self, study: str, round_: int, digest: str) -> Path:
        """Return where the ciphertexts with this hash lie."""
        return self.update_folder(study, round_) / _checked_digest(digest)

    def drop_updates(self, study: str, round_: int, digests: Iterable[str]) -> None:
        """Remove the ciphertexts of a finished round."""
        for digest in digests:
            self.update_path(study, round_, digest).unlink(missing_ok=True)


def _make_room(kept: dict[Any, Any]) -> None:
    """Forget the oldest of what was read, so that one more can be kept."""
    while len(kept) >= _PLACES_KEPT:
        del kept[next(iter(kept))]


def _checked_digest(digest: str) -> str:
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise InvalidInput("expected a SHA-256 of 64 lower-case hexadecimal digits")
    return digest


def _durable(connection: Any, _record: Any) -> None:
    set_pragmas(connection, {"journal_mode": "WAL", "synchronous": "FULL"})
