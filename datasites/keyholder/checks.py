"""Is this sum to be decrypted? Pure decisions of the keyholder, from signed messages and the sum's bytes alone.

The helpers make the same ones about a list before they answer it, and sites about a sum that they recompute.

The keyholder trusts nobody: not the orchestrator, who relays everything, and no single hospital. A sum is decrypted
when every line of this table holds, and refused with the line that does not:

=====================  ================================================================================================
who could lie          what must hold
=====================  ================================================================================================
orchestrator, study    every participant is in the keyholder's own roster and signed this hash; keyholder independent
orchestrator, plan     signed; this proposal, round and key; weights in bounds, also over those that came, per block
orchestrator, list     every update signed by a participant under this very plan; nobody twice; ``min_sites`` per block
orchestrator, sum      every contributor attested this list, plan and sum; their tags add up to the tag of the sum
both together          what is decrypted is the sum less the pads of the listed sites, each once (see ``pads``)
one hospital           its header announces exactly its blocks; what it encrypted is checked slot by slot when decrypted
helpers                they are those of the roster here; their pad sums fit the tags that all listed sites signed
=====================  ================================================================================================
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from datasites.keyholder.vouched import Vouched, vouched_of
from datasites.study.messages import Approval, Attestation, BlockShape, Commitments, RoundKey, RoundPlan, UpdateHeader
from datasites.study.parties import check_parties, check_roster, check_time
from datasites.study.proposal import Party, Proposal
from datasites.study.recomputed.checks import check_header_pads, check_weights, too_few_effective
from datasites.study.signing import Signed, open_sealed
from datasites.study.text import folded
from privacy.canonical import sha256_hex
from privacy.encryption import ciphertexts, tags
from privacy.encryption.parameters import check_security
from privacy.errors import InvalidInput, Refused, Tampered

WORDS = "+"
"""Stands between the words that an attestation repeats."""

FEWEST_SITES = 3
"""No proposal may let a sum of fewer institutions be decrypted."""


@dataclass(frozen=True, kw_only=True)
class ListRequest:
    """A closed list of a round as signed messages: the plan, the list, and its sites' signatures under it.

    With helpers, ``pad_commitments`` are what keyholder and helpers committed to before the sites signed.
    """

    plan: Signed
    commitments: Signed
    attestations: tuple[Signed, ...]
    pad_commitments: tuple[Signed, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SumRequest(ListRequest):
    """What comes with a request to decrypt: the list, and the sum's body as bytes."""

    body: bytes


@dataclass(frozen=True, kw_only=True)
class CheckedList:
    """A list that all its sites signed, which sites are in each block, and their headers by site.

    ``vouched`` is what its sites signed about its pads, with helpers. ``fresh`` are the words of starts of keyholder or
    helpers that all of them repeated.
    """

    proposal: Proposal
    plan: RoundPlan
    commitments: Commitments
    headers: Mapping[str, UpdateHeader]
    contributors: Mapping[str, tuple[str, ...]]
    tags: tuple[tuple[int, ...], ...] = ()
    vouched: Vouched | None = None
    fresh: frozenset[str] = frozenset()

    @property
    def round(self) -> int:
        """The number of the round."""
        return self.plan.round

    @property
    def plan_hash(self) -> str:
        """The hash of the round's plan."""
        return self.plan.plan_hash

    @property
    def list_hash(self) -> str:
        """The hash of the list."""
        return self.commitments.list_hash


@dataclass(frozen=True, kw_only=True)
class CheckedSum:
    """A sum that passed every check: what to decrypt, which sites are in each block, and their sealed pads by site.

    ``fresh`` are the words of starts that all sites repeated when they attested.
    """

    proposal: Proposal
    round: int
    plan_hash: str
    list_hash: str
    sum_hash: str
    ciphertexts: Mapping[str, Sequence[bytes]]
    contributors: Mapping[str, tuple[str, ...]]
    pads: Mapping[str, str]
    fresh: frozenset[str] = frozenset()
    headers: Mapping[str, UpdateHeader] = field(default_factory=dict)
    vouched: Vouched | None = None


