"""Every study in a few lines, for ``GET /studies``: what a checkpoint says is read once and only added up.

A study of 500 rounds and 40 hospitals has megabytes of documents. None of them changes once it is written, so the sums
over finished rounds are kept, and each look reads what is new. Called from threads beside the event loop.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from datasites.study.signing import parse
from datasites.study.thread import WORD, Word
from orchestrator.rounds.store import Store
from orchestrator.rounds.thread import sealed_words
from orchestrator.studies.status import takes_part

_log = logging.getLogger(__name__)
LAST_WORDS = 12
MOST = 1000


@dataclass
class _Sums:
    """One study's sums over its finished rounds."""

    proposal: dict[str, Any]
    rounds: int = 0
    seconds: float = 0.0
    last_seconds: float | None = None
    uplink_bytes: int = 0
    updates: Counter[str] = field(default_factory=Counter)
    refused: set[tuple[int, str]] = field(default_factory=set)
    refusals: int = 0
    approved: tuple[str, ...] = ()
    words: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Numbers:
    """How many documents of some kinds each study has, read in one go."""

    checkpoints: dict[str, int]
    refusals: dict[str, int]
    approvals: dict[str, int]
    words: dict[str, int]


class Summaries:
    """The studies of one store, as their participants see them in a list."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._sums: dict[str, _Sums] = {}

    def read_ahead(self) -> None:
        """Add up what is in the store, study by study, so that the first to ask does not wait for all of it."""
        try:
            numbers = self._numbers()
            for study, *_ in self._store.states():
                with self._lock:
                    self._read_on(study, self._known(study), numbers)
        except SQLAlchemyError as error:  # the database fails, or is closed meanwhile: whoever asks reads on
            _log.info("studies are not read ahead: %s", error)

    def page(self, caller: str, *, after: str = "", limit: int = MOST) -> list[dict[str, Any]]:
        """Return summaries of the studies that ``caller`` takes part in, by name.

        Args:
            caller: a party's name.
            after: the last name of the page before.
            limit: the most that are returned, 1 to 1000.
        """
        found: list[dict[str, Any]] = []
        with self._lock:
            numbers = self._numbers()
            for study, state, reason in self._store.states(after=after):
                sums = self._known(study)
                if takes_part(sums.proposal, caller):
                    self._read_on(study, sums, numbers)
                    found.append(self._line(study, state, reason, sums, caller, numbers.words.get(study, 0)))
                if len(found) >= limit:
                    break
        return found

    def _numbers(self) -> _Numbers:
        return _Numbers(
            checkpoints=self._store.last_rounds("checkpoint"),
            refusals=self._store.totals("refusal"),
            approvals=self._store.totals("approval"),
            words=self._store.totals(WORD),
        )

    def _known(self, study: str) -> _Sums:
        if study not in self._sums:
            self._sums[study] = _Sums(proposal=dict(self._store.study(study)[0].payload))
        return self._sums[study]

    def _read_on(self, study: str, sums: _Sums, numbers: _Numbers) -> None:
        if numbers.checkpoints.get(study, 0) > sums.rounds:
            for number, _, checkpoint in self._store.later(study, "checkpoint", after_round=sums.rounds):
                sums.rounds, sums.last_seconds = number, checkpoint["seconds"]
                sums.seconds += checkpoint["seconds"]
                sums.uplink_bytes += checkpoint["uplink_bytes"]
                sums.updates.update(checkpoint["sites"])
        if numbers.refusals.get(study, 0) != sums.refusals:
            sums.refusals = numbers.refusals[study]
            sums.refused = {(n, author) for n, author, _ in self._store.later(study, "refusal", after_round=0)}
        if numbers.approvals.get(study, 0) != len(sums.approved):
            sums.approved = tuple(sorted(self._store.documents(study, 0, "approval")))

    def _line(self, study: str, state: str, reason: str, sums: _Sums, caller: str, words: int) -> dict[str, Any]:
        now: Sequence[str] = ()
        if state in ("running", "paused", "failed"):
            now = sorted(self._store.documents(study, sums.rounds + 1, "update"))
        return {
            "study": study,
            "state": state,
            "reason": reason,
            "rounds": sums.proposal["rounds"],
            "rounds_completed": sums.rounds,
            "seconds": round(sums.seconds, 3),
            "last_round_seconds": sums.last_seconds,
            "uplink_bytes": sums.uplink_bytes,
            "refusals": len(sums.refused),
            "sites": [
                {
                    "name": party["name"],
                    "approved": party["name"] in sums.approved,
                    "updates": sums.updates[party["name"]],
                    "dropouts": sums.rounds - sums.updates[party["name"]],
                    "here": party["name"] in now,
                }
                for party in sums.proposal["participants"]
            ],
            "words": self._words(study, sums, caller, words),
        }

    def _words(self, study: str, sums: _Sums, caller: str, number: int) -> list[str]:
        reader = "" if caller == sums.proposal["orchestrator"]["name"] else caller
        if sums.words.get(reader, (0, ()))[0] != number:
            last = [parse(Word, word["payload"]) for _, word in sealed_words(self._store, study, reader)][-LAST_WORDS:]
            sums.words[reader] = number, tuple(f"{w.at[:16].replace('T', ' ')} {w.sentence}" for w in last)
        return list(sums.words.get(reader, (0, ()))[1])
