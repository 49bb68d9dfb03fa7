"""What the orchestrator deletes of rounds that are over, so that a long study of a large model fits on its disk.

Signed documents stay for ever. Of the files, these rules say what goes, and in which order, oldest round first:

1. Single updates of every round that is over. They go at once, with the round.
2. While a study's other files take more than :data:`KEPT_BYTES`: the sums, integers, keys and moments of rounds that
   every hospital has followed. A hospital that signed the list of a round had recomputed the models of all rounds
   before it. One that signed nothing in the last :data:`LAGGING` rounds holds nothing up any more.
3. Then models, until the rest fits. The initial model and the newest three stay, and the others are thinned out evenly.

So nothing but single updates goes in a study of small models: 500 rounds of 50,000 parameters take 0.6 GB. A hospital
that lost its folder, or that comes late, needs the files of every round from the first one on; where they went by
rule 2, it is told so and cannot take part.

What goes is journaled before it is deleted. If the process ends in between, the next look deletes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.rounds.store import Store
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput
from privacy.ledger.journal import Journal

KEPT_BYTES = 1_000_000_000
LAGGING = 20
NEWEST = 3
DELETED = "round-files-deleted"
_ENDS = ("initial", "checkpoint")
_EVIDENCE = ("key", "helper-key", "commitments", "result", "opening", "pads")
_MODEL, _MOMENTS = "model_hash", "moments_hash"


@dataclass(frozen=True, kw_only=True)
class Tidied:
    """What goes of one study, or would go: blobs by hash, single updates by path, and their bytes together."""

    study: str
    rounds: tuple[int, ...]
    blobs: tuple[str, ...]
    updates: tuple[str, ...]
    bytes: int
    kept_bytes: int

    @property
    def files(self) -> int:
        """How many files."""
        return len(self.blobs) + len(self.updates)

    @property
    def list_hash(self) -> str:
        """SHA-256 of the sorted hashes and paths, one a line."""
        return sha256_hex("\n".join((*self.blobs, *self.updates)).encode())


def room_taken(store: Store) -> int:
    """Return how many bytes all blobs and single updates take, without reading a document."""
    folders = [store.folder / "blobs", *(store.folder / "updates").glob("*/*")]
    return sum(file.stat().st_size for folder in folders if folder.is_dir() for file in os.scandir(folder))


def tidy(
    store: Store, journal: Journal | None, *, kept_bytes: int = KEPT_BYTES, dry_run: bool = False
) -> tuple[Tidied, ...]:
    """Delete what the rules above say; return what went of each study that lost something.

    Args:
        store: the orchestrator's.
        journal: gets an entry for each study before anything is deleted; None only looks.
        kept_bytes: how much the files of one study may take.
        dry_run: only say what would go.
    """
    shared = _named_by_several(store)
    done = []
    for study, *_ in store.states():
        tidied = _Study.read(store, study, shared).superfluous(kept_bytes)
        if not tidied.files:
            continue
        done.append(tidied)
        if journal is not None and not dry_run:
            _delete(store, journal, tidied)
    return tuple(done)


def _delete(store: Store, journal: Journal, tidied: Tidied) -> None:
    body = {"study": tidied.study, "rounds": list(tidied.rounds), "files": tidied.files, "bytes": tidied.bytes}
    journal.append(DELETED, {**body, "list_hash": tidied.list_hash})
    for digest in tidied.blobs:
        store.drop_blob(digest)
    for path in tidied.updates:
        (store.folder / path).unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class _Round:
    number: int
    models: tuple[str, ...] = ()
    moments: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    updates: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Study:
    """The files of one study by round, and what must not go."""

    store: Store
    study: str
    rounds: tuple[_Round, ...]
    followed: int
    sizes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, store: Store, study: str, shared: frozenset[str]) -> _Study:
        """Look at the finished rounds of a study; files that another study names are left alone."""
        last = store.last_round(study, "checkpoint")
        sizes: dict[str, int] = {}

        def there(digests: Iterable[str]) -> tuple[str, ...]:
            found = []
            for digest in dict.fromkeys(digests):
                size = _size(store, digest)
                if digest not in shared and size is not None:
                    found.append(digest)
                    sizes[digest] = size
            return tuple(found)

        ends = {number: document for kind in _ENDS for number, document in _documents(store, study, kind)}
        evidence: dict[int, list[str]] = {}
        for kind in _EVIDENCE:
            for number, document in _documents(store, study, kind):
                evidence.setdefault(number, []).extend(_hashes(document))
        rounds = tuple(
            _Round(
                number=number,
                models=there(_named(ends.get(number, {}), _MODEL)),
                moments=there(_named(ends.get(number, {}), _MOMENTS)),
                evidence=there(evidence.get(number, ())),
                updates=tuple(_updates(store, study, number)) if number else (),
            )
            for number in range(last + 1)
        )
        return cls(store=store, study=study, rounds=rounds, followed=_followed(store, study, last), sizes=sizes)

    def superfluous(self, kept_bytes: int) -> Tidied:
        """Return what goes, by the rules."""
        kept = sum(self.sizes.values())
        updates = [path for round_ in self.rounds for path in round_.updates]
        freed = sum(path.stat().st_size for path in updates)
        rounds = {round_.number for round_ in self.rounds if round_.updates}
        blobs: dict[str, int] = {}
        for number, digest in (*self._old_evidence(), *self._thinned_models()):
            if kept <= kept_bytes:
                break
            if digest not in blobs:
                blobs[digest] = number
                kept -= self.sizes[digest]
        return Tidied(
            study=self.study,
            rounds=tuple(sorted(rounds | set(blobs.values()))),
            blobs=tuple(sorted(blobs)),
            updates=tuple(sorted(path.relative_to(self.store.folder).as_posix() for path in updates)),
            bytes=freed + sum(self.sizes[digest] for digest in blobs),
            kept_bytes=kept,
        )

    def _old_evidence(self) -> Iterator[tuple[int, str]]:
        needed = {d for r in self.rounds[self.followed + 1 :] for d in (*r.evidence, *r.moments)} | set(self._models())
        for round_ in self.rounds[: self.followed + 1]:
            for digest in (*round_.evidence, *round_.moments):
                if digest not in needed:
                    yield round_.number, digest

    def _thinned_models(self) -> Iterator[tuple[int, str]]:
        """Yield models in the order in which they go: of odd rounds, of every second one that is left, and so on."""
        models = {round_.number: round_.models[0] for round_ in self.rounds if round_.models}
        needed = {models[n] for n in (0, *sorted(models)[-NEWEST:]) if n in models}
        going = [n for n in models if 0 < n <= self.followed and models[n] not in needed]
        for number in sorted(going, key=lambda n: (n & -n, n)):  # the highest power of two that divides n, then n
            yield number, models[number]

    def _models(self) -> Iterator[str]:
        return (digest for round_ in self.rounds for digest in round_.models)


def _followed(store: Store, study: str, last: int) -> int:
    """Return the last round whose models every hospital has recomputed; never one of the two newest."""
    newest: dict[str, int] = {}
    for number, site, _ in store.later(study, "attestation", after_round=last - LAGGING):
        newest[site] = max(number, newest.get(site, 0))
    return max(0, min((*(number - 1 for number in newest.values()), last - 2)))


def _documents(store: Store, study: str, kind: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the round and the content of every document of a kind."""
    for number, _, document in store.later(study, kind, after_round=-1):
        yield number, document.get("payload", document)


def _named(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = document.get(name)
    return (value,) if isinstance(value, str) and value else ()


def _hashes(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if len(value) == 64 and set(value) <= set("0123456789abcdef"):
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _hashes(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _hashes(item)


def _updates(store: Store, study: str, number: int) -> Iterator[Path]:
    folder = store.update_folder(study, number)
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.is_file())


def _size(store: Store, digest: str) -> int | None:
    try:
        return store.blob_bytes(digest)
    except (InvalidInput, OSError):
        return None


def _named_by_several(store: Store) -> frozenset[str]:
    """Return the models that more than one study names: one begins with another's, or both from the same seed."""
    seen: set[str] = set()
    shared: set[str] = set()
    for study, *_ in store.states():
        documents = [document for kind in _ENDS for _, document in _documents(store, study, kind)]
        own = {digest for d in documents for name in (_MODEL, _MOMENTS) for digest in _named(d, name)}
        shared |= seen & own
        seen |= own
    return frozenset(shared)
