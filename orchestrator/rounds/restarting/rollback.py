"""An orchestrator that was restored from an old backup notices it, and runs no round until a person imported the gap.

Two things tell: its own journal names rounds that the store lacks (the database alone was restored), or a hospital or
the keyholder shows a head that this orchestrator signed and that its journal lacks (:mod:`datasites.node.work`). Nobody
can make such a head up. Importing the gap writes off every round that others have seen and this store has not, with
the model as it was: what was charged stays charged, and no round is ever planned a second time.

    >>> standing = Standing(folder, store=store, journal=journal, identity=identity)
    >>> standing.look()            # at the start
    >>> standing.trouble           # empty, or the sentence for its people
    ''

:func:`shown_heads`, :func:`keyholder_heads` and :func:`helper_heads` give a peer back what it has shown of its own
past, so that it notices a restore of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasites.node.rollback import IMPORTED, Gap
from datasites.study.messages import RoundPlan
from datasites.study.proposal import Proposal
from datasites.study.recomputed.next_model import model_to_bytes
from datasites.study.signing import Signed, dump, open_sealed, parse
from orchestrator.rounds.store import Store
from privacy.errors import InvalidInput
from privacy.identity import Identity
from privacy.ledger.journal import Entry, Head, Journal


def shown_heads(store: Store, site: str) -> list[dict[str, Any]]:
    """Return, for every study with updates of ``site``: the proposal, its headers, and its newest attested list.

    Each item has ``proposal`` and ``updates`` (signed documents), ``commitments`` (signed, or None) and
    ``attestations`` (the other sites' signed documents for that list).
    """
    found = []
    for study, proposal, _, _ in store.studies():
        if all(participant["name"] != site for participant in proposal.payload["participants"]):
            continue
        rounds = range(1, store.last_round(study, "update") + 1)
        updates = [u for n in rounds if (u := store.documents(study, n, "update").get(site)) is not None]
        if updates:
            found.append({"proposal": dump(proposal), "updates": updates, **_newest_list(store, study, site)})
    return found


def keyholder_heads(store: Store, keyholder: str) -> list[dict[str, Any]]:
    """Return, for every study that ``keyholder`` serves: the proposal, the keys and the results that it signed."""
    found = []
    for study, proposal, _, _ in store.studies():
        if proposal.payload["keyholder"]["name"] == keyholder:
            keys, results = (_signed_by(store, study, kind, keyholder) for kind in ("key", "result"))
            found.append({"proposal": dump(proposal), "keys": keys, "results": results})
    return found


def helper_heads(store: Store, helper: str) -> list[dict[str, Any]]:
    """Return, for every study that ``helper`` helps: the proposal, and the answers that it signed."""
    found = []
    for study, proposal, _, _ in store.studies():
        if any(party["name"] == helper for party in proposal.payload.get("helpers", ())):
            found.append({"proposal": dump(proposal), "answers": _signed_by(store, study, "pads", helper)})
    return found


def _signed_by(store: Store, study: str, kind: str, author: str) -> list[dict[str, Any]]:
    rounds = range(1, store.last_round(study, kind) + 1)
    return [d for n in rounds if (d := store.documents(study, n, kind).get(author)) is not None]


def _newest_list(store: Store, study: str, site: str) -> dict[str, Any]:
    for number in range(store.last_round(study, "commitments"), 0, -1):
        closing = 1
        while store.document(study, number, "commitments", closing=closing + 1) is not None:
            closing += 1
        commitments = store.document(study, number, "commitments", closing=closing)
        if commitments is not None and any(u["payload"]["site"] == site for u in commitments["payload"]["updates"]):
            attested = store.documents(study, number, "attestation", closing=closing)
            others = [document for name, document in sorted(attested.items()) if name != site]
            return {"commitments": commitments, "attestations": others}
    return {"commitments": None, "attestations": []}


LOST = "lost when the orchestrator was restored from a backup"
_COMMAND = "tessera orchestrator import-gap --home HOME --by NAME --reason TEXT"
_DOCUMENTS = {"round-planned": "plan", "round-closed": "commitments", "round-finished": "checkpoint"}


def newest(journal: Journal, kinds: Iterable[str]) -> dict[tuple[str, str], Entry]:
    """Return, by kind and study, the newest entry: who has what it names has what came before."""
    return {(kind, str(entry.body["study"])): entry for kind in kinds for entry in journal.entries(kind=kind)}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Whether this orchestrator's journal and store hold everything that it has shown to others."""

    folder: Path
    store: Store
    journal: Journal
    identity: Identity

    @property
    def trouble(self) -> str:
        """Return why no round runs here, or nothing; also known after a restart."""
        return self._known.trouble

    def require(self) -> None:
        """Raise Refused while a gap is known."""
        self._known.require()

    def look(self) -> bool:
        """Compare the store with the journal; the first thing to do after a start. Return whether both agree."""
        forgotten: dict[str, int] = {}
        imported, known = self._imported_rounds(), {study for study, *_ in self.store.studies()}
        for entry in self.journal.entries(kind="study-registered"):
            study = str(entry.body["study"])
            if study not in known and study not in imported:
                forgotten[study] = 0
        for entry in newest(self.journal, _DOCUMENTS).values():
            study, number = str(entry.body["study"]), int(entry.body["round"])
            if number > imported.get(study, -1) and self._lacks(entry.kind, study, number, entry.body):
                forgotten[study] = max(number, forgotten.get(study, 0))
        if forgotten:
            rounds = "; ".join(f"{study} up to round {number}" for study, number in sorted(forgotten.items()))
            self._notice(f"the store lacks what the journal names ({rounds})", rounds=forgotten)
        return not forgotten

    def compare(self, seen: Head | None, peer: str) -> bool:
        """Compare with a head that ``peer`` was given; return whether the journal holds it.

        Raises:
            InvalidInput: not a head of this journal at all.
            Tampered: this orchestrator never signed it.
        """
        if seen is None or self.journal.contains(seen.hash):
            return True
        if seen.chain != "journal" or seen.public_key not in self.journal.public_keys:
            raise InvalidInput("expected a head of this orchestrator's journal, got one of another chain or key")
        seen.check()
        if seen.hash in self._imported_heads():
            return True
        self._notice(f"{peer} was shown entry {seen.index} of the journal, which ends before it", heads=[seen])
        return False

    def learn(self, proposal: Signed | None, plan: Signed | None) -> None:
        """Take note of what a peer holds of a study, signed by this orchestrator.

        Raises:
            InvalidInput, Tampered: it is not; or there is no gap it could help with.
        """
        if not self._known.known:
            raise InvalidInput("there is no gap here that documents could help with")
        gap = self._known.read()
        if proposal is not None:
            opened = open_sealed(proposal, "proposal", self.journal.public_keys, Proposal)
            gap["proposals"][opened.study] = dump(proposal)
        if plan is not None:
            shown = open_sealed(plan, "round-plan", self.journal.public_keys, RoundPlan)
            if self._lacks("round-planned", shown.study, shown.round, {"plan_hash": shown.plan_hash}):
                gap["rounds"][shown.study] = max(shown.round, gap["rounds"].get(shown.study, 0))
        self._known.write(gap)

    def import_gap(self, *, by: str, reason: str) -> list[dict[str, Any]]:
        """Write off what is missing, as a person's act; return the rounds lost by study.

        Doing it again after a crash on the way changes nothing.

        Raises:
            InvalidInput: there is no gap, nobody acts, or no reason is given.
        """
        known = {study for study, *_ in self.store.studies()}
        booked = []
        with self._known.importing(by=by, reason=reason) as gap:
            for study in sorted(set(gap["proposals"]) | set(gap["rounds"])):
                last = gap["rounds"].get(study, 0)
                if study in known:
                    booked.append({"study": study, "rounds": self._write_off(study, last, reason)})
                elif study in gap["proposals"]:
                    self._keep_name(study, parse(Signed, gap["proposals"][study]))
                    booked.append({"study": study, "rounds": list(range(1, last + 1))})
            body = {"by": by, "reason": reason, "studies": booked, "heads": gap["heads"], "forgotten": gap["rounds"]}
            self.journal.append(IMPORTED, body)
        return [study for study in booked if study["rounds"] or study["study"] not in known]

    def _write_off(self, study: str, last: int, reason: str) -> list[int]:
        done = self.store.last_round(study, "checkpoint")
        before = self.store.document(study, done, "checkpoint" if done else "initial") or {}
        lost: list[int] = list(range(done + 1, last + 1))
        for number in lost:
            checkpoint: dict[str, Any] = {
                "model_hash": before["model_hash"],
                "moments_hash": before.get("moments_hash") or self.store.put_blob(model_to_bytes({})),
                "sites": [],
                "uplink_bytes": 0,
                "releases": {},
                "weights": {},
                "seconds": 0.0,
                "lost": f"{LOST}: {reason}"[:500],
            }
            self.store.put_document(study, number, "checkpoint", checkpoint)
        return lost

    def _keep_name(self, study: str, proposal: Signed) -> None:
        """Write a forgotten study down as lost: its rounds may have been charged, so its name is never used again."""
        self.store.add_study(study, proposal)
        self.store.set_state(study, "failed", f"{LOST}; propose it again under another name")

    def _lacks(self, kind: str, study: str, number: int, body: Mapping[str, Any]) -> bool:
        found = self.store.document(study, number, _DOCUMENTS[kind], closing=int(body.get("closing", 0)))
        if found is None:
            return True
        if kind == "round-planned":
            return bool(parse(RoundPlan, found["payload"]).plan_hash != body["plan_hash"])
        return kind == "round-finished" and found["model_hash"] != body["model_hash"]

    def _notice(self, what: str, *, heads: Iterable[Head] = (), rounds: Mapping[str, int] | None = None) -> None:
        reason = (
            f"journal or store are older than what this orchestrator has shown: {what}; they were restored from a "
            f"backup. Restore the newest copy, or import the gap: {_COMMAND}"
        )
        known = self._known.known
        gap = self._known.read() if known else {"heads": [], "rounds": {}, "proposals": {}}
        gap["heads"] += [asdict(head) for head in heads if all(seen["hash"] != head.hash for seen in gap["heads"])]
        gap["rounds"].update(rounds or {})
        if known:
            self._known.write(gap)
        else:
            self._known.notice(self.journal, reason, entry={}, evidence=gap)

    def _imported_heads(self) -> set[str]:
        return {head["hash"] for entry in self.journal.entries(kind=IMPORTED) for head in entry.body["heads"]}

    def _imported_rounds(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in self.journal.entries(kind=IMPORTED):
            for study, number in entry.body["forgotten"].items():
                found[study] = max(int(number), found.get(study, 0))
        return found

    @property
    def _known(self) -> Gap:
        return Gap(folder=self.folder)
