"""What a hospital checks about a round before it reads a record or signs anything: plan, key and closed list.

The plan's weights keep a sum from being one hospital's update. Its scales say how much shorter each modality's step is
than the longest one. A site multiplies its step sizes by them (:func:`privacy.dp.sgd.train`), after the optimiser's
normalisation, so that they act under any optimiser; under shared noise the server does it. Scales are at most 1, so
that an update stays in its public box; the server gives back the length that this takes
(:func:`datasites.study.recomputed.next_model.restoring_gain`): blending decides where the step goes, not how long it
is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datasites.strategy.weights import SMALLEST_WEIGHT, effective_sites
from datasites.study.messages import Commitments, RoundKey, RoundPlan, UpdateHeader
from datasites.study.proposal import Proposal
from datasites.study.recomputed.released_numbers import expected_names
from datasites.study.signing import Signed, open_sealed, value_in
from privacy.encryption import round_keys
from privacy.encryption.parameters import check_security
from privacy.encryption.shares import PARTS
from privacy.errors import InvalidInput, Refused
from privacy.sentences import joined, say

if TYPE_CHECKING:  # what a hospital keeps is its own: this room needs no database
    from privacy.ledger.journal import Journal


def check_scales(proposal: Proposal, plan: RoundPlan) -> None:
    """Check a plan's scales.

    Raises:
        Refused: a scale outside (0, 1], of a block that is not exchanged, or other than 1 in a study without blending.
    """
    if not all(math.isfinite(s) and 0 < s <= 1 for s in plan.scales.values()):
        raise Refused("expected blending scales above 0 and at most 1")
    if not set(plan.scales) <= {b.name for b in proposal.exchanged_blocks()}:
        raise Refused("the plan's blending scales are for other blocks than the proposal's")
    if not proposal.strategy.blending.blends and set(plan.scales.values()) - {1.0}:
        raise Refused("the approved study does not blend modalities: expected every scale to be 1")


def check_plan(proposal: Proposal, plan: RoundPlan, site: str) -> None:
    """Check a round plan against the approved proposal.

    Raises:
        Refused: another study or proposal, a round outside the study, or weights or blending scales
            outside their bounds.
        InvalidInput: the evaluation is charged for fewer outputs than the model has.
    """
    check_plan_bounds(proposal, plan)
    expected_names(proposal, site, plan.round)
    check_security(proposal.encryption)
    for block in proposal.blocks_of(site):
        if site not in plan.weights[block.name]:
            raise Refused(f"the plan gives {site} no weight in block {block.name!r}")


def check_plan_bounds(proposal: Proposal, plan: RoundPlan) -> None:
    """Check what holds for a round plan whoever reads it.

    Raises:
        Refused: another study or proposal, a round outside the study, or weights or scales out of bounds.
    """
    if (plan.study, plan.proposal_hash, plan.canonical) != (proposal.study, proposal.proposal_hash, proposal.canonical):
        raise Refused("the round plan is for another proposal than the approved one")
    if not 1 <= plan.round <= proposal.rounds:
        raise Refused(f"expected a round between 1 and {proposal.rounds}, got {plan.round}")
    check_weights(proposal, plan)
    check_scales(proposal, plan)


def check_weights(proposal: Proposal, plan: RoundPlan) -> None:
    """Check the bounds that keep a weighted sum from being one site's update in disguise.

    Raises:
        Refused: another set of blocks or sites, a weight outside [1/4, 1], too few effective sites per block, or
            unequal weights under shared noise.
    """
    blocks = proposal.exchanged_blocks()
    if set(plan.weights) != {b.name for b in blocks}:
        raise Refused("the plan's weights are for other blocks than the proposal's")
    for block in blocks:
        weights = plan.weights[block.name]
        if set(weights) != set(proposal.contributors(block)):
            raise Refused(f"the plan's weights of block {block.name!r} are for other sites than the proposal's")
        if not all(SMALLEST_WEIGHT <= w <= 1 for w in weights.values()):
            raise Refused(f"expected weights in [{SMALLEST_WEIGHT}, 1] for block {block.name!r}")
        proposal.noise_mode.check_weights(weights)
        if too_few_effective(weights, proposal.min_sites):
            raise Refused(f"the weights of block {block.name!r} leave fewer than {proposal.min_sites} effective sites")


def too_few_effective(weights: Mapping[str, float], min_sites: int) -> bool:
    """Say whether a weighted sum rests on fewer than ``min_sites`` effective sites (up to rounding)."""
    return effective_sites(weights) < min_sites * (1 - 1e-9)


def enough(proposal: Proposal, weights: Mapping[str, Mapping[str, float]], sites: Collection[str]) -> bool:
    """Return whether the keyholder would decrypt a sum of ``sites``: enough institutions per block, none too heavy.

    Args:
        proposal: the study's.
        weights: the plan's, by block and site; what is missing counts 1.
        sites: whose updates came.
    """
    for block in proposal.exchanged_blocks():
        there = {s: weights.get(block.name, {}).get(s, 1.0) for s in proposal.contributors(block) if s in sites}
        if len(proposal.institutions(set(there))) < proposal.min_sites or too_few_effective(there, proposal.min_sites):
            return False
    return True


def exchanges_nothing(proposal: Proposal) -> str:
    """Return why no hospital could learn from another in this study, or an empty text where one can.

    Only the part of the model that every hospital has, such as the bias of a cohort, would travel, round after round,
    and privacy would be spent for it.
    """
    reads = [b for b in proposal.blocks if b.modality is not None]
    if not reads or any(b.modality is not None for b in proposal.exchanged_blocks()):
        return ""
    counts = {str(b.modality): len(proposal.institutions(proposal.contributors(b))) for b in reads}
    held = [say("{modality} at {count}", modality=name, count=count) for name, count in sorted(counts.items())]
    return say(
        "expected a modality that at least {least} institutions hold, got {held}: nothing that reads a patient's data "
        "would be exchanged; ask more hospitals, lower min_sites (3 is the least), or use shared noise, under which "
        "every hospital sends every part",
        least=proposal.min_sites,
        held=joined(held, ", "),
    )


def check_key(proposal: Proposal, plan: RoundPlan, key: RoundKey) -> None:
    """Check that the round key was made for this round of this proposal and is the one the plan names.

    Raises:
        Refused: it was not.
    """
    expected = (proposal.study, proposal.proposal_hash, plan.round, plan.key_hash)
    if (key.study, key.proposal_hash, key.round, key.key_hash) != expected:
        raise Refused("the round key is for another study, round or plan")


def random_part(proposal: Proposal, number: int) -> NDArray[np.uint64] | None:
    """Return what the second polynomial of a round's public key has to be; None where the keyholder draws it.

    Returns:
        uint64[primes, N]; None in studies from before it followed from the proposal.
    """
    if proposal.protocol < 2:
        return None
    return round_keys.expanded(proposal.encryption, proposal.proposal_hash, number)


def check_public_key(proposal: Proposal, number: int, public: bytes) -> None:
    """Check that nothing of a round's public key is the keyholder's choice but what it keeps secret.

    Args:
        proposal: the study's.
        number: the round.
        public: the key's bytes, which have the hash that the keyholder signed.

    Raises:
        Refused: its random part is another than follows from the proposal and the round.
    """
    expected = random_part(proposal, number)
    if expected is None:
        return
    try:
        round_keys.require_random_part(public, expected)
    except InvalidInput as error:
        raise Refused(f"round {number}: {error}; nothing is encrypted with it") from error


def check_header_pads(proposal: Proposal, header: UpdateHeader) -> None:
    """Check that a header has pads for the study's helpers, at least one of them, and for nobody else, and its start.

    Raises:
        Refused: it has not.
    """
    named, hashes = set(header.helper_pads), len(header.seed_hashes)
    if not proposal.helpers and not named and not hashes:
        return
    if not named or not named <= {helper.name for helper in proposal.helpers} or hashes != len(PARTS):
        raise Refused(f"the update of {header.site} lacks the pads of this study's helpers, or names others")
    if proposal.protocol >= 3 and not header.begun:
        raise Refused(f"the update of {header.site} does not name the start of the process that made it")


def check_commitments(proposal: Proposal, plan: RoundPlan, commitments: Commitments, site: str, own: Signed) -> None:
    """Check the closed list before signing it: this round, this plan, our update once, only participants.

    Raises:
        Refused: something else is in the list, or ours is not.
        Tampered: a header's signature does not hold.
    """
    expected = (plan.study, plan.round, plan.plan_hash, plan.canonical)
    if (commitments.study, commitments.round, commitments.plan_hash, commitments.canonical) != expected:
        raise Refused("the list is for another round or plan than the one trained here")
    seen: list[str] = []
    for update in commitments.updates:
        name = str(update.payload.get("site"))
        header = open_sealed(
            update, "update", proposal.participant(name).public_key, UpdateHeader, since=proposal.canonical
        )
        if header.plan_hash != plan.plan_hash:
            raise Refused(f"{name} was given another plan in this round")
        seen.append(name)
    if len(set(seen)) < len(seen):
        raise Refused("a site stands twice in the list")
    ours = [u for u in commitments.updates if u.payload.get("site") == site]
    if not ours or value_in(ours[0], UpdateHeader) != value_in(own, UpdateHeader):
        raise Refused("our own update is not in the list as we sent it")


def require_newest_round(journal: Journal, study: str, number: int) -> None:
    """Check that no later round was planned: its model follows from how this round ended, which is known therefore.

    Raises:
        Refused: one was; a second sum of this round would single somebody out, and no record is read for it any more.
    """
    newest = max((planned for name, planned in journal.by_round("round-plan") if name == study), default=0)
    if newest > number:
        raise Refused(
            f"round {number} is over: round {newest} was planned here; it is not trained, and no list of it attested"
        )


def earlier_lists(journal: Journal, study: str, number: int, list_hash: str) -> tuple[str, ...]:
    """Return the hashes of the other lists of this round that this site attested before, the oldest first."""
    attested = (str(said["list_hash"]) for said in journal.by_round("attested").get((study, number), ()))
    return tuple(dict.fromkeys(known for known in attested if known != list_hash))