def check_study(
    signed: Signed,
    approvals: Sequence[Signed],
    *,
    orchestrator: Party,
    keyholder: Party,
    hospitals: Sequence[Party],
    now: dt.datetime,
    helpers: Sequence[Party] = (),
    needed: Collection[str] = (),
) -> Proposal:
    """Check that this keyholder, or helper, may serve a study; before a round key is made and before every answer.

    Args:
        signed: the proposal, signed by the orchestrator (kind ``proposal``).
        approvals: what the participants signed (kind ``approval``), in any order.
        orchestrator, keyholder, helpers: as they are known here; the proposal names nobody else.
        hospitals: those of the roster that this party's own people confirmed.
        now: the time, never earlier than the newest journal entry.
        needed: of a study that begins before all have approved: the sites whose approval has to be there.

    Raises:
        Refused: says what does not hold.
    """
    try:
        proposal = open_sealed(signed, "proposal", orchestrator.public_key, Proposal)
        _check_parties(proposal, orchestrator, keyholder)
        check_roster(proposal, hospitals, helpers)
        _check_approvals(proposal, approvals, now, needed)
    except (InvalidInput, Tampered) as error:
        raise Refused(f"the study cannot be served: {error}") from error
    check_security(proposal.encryption)
    if proposal.min_sites < FEWEST_SITES:
        raise Refused(f"expected min_sites of at least {FEWEST_SITES}, got {proposal.min_sites}")
    if proposal.encryption.sites < len(proposal.participants):
        raise Refused(f"the packing carries {proposal.encryption.sites} sites, fewer than take part")
    return proposal


def check_sum_request(
    proposal: Proposal, round_key: RoundKey, request: SumRequest, *, answered_sum: str | None = None
) -> CheckedSum:
    """Decide whether one sum may be decrypted.

    Args:
        proposal: as :func:`check_study` returned it.
        round_key: the key this keyholder made for the round, as it signed it.
        request: what the orchestrator sent.
        answered_sum: hash of the sum this round was answered with before, or None.

    Returns:
        The sum's ciphertexts by block, structurally checked, and the sites in each.

    Raises:
        Refused: says what does not hold; nothing was decrypted.
    """
    listed = check_list(proposal, round_key, request, answered_sum=answered_sum)
    try:
        ciphertexts = _checked_body(proposal, listed.commitments, request.body)
        _check_tags(proposal, listed.commitments, ciphertexts, listed.tags)
    except (InvalidInput, Tampered) as error:
        raise Refused(f"the sum is not decrypted: {error}") from error
    return CheckedSum(
        proposal=proposal,
        round=listed.plan.round,
        plan_hash=listed.plan.plan_hash,
        list_hash=listed.commitments.list_hash,
        sum_hash=listed.commitments.sum_hash,
        ciphertexts=ciphertexts,
        contributors=listed.contributors,
        pads={site: header.pad for site, header in listed.headers.items()},
        fresh=listed.fresh,
        headers=listed.headers,
        vouched=listed.vouched,
    )


def check_list(
    proposal: Proposal, round_key: RoundKey, request: ListRequest, *, answered_sum: str | None = None
) -> CheckedList:
    """Decide whether a list is whole: a plan of this round, enough sites per block, signed by every one of them.

    Args:
        proposal: as :func:`check_study` returned it.
        round_key: the key that the keyholder made for the round, as it signed it.
        request: what the orchestrator sent.
        answered_sum: hash of the sum this round was answered with before, or None.

    Raises:
        Refused: says what does not hold.
    """
    listed = check_unsigned_list(proposal, round_key, request)
    commitments = listed.commitments
    if answered_sum not in (None, commitments.sum_hash):
        raise Refused(f"round {listed.plan.round} was answered with another sum; one sum per round")
    try:
        tags_ = _checked_attestations(proposal, listed.plan, commitments, set(listed.headers), request.attestations)
        vouched = vouched_of(proposal, commitments, request.pad_commitments, request.attestations)
    except (InvalidInput, Tampered) as error:
        raise Refused(f"the sum is not decrypted: {error}") from error
    return replace(listed, tags=tuple(tags_), vouched=vouched, fresh=_common_words(request.attestations))


