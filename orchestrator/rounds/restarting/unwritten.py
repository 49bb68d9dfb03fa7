"""What a kill kept out of the journal is written down at the next start.

The store comes first: a plan, a list, a checkpoint, a word or a study's state lies there before the journal names it. A
process that was killed between the two leaves a document without its entry. Each study can lack only the newest entry
of a kind, since the older ones were written before anything newer was begun.
"""

from __future__ import annotations

from typing import Any

from datasites.study.messages import Commitments, RoundPlan
from datasites.study.proposal import Proposal
from datasites.study.requests import REQUEST
from datasites.study.signing import dump, parse
from datasites.study.thread import OVER_FOR_GOOD, WORD, Word
from orchestrator.rounds.restarting.rollback import LOST, newest
from orchestrator.rounds.store import Store
from privacy.ledger.journal import Journal

_Place = tuple[int, int]
_Entries = list[tuple[str, dict[str, Any]]]


def planned(plan: RoundPlan) -> dict[str, Any]:
    """Return what the journal says of a plan."""
    return {"study": plan.study, "round": plan.round, "plan_hash": plan.plan_hash}


def closed(commitments: Commitments) -> dict[str, Any]:
    """Return what the journal says of the fixed list of a round."""
    sites = sorted(str(update.payload["site"]) for update in commitments.updates)
    about = {"closing": commitments.closing, "list_hash": commitments.list_hash, "sum_hash": commitments.sum_hash}
    return {"study": commitments.study, "round": commitments.round, **about, "sites": sites}


def write_down(store: Store, journal: Journal) -> tuple[str, ...]:
    """Append the entries that the journal lacks; return their kinds, in the order they were written.

    Doing it again, also after a crash on the way, adds nothing.

    Args:
        store: the orchestrator's.
        journal: the orchestrator's; it lacks no entry that anybody was shown
            (:mod:`orchestrator.rounds.restarting.rollback`).
    """
    known = _Known(journal)
    written = []
    rounds = {kind: store.last_rounds(kind) for kind in ("plan", "commitments", "checkpoint")}
    for study, state, reason in store.states():
        last = {kind: found.get(study, 0) for kind, found in rounds.items()}
        entries = [
            *_words(store, study, known.words.get(study, 0)),
            *_plan(store, study, last["plan"], known.rounds["round-planned"]),
            *_lists(store, study, last["commitments"], known.rounds["round-closed"]),
            *_checkpoint(store, study, last["checkpoint"], known),
            *_end(study, state, reason, last["checkpoint"], known),
        ]
        if study not in known.registered and not reason.startswith(LOST):
            entries.insert(0, ("study-registered", _registered(store, study)))
        for kind, body in entries:
            journal.append(kind, body)
            written.append(kind)
    return tuple(written)


class _Known:
    """What a journal names: by kind and study the newest round and closing, and the studies that began and ended."""

    def __init__(self, journal: Journal) -> None:
        kinds = ("round-planned", "round-closed", "round-finished", "round-lost")
        self.rounds: dict[str, dict[str, _Place]] = {kind: {} for kind in kinds}
        for (kind, study), entry in newest(journal, kinds).items():
            self.rounds[kind][study] = int(entry.body["round"]), int(entry.body.get("closing", 0))
        self.words = {study: int(entry.body["place"]) for (_, study), entry in newest(journal, ("word",)).items()}
        over = ("study-finished", "study-ended")
        self.registered = {str(entry.body["study"]) for entry in journal.entries(kind="study-registered")}
        self.over = {str(entry.body["study"]) for kind in over for entry in journal.entries(kind=kind)}


def _registered(store: Store, study: str) -> dict[str, Any]:
    proposal = parse(Proposal, dict(store.study(study)[0].payload))
    asked = store.documents(study, 0, REQUEST)
    by = [{"scientist": name, "request": signed["signature"]} for (name, signed) in asked.items()]
    return {"study": study, "proposal_hash": proposal.proposal_hash, **(by[0] if by else {})}


def _words(store: Store, study: str, known: int) -> _Entries:
    found: _Entries = []
    for place in range(known + 1, store.count(study, 0, WORD, author="") + 1):
        word = store.opened(Word, study, 0, WORD, closing=place)
        if word is not None:
            found.append(("word", {"place": place, **dump(word)}))
    return found


def _plan(store: Store, study: str, number: int, known: dict[str, _Place]) -> _Entries:
    plan = store.opened(RoundPlan, study, number, "plan") if number > known.get(study, (0, 0))[0] else None
    return [] if plan is None else [("round-planned", planned(plan))]


def _lists(store: Store, study: str, number: int, known: dict[str, _Place]) -> _Entries:
    found: _Entries = []
    newest = known.get(study, (0, 0))
    first = newest[1] + 1 if number == newest[0] else 1
    for closing in range(first, store.count(study, number, "commitments", author="") + 1 if number >= newest[0] else 0):
        document = store.document(study, number, "commitments", closing=closing)
        if document is not None:
            found.append(("round-closed", closed(parse(Commitments, document["payload"]))))
    return found


def _checkpoint(store: Store, study: str, number: int, known: _Known) -> _Entries:
    journaled = max(known.rounds[kind].get(study, (0, 0)) for kind in ("round-finished", "round-lost"))
    checkpoint = store.document(study, number, "checkpoint") if number > journaled[0] else None
    if checkpoint is None or str(checkpoint.get("lost", "")).startswith(LOST):  # a person's import wrote that one off
        return []
    if checkpoint.get("lost"):
        return [("round-lost", {"study": study, "round": number, "reason": checkpoint["lost"]})]
    return [("round-finished", {"study": study, "round": number, **checkpoint})]


def _end(study: str, state: str, reason: str, rounds: int, known: _Known) -> _Entries:
    if study in known.over or state not in OVER_FOR_GOOD:
        return []
    if state == "finished":
        return [("study-finished", {"study": study, "rounds": rounds})]
    return [("study-ended", {"study": study, "state": state, "reason": reason})]
