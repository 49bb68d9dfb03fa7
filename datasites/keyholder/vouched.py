"""What a list's sites say about its pads: their masked tags, under commitments that were fixed before.

Keyholder and helpers commit to the pad sums of a list that nobody has signed (:func:`commit_to`). Every site tags its
three pads when it signs (:mod:`privacy.encryption.pad_tags`). So everybody knows each part's true sum from false ones,
whoever of keyholder and helpers is away or lies:

    >>> vouched = vouched_of(proposal, listed, commitments, attestations)
    >>> vouched.fits(3, total, proposal.encryption, salt)

A part that does not fit is a false sum or the tag of a lying site. Who holds the part's seeds knows which (``wrong``).
Proof: docs/decisions/0020-vouched-pads.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasites.study.messages import Attestation, Commitments, PadCommitment, UpdateHeader
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, dump, open_sealed, parse, value_in
from privacy.canonical import canonical_hash
from privacy.encryption import pad_tags, shares
from privacy.encryption.parameters import EncryptionParameters
from privacy.encryption.tags import REPETITIONS, Challenge
from privacy.errors import InvalidInput, Refused

PREFIX = "commitment/"
"""How the names of a work item's documents begin that are commitments."""


@dataclass(frozen=True, kw_only=True)
class OwnParts:
    """What a holder knows of a list's pads: its parts' seeds by site, and the sums of their pads."""

    seeds: Mapping[int, Mapping[str, bytes]]
    sums: Mapping[int, shares.PartSum]

    def salt(self, proposal: Proposal, part: int, list_hash: str) -> bytes:
        """Return the salt of the commitment to a part; empty in studies from before there were salts."""
        return pad_tags.salt_of(self.seeds[part].values(), part, list_hash) if proposal.protocol >= 2 else b""


@dataclass(frozen=True, kw_only=True)
class Vouched:
    """The tags of a list by part and site, their challenge, and the commitments that count for each part."""

    list_hash: str
    challenge: Challenge
    tags: Mapping[int, Mapping[str, tuple[int, ...]]]
    accepted: Mapping[int, frozenset[str]]
    salted: bool = False

    def fits(self, part: int, total: shares.PartSum, parameters: EncryptionParameters, salt: bytes) -> bool:
        """Say whether ``total`` is the sum of the part's pads: committed to before, and in line with all tags.

        ``salt`` is the commitment's, from whoever knows the part; empty in studies from before there were salts.
        """
        if len(salt) != pad_tags.SALT_BYTES * self.salted:
            return False
        try:
            masks = pad_tags.implied_masks([*self.tags[part].values()], total, self.challenge, parameters)
        except InvalidInput:
            return False
        return pad_tags.commitment(part, self.list_hash, total, masks, salt) in self.accepted[part]

    def wrong(
        self,
        part: int,
        seeds: Mapping[str, bytes],
        headers: Mapping[str, UpdateHeader],
        parameters: EncryptionParameters,
    ) -> list[str]:
        """Return the sites whose tag of a part is not that of the seed they sealed; for who has the part's seeds."""
        found = []
        for site, seed in seeds.items():
            counts = {shape.name: shape.ciphertexts for shape in headers[site].blocks}
            rows = shares.part_sum({site: seed}, dict.fromkeys(counts, (site,)), counts, parameters)
            own = pad_tags.pad_tag(rows, seed, part, self.list_hash, self.challenge, parameters)
            if self.tags[part][site] != own:
                found.append(site)
        return sorted(found)


def commit_to(
    proposal: Proposal, listed: Commitments, party: str, own: OwnParts, parameters: EncryptionParameters
) -> PadCommitment:
    """Return a holder's commitment to its parts of a list; the same list always gives the same one."""
    parts = {}
    for part, total in own.sums.items():
        masks = pad_tags.masks_of(own.seeds[part].values(), part, listed.list_hash, parameters)
        salt = own.salt(proposal, part, listed.list_hash)
        parts[str(part)] = pad_tags.commitment(part, listed.list_hash, total, masks, salt)
    return PadCommitment(study=proposal.study, round=listed.round, list_hash=listed.list_hash, party=party, parts=parts)


def shown_commitments(documents: Mapping[str, Signed]) -> tuple[Signed, ...]:
    """Return the commitments among a work item's documents."""
    return tuple(signed for place, signed in sorted(documents.items()) if place.startswith(PREFIX))


