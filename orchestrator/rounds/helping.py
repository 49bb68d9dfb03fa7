"""What a round asks of a study's two helpers: keys, commitments to pad sums, the sums themselves, voids of lists.

One helper may be gone: nobody waits for it again until it offers a key for a later round. With both gone a round cannot
be answered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from datasites.keyholder.checks import WORDS
from datasites.keyholder.opened import counts_of, salt_in
from datasites.keyholder.vouched import (
    PREFIX,
    commitments_hash,
    disagreeing,
    opened_commitments,
    usable_commitments,
    vouched_of,
)
from datasites.study.messages import Attestation, Commitments, PadSums, WorkItem
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, parse
from orchestrator.rounds import refusals
from orchestrator.rounds.board import Board, Waiting, names
from orchestrator.rounds.refusals import Refusals
from orchestrator.rounds.store import Store
from privacy.encryption import shares
from privacy.encryption.shares import MISSING_PART
from privacy.encryption.tags import REPETITIONS
from privacy.errors import InvalidInput, Refused

HELPER_SECONDS = 10.0
"""For how long a round waits for a helper that is gone, once."""

RETURN_SECONDS = 60.0
"""For how long it waits where no helper has answered: one that was killed comes back with what it holds."""

CONFIRM_SECONDS = 60.0
"""For how long a round waits for hospitals to sign a list once more."""

KEY, PADS, VOID, OPENING, CONFIRMATION = "helper-key", "pads", "void", "opening", "confirmation"
COMMITMENT, CHOSEN = "pad-commitment", "pad-commitments-chosen"
"""Kinds of the stored documents."""


@dataclass(frozen=True, kw_only=True)
class Vouching:
    """What came of asking for commitments: nothing more to do, sites to leave out of the list, or why it cannot be.

    ``accused`` are the sites that somebody could not open the seeds of, by who says so. A helper alone may lie about
    that, so its word counts only where no other helper can answer, and for this round.
    """

    accused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    problem: str = ""


class Helping:
    """The helpers' part in the rounds of one study, and what a redone list or a keyholder started anew asks of others.

    Args:
        proposal: the study.
        store: where their documents are kept.
        board: where they are asked.
        waits: the study's waiting.
        refusals: who refused a round.
    """

    def __init__(self, proposal: Proposal, store: Store, board: Board, waits: Waiting, refusals: Refusals) -> None:
        self._proposal, self._store, self._board, self._waits = proposal, store, board, waits
        self._refusals, self._refusing = refusals, refusals.parties
        self._names = tuple(helper.name for helper in proposal.helpers)
        self._gone: set[str] = set()
        self._listed: dict[int, dict[str, Signed]] = {}
        self._digests: dict[tuple[int, int], str] = {}

    async def keys(self, number: int) -> dict[str, Signed]:
        """Return the helpers' keys of a round as a plan's documents; one is enough, and one is waited for."""
        if not self._names:
            return {}
        self._gone -= set(self._offered(number))
        for later in range(number, min(number + 1, self._proposal.rounds) + 1):  # the next one while the sites train
            self._board.publish(set(self._names) - set(self._offered(later)), self._item("key", later, {}))
        await self._until(number, lambda: set(self._offered(number)) | self._gone >= set(self._names), "its key")
        if not self._offered(number):
            await self._waits.until(
                lambda: bool(self._offered(number)), None, lambda: f"round {number}: a key of {names(self._names)}"
            )
        self._gone = set(self._names) - set(self._offered(number))
        for name in self._gone:
            self._withdraw(name, lambda i: i.kind == "key" and i.round == number)
        return {f"key/{name}": signed for name, signed in self._offered(number).items()}

    async def answers(self, number: int, documents: Mapping[str, Signed], attestations: Collection[Signed]) -> None:
        """Ask for the pad sums of a list, and return once one helper has answered or none will."""
        item = self._item("pads", number, documents, closing=_closing(documents), attestations=tuple(attestations))
        self._board.publish(self._names, item)
        self._listed[number] = dict(documents)
        if self._names:
            await self._until(number, lambda: bool(self.answered(number)) or self._all_refuse(number), "pad sums")
            if not self.answered(number):
                await self._once_more(number, self._names, 1)

    async def _once_more(self, number: int, parties: Collection[str], wanted: int) -> None:
        """Ask helpers that were started anew for their pad sums, with signatures for good; wait for so many answers."""
        documents = self._listed[number]
        signed = await self.confirmations(number, documents, parties)
        if not signed:
            return
        asked = [n for n in parties if (r := self._refusals.of(number, n)) is not None and not r.without]
        self._refusals.forget(number, *asked)
        for name in asked:
            item = self._item("pads", number, documents, closing=_closing(documents), attestations=signed)
            self._board.publish(name, item)
        gone = set(self._names) - set(asked)

        def over() -> bool:
            return len(self.answered(number)) >= wanted or self._refusing(number) | gone >= set(self._names)

        await self._until(number, over, "pad sums under signatures for good")

    async def all_answers(self, number: int, wanted: Collection[str]) -> None:
        """Wait for the answers of ``wanted``, or until they refuse or seem gone."""
        there = set(wanted) - self._gone
        await self._waits.until(
            lambda: set(self.answered(number)) | self._refusing(number) >= there,
            HELPER_SECONDS if self.answered(number) else RETURN_SECONDS,
            lambda: f"round {number}: {names(self._names)} (helpers), the other pad sums",
        )
        if there - set(self.answered(number)) and number in self._listed:
            await self._once_more(number, sorted(there - set(self.answered(number))), len(there))
        self._gone |= there - set(self.answered(number)) - self._refusing(number)
        for name in self._names:
            self._withdraw(name, lambda i: i.kind == "pads")

    async def vouching(self, number: int, documents: Mapping[str, Signed]) -> Vouching:
        """Have keyholder and helpers commit to the pad sums of a list that nobody has signed.

        Args:
            number: the round.
            documents: the ``plan``, ``key`` and ``commitments``.
        """
        closing = _closing(documents)
        if not self._names or self._store.document(self._proposal.study, number, CHOSEN, closing=closing) is not None:
            return Vouching()
        keyholder = self._proposal.keyholder.name
        holders = (keyholder, *self._names)
        self._refusals.forget(number, *holders)
        for name in self._names:  # a helper that was not waited for had until now to sum, and to destroy its key
            self._withdraw(name, lambda i: i.kind == "pads" and i.round < number)
        self._board.publish(holders, self._item("commit", number, documents, closing=closing))

        def there() -> set[str]:
            found = self._store.documents(self._proposal.study, number, COMMITMENT, closing=closing)
            return set(found) | self._refusing(number)

        await self._waits.until(
            lambda: keyholder in there(), None, lambda: f"round {number}: {keyholder} (keyholder), a list's pad sums"
        )
        await self._until(number, lambda: there() | self._gone >= set(self._names), "a list's pad sums")
        self._gone |= set(self._names) - there()
        for name in holders:
            self._withdraw(name, lambda i: i.kind == "commit")
        vouching = self._chosen_from(number, closing)
        self._refusals.forget(number, *holders)
        return vouching

    def _chosen_from(self, number: int, closing: int) -> Vouching:
        """Choose the commitments that the sites sign under, or say whom to leave out, or why there are none."""
        study, keyholder = self._proposal.study, self._proposal.keyholder.name
        documents = self._store.documents(study, number, COMMITMENT, closing=closing)
        found, useless = usable_commitments(self._proposal, {name: d["payload"] for name, d in documents.items()})
        accused = {
            name: refused.without
            for name in (keyholder, *self._names)
            if name not in found and (refused := self._refusals.of(number, name)) is not None
        }
        lying = disagreeing(self._proposal, found)
        good = [name for name in self._names if name in found and name not in lying]
        if keyholder in found and good:
            chosen = {"parties": sorted([keyholder, *good])}
            self._store.put_document(study, number, CHOSEN, chosen, closing=closing)
            return Vouching(accused={name: sites for name, sites in accused.items() if sites})
        named = accused.get(keyholder, ()) if keyholder not in found else [s for n in accused for s in accused[n]]
        reasons = [f"{n}: {r.reason}" for n in accused if (r := self._refusals.of(number, n)) is not None]
        reasons += [f"{name}: its commitment to the pad sums is of no use" for name in useless]
        reasons += [f"{name} and {keyholder} say different pad sums" for name in sorted(lying)]
        return Vouching(
            accused={name: sites for name, sites in accused.items() if sites},
            left_out=frozenset(named),
            problem="; ".join(reasons) or f"no commitment of {names(self._names)} to the pad sums came",
        )

    def blamed(self, number: int, refused: refusals.Refused | None) -> tuple[frozenset[str], str]:
        """Return the sites that the keyholder, or else its helpers, cannot use the updates of, and why.

        Args:
            number: the round.
            refused: the keyholder's refusal.
        """
        if refused is not None and refused.without:
            return frozenset(refused.without), refused.reason
        said = ((name, self._refusals.of(number, name)) for name in self._names)
        return self._accused(number), "; ".join(f"{name}: {one.reason}" for name, one in said if one is not None)

    def _accused(self, number: int) -> frozenset[str]:
        """Return the sites whose tags of a pad every helper that is there calls false; nobody where one has answered.

        The keyholder cannot check the tags of the part that it lacks, and no pad sum fits one that is false. A helper
        that answers shows that the tags of this part are right, and so that the other one lies.
        """
        said = [self._refusals.of(number, name) for name in self._names]
        named = [frozenset(refused.without) for refused in said if refused is not None]
        if self.answered(number) or not named:
            return frozenset()
        return frozenset.intersection(*named)

    def chosen(self, number: int, closing: int) -> dict[str, Signed]:
        """Return the commitments that the sites of a list sign under, as documents of a work item."""
        return chosen_commitments(self._store, self._proposal.study, number, closing)

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
        self._board.publish(holders, self._item("void", number, {"commitments": commitments}, closing=closing))

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

    def check_vouching(self, attestation: Attestation, closing: int) -> None:
        """Check that a site signs under the commitments that everybody was shown, and tags its three pads.

        Raises:
            InvalidInput: it does not; nothing is said about the tags, which only the holders of its seeds can check.
        """
        lengths = {part: len(tag) for part, tag in attestation.pad_tags.items()}
        signed_under = self._digest(attestation.round, closing)
        if attestation.pad_commitments != signed_under or lengths != {str(part): REPETITIONS for part in shares.PARTS}:
            raise InvalidInput(
                "the signature is not under the commitments to the list's pad sums, or lacks the pads' tags"
            )

    def _digest(self, number: int, closing: int) -> str:
        """Return the hash of the commitments that the sites of a list sign under; one computation for all of them."""
        place = number, closing
        if place not in self._digests:
            listed = _list_of(self._store, self._proposal.study, number, closing)
            shown = opened_commitments(self._proposal, listed, self.chosen(number, closing).values())
            self._digests = {place: commitments_hash(self._proposal, shown)}
        return self._digests[place]

    def voids(self, number: int, before: int) -> dict[str, Signed]:
        """Return the voids of the lists before a closing, as documents of a work item."""
        found: dict[str, Signed] = {}
        for closing in range(1, before):
            documents = self._store.documents(self._proposal.study, number, VOID, closing=closing)
            found |= {f"void/{closing}/{name}": parse(Signed, document) for name, document in documents.items()}
        return found

    async def confirmations(
        self, number: int, about: Mapping[str, Signed], parties: Collection[str]
    ) -> tuple[Signed, ...]:
        """Return the signatures of a list's sites for parties that were started anew, if they ask and all give one.

        Args:
            number: the round.
            about: documents with the ``commitments``, the list.
            parties: who may ask: the keyholder, or helpers.
        """
        study, keyholder = self._proposal.study, self._proposal.keyholder.name
        sent = self._store.documents(study, number, "refusal")
        commitments = about["commitments"]
        words = {n: str(sent[n]["payload"].get("fresh", "")) for n in parties if n in sent}
        words = {name: word for name, word in words.items() if word}
        if not words:
            return ()
        word = WORDS.join(sorted(words.values()))
        sites = sorted(str(u["payload"]["site"]) for u in commitments.payload["updates"])
        asked = {("refusal" if n == keyholder else f"refusal/{n}"): parse(Signed, sent[n]) for n in words}
        documents, closing = {"commitments": commitments, **asked}, int(commitments.payload["closing"])
        for site in sites:
            self._refusals.forget(number, site)
            self._board.publish(site, self._item("confirm", number, documents, closing=closing))

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


def chosen_commitments(store: Store, study: str, number: int, closing: int) -> dict[str, Signed]:
    """Return the commitments that the sites of a list sign under, as documents of a work item."""
    parties = (store.document(study, number, CHOSEN, closing=closing) or {"parties": ()})["parties"]
    found = store.documents(study, number, COMMITMENT, closing=closing)
    return {f"{PREFIX}{name}": parse(Signed, found[name]) for name in parties}


def _list_of(store: Store, study: str, number: int, closing: int) -> Commitments:
    listed = store.opened(Commitments, study, number, "commitments", closing=closing)
    if listed is None:
        raise InvalidInput(f"round {number} has no list {closing}")
    return listed


def require_true_pads(store: Store, proposal: Proposal, sums: PadSums, closing: int, body: bytes) -> None:
    """Check a helper's sum of the part that the keyholder lacks against what the sites of the list vouch for.

    Raises:
        Refused: it is another sum, or the list is not signed by all its sites.
    """
    number = sums.round
    listed = _list_of(store, proposal.study, number, closing)
    attested = store.documents(proposal.study, number, "attestation", closing=closing)
    shown = chosen_commitments(store, proposal.study, number, closing)
    signed = [parse(Signed, document) for document in attested.values()]
    vouched = vouched_of(proposal, listed, tuple(shown.values()), signed)
    total = shares.from_bytes(body, counts_of(proposal), proposal.encryption)
    whole = set(attested) >= {str(update.payload["site"]) for update in listed.updates}
    if vouched is None or not whole or not vouched.fits(MISSING_PART, total, proposal.encryption, salt_in(sums)):
        raise Refused("these pad sums are not those that the hospitals of the list vouch for")


def _closing(documents: Mapping[str, Signed]) -> int:
    return int(documents["commitments"].payload["closing"])
