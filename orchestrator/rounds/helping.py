"""What a round asks of a study's two helpers: keys for the sites, pad sums for the keyholder, voids of lists.

One helper may be gone: nobody waits for it again until it offers a key for a later round. With both gone a round cannot
be answered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from datasites.study.messages import WorkItem
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, parse
from orchestrator.rounds.board import Board, Waiting, names
from orchestrator.rounds.store import Store

HELPER_SECONDS = 10.0
"""For how long a round waits for a helper that is gone, once."""

CONFIRM_SECONDS = 60.0
"""For how long a round waits for hospitals to sign a list once more."""

KEY, PADS, VOID, OPENING, CONFIRMATION = "helper-key", "pads", "void", "opening", "confirmation"
"""Kinds of the stored documents."""


class Helping:
    """The helpers' part in the rounds of one study, and what a redone list or a keyholder started anew asks of others.

    Args:
        proposal: the study.
        store: where their documents are kept.
        board: where they are asked.
        waits: the study's waiting.
        refusing: says who refused a round.
    """

    def __init__(
        self, proposal: Proposal, store: Store, board: Board, waits: Waiting, refusing: Callable[[int], set[str]]
    ) -> None:
        self._proposal, self._store, self._board, self._waits = proposal, store, board, waits
        self._refusing = refusing
        self._names = tuple(helper.name for helper in proposal.helpers)
        self._gone: set[str] = set()

    async def keys(self, number: int) -> dict[str, Signed]:
        """Return the helpers' keys of a round as a plan's documents; one is enough, and one is waited for."""
        if not self._names:
            return {}
        self._gone -= set(self._offered(number))
        for later in range(number, min(number + 1, self._proposal.rounds) + 1):  # the next one while the sites train
            self._ask("key", later)
        await self._until(number, lambda: set(self._offered(number)) | self._gone >= set(self._names), "its key")
        if not self._offered(number):
            await self._waits.until(
                lambda: bool(self._offered(number)), None, lambda: f"round {number}: a key of {names(self._names)}"
            )
        self._gone = set(self._names) - set(self._offered(number))
        for name in self._names:
            self._withdraw(name, lambda i: i.kind == "key" and i.round == number)
        return {f"key/{name}": signed for name, signed in self._offered(number).items()}

    async def answers(self, number: int, documents: Mapping[str, Signed], attestations: Collection[Signed]) -> None:
        """Ask for the pad sums of a list, and return once one helper has answered or none will."""
        for name in self._names:
            item = self._item("pads", number, documents, closing=_closing(documents), attestations=tuple(attestations))
            self._board.publish(name, item)
        if self._names:
            await self._until(number, lambda: bool(self.answered(number)) or self._all_refuse(number), "pad sums")

    async def all_answers(self, number: int, wanted: Collection[str]) -> None:
        """Wait for the answers of ``wanted``, or until they refuse or seem gone."""
        there = set(wanted) - self._gone
        await self._until(
            number, lambda: set(self.answered(number)) | self._refusing(number) >= there, "the other pad sums"
        )
        self._gone |= there - set(self.answered(number)) - self._refusing(number)
        for name in self._names:
            self._withdraw(name, lambda i: i.kind == "pads")

    async def confirmed(self, number: int) -> None:
        """Wait until both helpers have confirmed a round that is published: sites check all its pad sums."""
        await self.all_answers(number, self._names if self._proposal.published else ())

    def answered(self, number: int) -> dict[str, Signed]:
        """Return the helpers' signed pad sums of a round by name."""
        found = self._store.documents(self._proposal.study, number, PADS)
        return {name: parse(Signed, document) for name, document in found.items()}

    def documents(self, number: int) -> dict[str, Signed]:
        """Return the helpers' answers as documents of a work item."""
        return {f"pads/{name}": signed for name, signed in self.answered(number).items()}

    async def void(self, number: int, commitments: Signed) -> str:
        """Have a list declared void by everybody who could answer it; return why the round is lost, or nothing.

        The keyholder is waited for, however long it is away: nothing goes on without it.
        """
        closing = int(commitments.payload["closing"])
        sealed_to = {name for u in commitments.payload["updates"] for name in u["payload"].get("helper_pads", {})}
        keyholder = self._proposal.keyholder.name
        holders = {keyholder, *sealed_to}
        for name in holders:
            self._board.publish(name, self._item("void", number, {"commitments": commitments}, closing=closing))

        def missing() -> set[str]:
            return holders - set(self._store.documents(self._proposal.study, number, VOID, closing=closing))

        await self._until(number, lambda: missing() <= self._refusing(number) | {keyholder}, "declaring a list void")
        await self._waits.until(
            lambda: keyholder not in missing() - self._refusing(number),
            None,
            lambda: f"round {number}: {keyholder} (keyholder), declaring a list void",
        )
        for name in holders:
            self._withdraw(name, lambda i: i.kind == "void")
        left = names(missing())
        return f"a hospital did not sign, and {left} did not declare the list void" if missing() else ""

    def voids(self, number: int, before: int) -> dict[str, Signed]:
        """Return the voids of the lists before a closing, as documents of a work item."""
        found: dict[str, Signed] = {}
        for closing in range(1, before):
            documents = self._store.documents(self._proposal.study, number, VOID, closing=closing)
            found |= {f"void/{closing}/{name}": parse(Signed, document) for name, document in documents.items()}
        return found

    async def confirmations(self, number: int, item: WorkItem) -> tuple[Signed, ...]:
        """Return the signatures of a list's sites for a keyholder that was started anew, if it asks and all give one.

        Args:
            number: the round.
            item: what the keyholder was asked to decrypt.
        """
        study, keyholder = self._proposal.study, self._proposal.keyholder.name
        refusal = self._store.documents(study, number, "refusal").get(keyholder)
        word = str(refusal["payload"].get("fresh", "")) if refusal else ""
        if refusal is None or not word:
            return ()
        sites = sorted(str(u["payload"]["site"]) for u in item.documents["commitments"].payload["updates"])
        documents = {"commitments": item.documents["commitments"], "refusal": parse(Signed, refusal)}
        for site in sites:
            self._board.publish(site, self._item("confirm", number, documents, closing=item.closing))

        def signed() -> dict[str, Signed]:
            found = self._store.documents(study, number, CONFIRMATION)
            return {site: parse(Signed, d) for site, d in found.items() if d["payload"].get("fresh") == word}

        await self._waits.until(
            lambda: set(signed()) | self._refusing(number) >= set(sites),
            CONFIRM_SECONDS,
            lambda: f"round {number}: {names(set(sites) - set(signed()))}, who have to sign the list once more",
        )
        for site in sites:
            self._withdraw(site, lambda i: i.kind == "confirm")
        there = signed()
        return tuple(there[site] for site in sites) if set(there) >= set(sites) else ()

    def _offered(self, number: int) -> dict[str, Signed]:
        """Return the newest key of each helper: one that was started anew offered another."""
        found = self._store.documents(self._proposal.study, number, KEY)
        return {name: parse(Signed, document) for name, document in found.items()}

    def _all_refuse(self, number: int) -> bool:
        return self._refusing(number) | self._gone >= set(self._names)

    async def _until(self, number: int, condition: Callable[[], bool], what: str) -> None:
        await self._waits.until(
            condition, HELPER_SECONDS, lambda: f"round {number}: {names(self._names)} (helpers), {what}"
        )

    def _ask(self, kind: Any, number: int) -> None:
        for name in self._names:
            self._board.publish(name, self._item(kind, number, {}))

    def _withdraw(self, name: str, when: Callable[[WorkItem], bool]) -> None:
        self._board.withdraw(self._proposal.study, party=name, when=when)

    def _item(
        self,
        kind: Any,
        number: int,
        documents: Mapping[str, Signed],
        *,
        closing: int = 0,
        attestations: tuple[Signed, ...] = (),
    ) -> WorkItem:
        return WorkItem(
            kind=kind,
            study=self._proposal.study,
            round=number,
            closing=closing,
            documents=documents,
            attestations=attestations,
        )


def _closing(documents: Mapping[str, Signed]) -> int:
    return int(documents["commitments"].payload["closing"])