def check_unsigned_list(proposal: Proposal, round_key: RoundKey, request: ListRequest) -> CheckedList:
    """Decide whether a list is whole but for the signatures of its sites: this is what is committed to.

    Args:
        proposal: as :func:`check_study` returned it.
        round_key: the key that the keyholder made for the round, as it signed it.
        request: what the orchestrator sent; its signatures are not looked at.

    Raises:
        Refused: says what does not hold.
    """
    try:
        plan = _checked_plan(proposal, round_key, request.plan)
        commitments = _checked_list(proposal, plan, request.commitments)
        headers = _checked_headers(proposal, plan, commitments)
        contributors = _checked_contributors(proposal, plan, headers)
    except (InvalidInput, Tampered) as error:
        raise Refused(f"the sum is not decrypted: {error}") from error
    return CheckedList(
        proposal=proposal, plan=plan, commitments=commitments, headers=headers, contributors=contributors
    )


def _common_words(attestations: Sequence[Signed]) -> frozenset[str]:
    said = [frozenset(str(signed.payload.get("fresh", "")).split(WORDS)) for signed in attestations]
    return frozenset.intersection(*said) - {""} if said else frozenset()


def _check_parties(proposal: Proposal, orchestrator: Party, keyholder: Party) -> None:
    if proposal.orchestrator.public_key != orchestrator.public_key:
        raise Refused("the proposal names another orchestrator than the one known here")
    if proposal.keyholder.public_key != keyholder.public_key:
        raise Refused("the proposal names another keyholder; its sums cannot be decrypted here")
    check_parties(replace(proposal, orchestrator=orchestrator, keyholder=keyholder))  # as they are known here


def _check_approvals(
    proposal: Proposal, approvals: Sequence[Signed], now: dt.datetime, needed: Collection[str]
) -> None:
    by_key = {a.public_key: a for a in approvals if a.payload.get("proposal_hash") == proposal.proposal_hash}
    starts_with, there = proposal.waits.starts_with, 0
    for participant in proposal.participants:
        signed = by_key.get(participant.public_key)
        if signed is None:
            if starts_with and participant.name not in needed:
                continue  # it joins later, and no sum holds an update of it until then
            raise Refused(f"{participant.name} has not approved this proposal")
        approval = open_sealed(signed, "approval", participant.public_key, Approval, since=proposal.canonical)
        if (approval.study, approval.site) != (proposal.study, participant.name):
            raise Refused(f"the approval of {participant.name} names another study or site")
        check_time(proposal, approval, now)
        there += 1
    if there < starts_with:
        raise Refused(f"the study begins with {starts_with} approvals, got {there}")


def _checked_plan(proposal: Proposal, round_key: RoundKey, signed: Signed) -> RoundPlan:
    plan = open_sealed(signed, "round-plan", proposal.orchestrator.public_key, RoundPlan, since=proposal.canonical)
    if (plan.study, plan.proposal_hash, plan.canonical) != (proposal.study, proposal.proposal_hash, proposal.canonical):
        raise Refused("the round plan is for another proposal than the approved one")
    expected = (proposal.study, proposal.proposal_hash, plan.round, plan.key_hash)
    if (round_key.study, round_key.proposal_hash, round_key.round, round_key.key_hash) != expected:
        raise Refused("the round plan names another round or key than the one made here for it")
    check_weights(proposal, plan)
    return plan


def _checked_list(proposal: Proposal, plan: RoundPlan, signed: Signed) -> Commitments:
    commitments = open_sealed(
        signed, "commitments", proposal.orchestrator.public_key, Commitments, since=proposal.canonical
    )
    expected = (proposal.study, plan.round, plan.plan_hash, plan.canonical)
    if (commitments.study, commitments.round, commitments.plan_hash, commitments.canonical) != expected:
        raise Refused("the commitment list is for another study, round or plan")
    return commitments


def _checked_headers(proposal: Proposal, plan: RoundPlan, commitments: Commitments) -> dict[str, UpdateHeader]:
    headers: dict[str, UpdateHeader] = {}
    for update in commitments.updates:
        participant = next((p for p in proposal.participants if p.public_key == update.public_key), None)
        if participant is None:
            raise Refused("the list holds an update of somebody who takes no part in the study")
        header = open_sealed(update, "update", participant.public_key, UpdateHeader, since=proposal.canonical)
        if header.site != participant.name:
            raise Refused(f"{participant.name} signed an update in another site's name")
        if header.site in headers:
            raise Refused(f"{header.site} stands twice in the list")
        _check_header(proposal, plan, header)
        headers[header.site] = header
    bodies = [header.body_hash for header in headers.values()]
    if len(set(bodies)) < len(bodies):
        raise Refused("two sites in the list sent the same ciphertexts")
    return headers


