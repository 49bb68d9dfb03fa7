"""Ask the orchestrator for work, hear only what is new, and notice an orchestrator that lost its past.

A task stays on the orchestrator's board until it is done. So the question carries what is known already, and the
orchestrator answers as soon as there is something else:

    >>> queue = WorkQueue(client)
    >>> queue.deal(handle)    # what failed on the way is asked for again

Hospitals and the keyholder also remember what their orchestrator has signed. One that was restored from an old backup
is noticed, because it no longer knows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasites.node.files import sync_folder, write_atomically
from datasites.node.home import Home
from datasites.node.http import Declined, SignedClient
from datasites.node.places import hashed_place, is_of_study
from datasites.study.messages import RoundPlan, WorkItem
from datasites.study.signing import Signed, dump, open_sealed, parse
from privacy.canonical import canonical_json, plain_json, sha256_hex
from privacy.errors import InvalidInput, Refused, Tampered
from privacy.ledger.journal import Head

_HEAD_CHARACTERS = 300
_FOLDER = "orchestrator-seen"
_HEAD = "head.json"
HEAD_HEADER = "Tessera-Head"
"""The header in which an answer to "what is to be done?" carries the orchestrator's newest head."""


def nothing() -> tuple[Signed, ...]:
    """Return no proposals: those of a peer that keeps none."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Witness:
    """One peer's memory of its orchestrator.

    Args:
        home: the peer's folder.
        client: asks as the peer.
        proposals: the signed proposals that the peer holds.
        trouble: why the peer itself does no work now, or nothing; told to the orchestrator, who shows it.
    """

    home: Home
    client: SignedClient
    proposals: Callable[[], Iterable[Signed]] = nothing
    trouble: Callable[[], str] = str

    @property
    def seen(self) -> Head | None:
        """Return the newest head that the orchestrator gave; what one with another key gave before is not its."""
        path = self._folder / _HEAD
        head = parse(Head, path.read_bytes()) if path.exists() else None
        if head is None or head.public_key == self._orchestrator or head.public_key in self.home.orchestrator_keys():
            return head
        return None

    def shown(self) -> str | None:
        """Return what was seen, to be asked along with the question for work; None where trouble has to be told too."""
        if self.trouble():
            return None
        seen = self.seen
        return head_to_text(seen) if seen else ""

    def heard(self, head: str, items: Iterable[WorkItem]) -> None:
        """Keep what came with an answer to a question that carried :meth:`shown`.

        Where no head came, the orchestrator is of an older release or stands still: then it is met.

        Raises:
            Refused, Tampered, InvalidInput: as :meth:`meet`.
        """
        if not head:
            self.meet(items)
            return
        seen = self.seen
        newer = None
        if seen is None or head_to_text(seen) != head:
            newer = head_from_text(head, self._orchestrator)
            newer.check()
        self._keep(newer, items)

    def meet(self, items: Iterable[WorkItem] = ()) -> None:
        """Show what was seen, keep what is new; the first thing to do with every answer to "what is to be done?".

        Raises:
            Refused: the orchestrator is older than what it has shown; it was given everything that helps its people.
            Tampered: the head is not signed by our orchestrator.
        """
        seen = self.seen
        shown = {"seen": asdict(seen) if seen else None, "trouble": self.trouble()[:500]}
        answer = self.client.post_json("/head", shown)
        if answer["standing"]:
            self._help()
            raise Refused(f"the orchestrator does no rounds: {answer['standing']}")
        head = parse(Head, answer["head"])
        head.check()
        if head.public_key != self._orchestrator:
            raise Tampered("expected a head of our orchestrator's journal, got one of another key")
        self._keep(head if head != seen else None, items)

    def _keep(self, head: Head | None, items: Iterable[WorkItem]) -> None:
        """Keep a new head and new plans, and make their names durable together."""
        wrote = head is not None
        if head is not None:
            write_atomically(self._folder / _HEAD, canonical_json(asdict(head)), name_follows=True)
        try:
            for item in items:
                wrote |= self._keep_plan(item)
        finally:
            if wrote:
                sync_folder(self._folder)

    def _keep_plan(self, item: WorkItem) -> bool:
        """Keep the plan of an item if it is new; return whether it was."""
        signed = item.documents.get("plan")
        if signed is None:
            return False
        plan = open_sealed(signed, "round-plan", self._orchestrator, RoundPlan)
        path = hashed_place(
            self._folder,
            plan.study,
            ".json",
            is_of=lambda old: is_of_study(old, plan.study, "payload", "study"),
            short=32,
        )
        known = _kept(path) if path.exists() else None
        new = known is None or known.public_key != signed.public_key or int(known.payload["round"]) < plan.round
        if new:
            write_atomically(path, json.dumps(dump(signed)).encode(), name_follows=True)
        return new

    def _help(self) -> None:
        """Give the orchestrator its own signed proposals and newest plans back."""
        plans = [_kept(path) for path in sorted(self._folder.glob("*.json")) if path.name != _HEAD]
        by_study = {str(plan.payload["study"]): plan for plan in plans if plan.public_key == self._orchestrator}
        for proposal in (p for p in self.proposals() if p.public_key == self._orchestrator):
            plan = by_study.pop(str(proposal.payload["study"]), None)
            self.client.post_json("/evidence", _evidence(proposal, plan))
        for plan in by_study.values():
            self.client.post_json("/evidence", _evidence(None, plan))

    @property
    def _folder(self) -> Path:
        return self.home.folder / _FOLDER

    @property
    def _orchestrator(self) -> str:
        return self.home.roster().orchestrator.public_key


def head_to_text(head: Head) -> str:
    """Return a head of a journal whose owner the reader knows, as one word: number, hash and signature."""
    return f"{head.index}.{head.hash}.{head.signature}"


def head_from_text(text: str, public_key: str) -> Head:
    """Return what :func:`head_to_text` wrote of a journal of ``public_key``; the signature is for the reader to check.

    Raises:
        InvalidInput: it is no head.
    """
    index, _, rest = text.partition(".")
    digest, _, signature = rest.partition(".")
    if len(text) > _HEAD_CHARACTERS or not index.isascii() or not index.isdigit():
        raise InvalidInput("expected the head of a journal as number, hash and signature")
    return Head(chain="journal", index=int(index), hash=digest, public_key=public_key, signature=signature)


def _kept(path: Path) -> Signed:
    return parse(Signed, path.read_bytes())


def _evidence(proposal: Signed | None, plan: Signed | None) -> Mapping[str, Any]:
    return {"proposal": dump(proposal) if proposal else None, "plan": dump(plan) if plan else None}


POLL_SECONDS = 20.0


class WorkQueue:
    """The work of one party, as its orchestrator shows it.

    Args:
        client: signs as the party.
        wait_seconds: for how long the orchestrator may hold a question.
        witness: what this party has seen of the orchestrator; compared before any work is handed out.
    """

    def __init__(
        self, client: SignedClient, *, wait_seconds: float = POLL_SECONDS, witness: Witness | None = None
    ) -> None:
        self._client = client
        self._witness = witness
        self._wait_seconds = wait_seconds
        self._asked = self._known = ""

    def deal(self, handle: Callable[[WorkItem], None]) -> None:
        """Ask, and have every item handled; one that fails, or that the orchestrator declines, holds up no other.

        Raises:
            TesseraError: the orchestrator cannot be reached.
            Exception: once all were tried, what the first one failed with, before any that was only declined; it is
                asked for again, unless it has been withdrawn.
        """
        failed: list[Exception] = []
        for item in self.ask():
            try:
                handle(item)
            except Exception as error:  # whatever one study's people sent: the other studies go on
                failed.append(error)
        if failed:
            raise next((error for error in failed if not isinstance(error, Declined)), failed[0])
        self.handled()

    def ask(self) -> list[WorkItem]:
        """Return what is to be done, as soon as it differs from what was handled, or after the wait.

        Raises:
            Refused: the orchestrator is older than what it has shown to this party.
        """
        params = {"wait": self._wait_seconds, "known": self._known or None}
        if self._witness is None:
            return self._items(
                plain_json(self._client.get_json("/work", params=params, wait_seconds=self._wait_seconds))
            )
        answer, head = self._client.get_beside(
            "/work", HEAD_HEADER, params={**params, "seen": self._witness.shown()}, wait_seconds=self._wait_seconds
        )
        items = self._items(answer)
        self._witness.heard(head, items)
        return items

    def _items(self, answer: bytes) -> list[WorkItem]:
        self._asked, self._known = sha256_hex(answer), ""
        return parse(list[WorkItem], answer)

    def handled(self) -> None:
        """Say that everything of the last answer was dealt with."""
        self._known = self._asked