def opened_commitments(proposal: Proposal, listed: Commitments, signed: Iterable[Signed]) -> dict[str, PadCommitment]:
    """Return commitments by party, each signed by it, of this list, and of exactly its parts.

    Raises:
        Refused: the keyholder's is missing, no helper's is there, one is of another list or of a stranger, two are of
            one party, or keyholder and a helper commit to different sums of the part that both know.
        InvalidInput, Tampered: one is not as its signature says.
    """
    holders = {party.public_key: party.name for party in (*proposal.helpers, proposal.keyholder)}
    found: dict[str, PadCommitment] = {}
    for one in signed:
        if one.public_key not in holders:
            raise Refused("a commitment to pad sums is signed by neither the keyholder nor a helper of the study")
        name = holders[one.public_key]
        said = open_sealed(one, "pad-commitment", one.public_key, PadCommitment, since=proposal.canonical)
        about = (said.study, said.round, said.list_hash, said.party)
        if about != (proposal.study, listed.round, listed.list_hash, name) or name in found:
            raise Refused("a commitment to pad sums is of another list, study or party")
        try:
            require_own_parts(proposal, said)
        except InvalidInput as error:
            raise Refused(str(error)) from error
        found[name] = said
    if proposal.keyholder.name not in found or len(found) < 2:
        raise Refused("expected the keyholder's commitment to the list's pad sums, and a helper's")
    if lying := disagreeing(proposal, found):
        raise Refused(f"{proposal.keyholder.name} and {', '.join(sorted(lying))} commit to different pad sums")
    return found


def require_own_parts(proposal: Proposal, said: PadCommitment) -> PadCommitment:
    """Return a commitment after checking that it is to exactly the parts that its holder has.

    Raises:
        InvalidInput: it does not, or nobody of that name holds any.
    """
    held = {helper.name: parts for helper, parts in zip(proposal.helpers, shares.HELPER_PARTS, strict=False)}
    held[proposal.keyholder.name] = shares.KEYHOLDER_PARTS
    if set(said.parts) != {str(part) for part in held.get(said.party, ())}:
        raise InvalidInput(f"the commitment of {said.party} is to other parts than it holds")
    return said


def usable_commitments(
    proposal: Proposal, said: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, PadCommitment], list[str]]:
    """Return the commitments to exactly their parties' parts, by party, and whose are not: no site signs under those.

    Args:
        proposal: the study's.
        said: what parties committed to, by their names, as the orchestrator keeps it.
    """
    found, useless = dict[str, PadCommitment](), list[str]()
    for name, payload in said.items():
        try:
            found[name] = require_own_parts(proposal, parse(PadCommitment, dict(payload)))
        except InvalidInput:
            useless.append(name)
    return found, sorted(useless)


def commitments_hash(proposal: Proposal, found: Mapping[str, PadCommitment]) -> str:
    """Return the hash of a set of commitments, which every site of the list signs."""
    return canonical_hash({"commitments": [dump(found[name]) for name in sorted(found)]}, proposal.canonical)


def vouched_of(
    proposal: Proposal,
    listed: Commitments,
    commitments: Sequence[Signed],
    attestations: Sequence[Signed],
) -> Vouched | None:
    """Return what the sites of a list vouch for; None where none of them tagged a pad, as before there were tags.

    Args:
        proposal: the study's.
        listed: the list.
        commitments: what keyholder and helpers committed to.
        attestations: the sites' signatures, checked to be those of this list.

    Raises:
        Refused: sites signed under different commitments, or others than these, or not all tagged their pads.
    """
    signed = [value_in(attestation, Attestation) for attestation in attestations]
    if not any(one.pad_tags or one.pad_commitments for one in signed):
        if proposal.helpers and proposal.protocol >= 2:
            raise Refused("expected every hospital of the list to tag its pads when it signs; none did")
        return None
    if not proposal.helpers:
        raise Refused("a study without helpers has no tags of pads")
    found = opened_commitments(proposal, listed, commitments)
    digest = commitments_hash(proposal, found)
    for one in signed:
        if one.pad_commitments != digest:
            raise Refused(f"{one.site} signed the list under other commitments to its pad sums")
        if set(one.pad_tags) != {str(part) for part in shares.PARTS}:
            raise Refused(f"{one.site} did not tag its three pads")
        if any(len(tag) != REPETITIONS for tag in one.pad_tags.values()):
            raise Refused(f"expected {REPETITIONS} numbers in every tag of a pad of {one.site}")
    accepted: dict[int, set[str]] = {part: set() for part in shares.PARTS}
    for said in found.values():
        for part, digest_of_part in said.parts.items():
            accepted[int(part)].add(digest_of_part)
    return Vouched(
        list_hash=listed.list_hash,
        challenge=pad_tags.pad_challenge(listed.list_hash, listed.sum_hash, digest),
        tags={part: {s.site: tuple(map(int, s.pad_tags[str(part)])) for s in signed} for part in shares.PARTS},
        accepted={part: frozenset(hashes) for part, hashes in accepted.items()},
        salted=proposal.protocol >= 2,
    )


def disagreeing(proposal: Proposal, found: Mapping[str, PadCommitment]) -> Collection[str]:
    """Return the helpers that commit to another sum of a part than the keyholder; one of the two lies."""
    own = found[proposal.keyholder.name].parts if proposal.keyholder.name in found else {}
    helpers = {helper.name for helper in proposal.helpers} & set(found)
    return {name for name in helpers if any(own.get(part, said) != said for part, said in found[name].parts.items())}
