"""Who may fetch which blob: models and round keys go to a study's hospitals, sums to its keyholder, and no further.

============  ====================================================================================
caller        may fetch
============  ====================================================================================
participant   the initial model of its studies; model and key that their newest plans name
keyholder     the sums of its studies' newest closed round, and the pad sums that helpers answered there
downloader    every model of the study: whom ``custody.downloaders`` of the proposal names
orchestrator  everything it stored itself (asked for by its own people's tools)
============  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi.responses import FileResponse

from orchestrator.rounds.decryption import SERVED, served
from orchestrator.rounds.helping import PADS
from orchestrator.rounds.store import Store
from privacy.encryption.shares import MISSING_PART
from privacy.errors import Refused


class Blob(FileResponse):
    """An answer of stored bytes: models and sums are large, so with fewer hops between threads."""

    chunk_size = 1 << 19


def require_readable(store: Store, caller: str, digest: str) -> None:
    """Check that ``caller`` may fetch the blob with this hash.

    Raises:
        Refused: no study gives it to them; whether there is such a blob is not said.
    """
    studies = sorted(store.studies(), key=lambda found: found[2] != "running")  # most often it is of one that runs
    if not any(digest in _readable(store, study, proposal.payload, caller) for study, proposal, _, _ in studies):
        raise Refused("none of your studies gives you such a blob now; ask for the hash that your work item names")


def _readable(store: Store, study: str, proposal: Any, caller: str) -> set[str]:
    found: set[str] = set()
    if any(participant["name"] == caller for participant in proposal["participants"]):
        found |= _planned(store, study) | {str((store.document(study, 0, "initial") or {}).get("model_hash"))}
    if proposal["keyholder"]["name"] == caller:
        found |= _served(store, study)
    if caller in proposal["custody"]["downloaders"]:
        found |= set(_models(store, study))
    return found


def _planned(store: Store, study: str) -> set[str]:
    newest = store.last_round(study, "plan")
    plans = [store.document(study, number, "plan") for number in (newest - 1, newest)]
    return {str(plan["payload"][what]) for plan in plans if plan is not None for what in ("model_hash", "key_hash")}


def _served(store: Store, study: str) -> set[str]:
    number = store.last_round(study, SERVED)
    found = served(store, study, number)
    if found is None:
        return set()
    answers = store.documents(study, number, PADS).values()
    return {found, *(str(a["payload"]["parts"][str(MISSING_PART)]) for a in answers)}


def _models(store: Store, study: str) -> Iterator[str]:
    rounds = [(0, "initial"), *((n, "checkpoint") for n in range(1, store.last_round(study, "checkpoint") + 1))]
    for number, kind in rounds:
        document = store.document(study, number, kind)
        if document is not None:
            yield str(document["model_hash"])
