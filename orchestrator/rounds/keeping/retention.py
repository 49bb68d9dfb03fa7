"""Models are deleted when the retention that their proposal promised is over, and the proof is signed.

Everything from which the model could be had again goes with it: every model and moment of every round, the sums and
the integers. A file that another study still needs stays, and the proof says so. Headers, lists and signatures stay, so
that the record of what happened can be verified. Copies that recipients fetched, and backups, are theirs to delete.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from datasites.node.places import SHORT_DIGITS
from datasites.study.parties import parse_time
from datasites.study.proposal import Proposal
from datasites.study.signing import parse
from datasites.study.thread import OVER_FOR_GOOD
from orchestrator.rounds.service import Service
from orchestrator.rounds.store import Store
from orchestrator.rounds.thread import words
from privacy.canonical import sha256_hex
from privacy.ledger.journal import Journal

DELETED = "model-deleted"
_OVER = ("study-finished", "study-ended")
_BLOBS = {
    "initial": ("model_hash",),
    "checkpoint": ("model_hash", "moments_hash"),
    "result": ("integers_hash",),
    "commitments": ("sum_hash",),
}


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """What was deleted of one study; ``kept`` are files that another study needs."""

    study: str
    deleted: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def list_hash(self) -> str:
        """SHA-256 of the sorted hashes of the deleted files, one a line."""
        return sha256_hex("\n".join(self.deleted).encode())


def enforce(service: Service, now: dt.datetime) -> tuple[Deletion, ...]:
    """Delete the models whose retention is over at ``now``, journal it, and tell every hospital of the study."""
    later = max(now, service.journal.now())
    done = []
    for study in due(service.store, service.journal, later):
        deletion = _delete(service.store, study)
        body = {"study": study, "deleted": deletion.deleted, "kept": deletion.kept, "list_hash": deletion.list_hash}
        service.journal.append(DELETED, body)
        service.threads.tell(study, "deleted", _sentence(service.store, deletion))
        done.append(deletion)
    return tuple(done)


def due(store: Store, journal: Journal, now: dt.datetime) -> list[str]:
    """Return the studies whose models have to be deleted now."""
    ended = {str(e.body["study"]): e.at for kind in _OVER for e in journal.entries(kind=kind)}
    found = []
    for study, signed, state, _ in store.studies():
        days = parse(Proposal, dict(signed.payload)).custody.retention_days
        over = state in OVER_FOR_GOOD and study in ended
        if over and now >= parse_time(ended[study]) + dt.timedelta(days=days) and not _told(store, study):
            found.append(study)
    return found


def _told(store: Store, study: str) -> bool:
    return any(word.kind == "deleted" for _, word in words(store, study))


def _delete(store: Store, study: str) -> Deletion:
    needed = {
        h for name, *_ in store.studies() if name != study and not _told(store, name) for h in _hashes(store, name)
    }
    own = set(_hashes(store, study))
    for digest in sorted(own - needed):
        store.drop_blob(digest)
    for number in range(1, store.last_round(study, "plan") + 1):
        shutil.rmtree(store.update_folder(study, number), ignore_errors=True)
    digest = sha256_hex(study.encode())
    for name in (study, digest, digest[:SHORT_DIGITS]):  # where `tessera study wait` puts results by default
        for path in (store.folder.parent / "results" / name).glob("*.safetensors"):
            path.unlink()
    return Deletion(study=study, deleted=tuple(sorted(own - needed)), kept=tuple(sorted(own & needed)))


def _hashes(store: Store, study: str) -> Iterable[str]:
    for number in range(store.last_round(study, "plan") + 1):
        for kind, fields in _BLOBS.items():
            for document in store.all_documents(study, number, kind):
                payload = document.get("payload", document)
                yield from (str(payload[field]) for field in fields if payload.get(field))


def _sentence(store: Store, deletion: Deletion) -> str:
    days = parse(Proposal, dict(store.study(deletion.study)[0].payload)).custody.retention_days
    kept = f" {len(deletion.kept)} files stay because another study needs them." if deletion.kept else ""
    return (
        f"The retention of {days} days is over: {len(deletion.deleted)} files with models, sums and integers were "
        f"deleted. SHA-256 of the sorted list of their hashes: {deletion.list_hash}.{kept}"
    )
