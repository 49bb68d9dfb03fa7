"""The public constants of shared noise in one study: the same at every site and at the orchestrator.

Under shared noise a round is one DP-SGD step over the union of the hospitals. A site sends the integers of its
clipped gradient sum with its share of the noise (:mod:`privacy.shared_noise`); the decrypted sum is the noised
gradient sum of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasites.contract import Block, Proposal
from datasites.released_numbers import training_share
from privacy.errors import InvalidInput
from privacy.randomness import Randomness
from privacy.shared_noise import SharedEncoding, choose_encoding, encode, mean_gradient


def encoding_of(proposal: Proposal) -> SharedEncoding:
    """Return the encoding that a proposal with shared noise fixes.

    Raises:
        Refused, InvalidInput: no encoding fits the proposal's levels and box.
    """
    return choose_encoding(
        proposal.mechanism,
        values=sum(block.length for block in proposal.exchanged_blocks()),
        bound=proposal.training.update_bound,
        levels=proposal.encryption.levels,
    )


def share_integers(proposal: Proposal, block: Block, gradient_sum: np.ndarray, randomness: Randomness) -> np.ndarray:
    """Return one block's integers with this site's share of the noise.

    Args:
        proposal: with shared noise.
        block: an exchanged block.
        gradient_sum: float64 [block.length], the clipped sum; zeros where the site lacks the modality.
        randomness: the round's stream.
    """
    return encode(gradient_sum, encoding_of(proposal), randomness.child(f"share of {block.name}"))


def checked_integers(proposal: Proposal, values: np.ndarray) -> np.ndarray:
    """Return the worker's vector as the integers it must hold, int64.

    Raises:
        InvalidInput: a value is no integer or beyond the encoding's levels.
    """
    integers: np.ndarray = np.rint(values).astype(np.int64)
    if not np.array_equal(integers, values) or int(np.abs(integers).max(initial=0)) > encoding_of(proposal).levels:
        raise InvalidInput("expected integers within the encoding's levels from the worker")
    return integers


def block_gradient(
    proposal: Proposal, block: Block, total: np.ndarray, sites: Sequence[str], number: int
) -> np.ndarray:
    """Return the noised mean gradient of a block from the decrypted sum of its integers, float64.

    Args:
        proposal: with shared noise.
        block: an exchanged block.
        total: int64 [block.length].
        sites: whose updates are in the sum; the mean is over the share that trains of the released patient counts of
            those that hold the block's modality.
        number: the round.
    """
    holders = [p for p in proposal.participants if p.name in sites and block.modality in (None, *p.modalities)]
    return mean_gradient(
        total.astype(np.int64),
        encoding_of(proposal),
        sampling_rate=proposal.mechanism.sampling_rate,
        expected_records=max(1.0, training_share(proposal, number) * sum(p.dataset.patients for p in holders)),
    )