def _check_header(proposal: Proposal, plan: RoundPlan, header: UpdateHeader) -> None:
    bound = (header.study, header.proposal_hash, header.round, header.plan_hash)
    if bound != (proposal.study, proposal.proposal_hash, plan.round, plan.plan_hash):
        raise Refused(f"the update of {header.site} was made for another study, round or plan")
    expected = {
        BlockShape(name=b.name, values=b.length, ciphertexts=proposal.encryption.ciphertexts_for(b.length))
        for b in proposal.blocks_of(header.site)
    }
    if set(header.blocks) != expected or len(header.blocks) != len(expected):
        raise Refused(f"the update of {header.site} has other blocks than the proposal gives it")
    counts = {shape.name: shape.ciphertexts for shape in header.blocks}
    if header.body_bytes != ciphertexts.body_bytes(counts, proposal.encryption):
        raise Refused(f"the update of {header.site} has another length than its blocks")
    check_header_pads(proposal, header)


def _checked_contributors(
    proposal: Proposal, plan: RoundPlan, headers: Mapping[str, UpdateHeader]
) -> dict[str, tuple[str, ...]]:
    """Return who is in each block; every block needs enough institutions and enough effective ones."""
    contributors = {}
    for block in proposal.exchanged_blocks():
        sites = tuple(site for site in sorted(headers) if site in proposal.contributors(block))
        institutions = {folded(proposal.participant(site).institution) for site in sites}
        if len(institutions) < proposal.min_sites:
            raise Refused(
                f"expected updates of at least {proposal.min_sites} institutions in block {block.name!r}, "
                f"got {len(institutions)}; a sum of fewer is never decrypted"
            )
        if too_few_effective({site: plan.weights[block.name][site] for site in sites}, proposal.min_sites):
            raise Refused(f"the weights that arrived in block {block.name!r} leave too few effective sites")
        contributors[block.name] = sites
    return contributors


def _checked_body(proposal: Proposal, commitments: Commitments, body: bytes) -> dict[str, list[bytes]]:
    if sha256_hex(body) != commitments.sum_hash:
        raise Refused("the sum's bytes do not have the hash that the list commits to")
    counts = {b.name: proposal.encryption.ciphertexts_for(b.length) for b in proposal.exchanged_blocks()}
    return ciphertexts.unpack(body, counts, proposal.encryption)


def _checked_attestations(
    proposal: Proposal, plan: RoundPlan, commitments: Commitments, sites: set[str], attestations: Sequence[Signed]
) -> list[tuple[int, ...]]:
    """Return every contributor's tags, after checking that each attested this list, plan and sum."""
    expected = (proposal.study, plan.round, plan.plan_hash, commitments.list_hash, commitments.sum_hash)
    site_tags: dict[str, tuple[int, ...]] = {}
    for signed in attestations:
        name = str(signed.payload.get("site"))[:100]
        attestation = open_sealed(
            signed, "attestation", proposal.participant(name).public_key, Attestation, since=proposal.canonical
        )
        bound = (
            attestation.study,
            attestation.round,
            attestation.plan_hash,
            attestation.list_hash,
            attestation.sum_hash,
        )
        if bound != expected:
            raise Refused(f"{name} attested another list, plan or sum than this one")
        if name in site_tags or name not in sites:
            raise Refused(f"{name} attested twice, or is not in the list")
        site_tags[name] = tuple(map(int, attestation.tags))
    missing = sorted(sites - set(site_tags))
    if missing:
        raise Refused(f"not attested by {', '.join(missing)}; every contributor has to sign the list")
    return list(site_tags.values())


def _check_tags(
    proposal: Proposal,
    commitments: Commitments,
    ciphertexts: Mapping[str, Sequence[bytes]],
    site_tags: Sequence[tuple[int, ...]],
) -> None:
    challenge = tags.challenges(commitments.list_hash, commitments.sum_hash)
    if tags.combine(site_tags, proposal.encryption) != tags.tag(ciphertexts, challenge, proposal.encryption):
        raise Refused("the tags do not add up: this is not the sum of the updates in the list")
