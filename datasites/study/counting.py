"""A counting study: one step over all records, added up, whose "update" is a vector of noised counts and sums.

What is counted stands in the proposal (:mod:`models.counting`). Everything else is an ordinary study of one round:
Gaussian noise on a clipped sum over all records, charged once, exactly. Here is what its proposal must look like, and
how the vector of all cells is read back from the model after its round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datasites.strategy.shared_noise import encoding_of
from models.counting import Counting
from privacy.dp.mechanism import Mechanism
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from datasites.study.proposal import Proposal

AGGREGATION = "equal"
PARAMETER = "cells.total.weight"
"""The name of the one parameter that holds all cells."""

_SAFETY, _SIGMAS = 60.0, 6.0
"""A box holds so many patients more than were released (six deviations of a released count), and as much noise."""


def check_counting(proposal: Proposal) -> None:
    """Refuse a counting study that does something else than to add up once, and leave every other study alone.

    Raises:
        InvalidInput: the message says what was expected.
    """
    asked, mechanism, training = proposal.model.counting, proposal.mechanism, proposal.training
    if asked is None:
        return
    once = proposal.rounds == 1 and mechanism.steps == 1 and mechanism.sampling_rate == 1.0
    plain = (training.optimizer, training.learning_rate, training.weight_decay) == ("sgd", 1.0, 0.0)
    alike = (training.aggregation, training.proximal_mu) == (AGGREGATION, 0.0)
    server = training.server_step.plain and training.server_learning_rate == 1.0
    alone = mechanism.losses is None and mechanism.evaluation is None
    if not (once and plain and alike and server and alone and proposal.plan.kind == "declarative"):
        raise InvalidInput(
            "a counting study is one step over all records, added up alike: expected one round, one step, sampling "
            f"rate 1, the optimizer sgd at rate 1 without decay, the aggregation {AGGREGATION}, a declarative plan and "
            "no other release"
        )
    if mechanism.clipping != "record" or mechanism.max_grad_norm < asked.sensitivity:
        raise InvalidInput(
            f"expected a clipping norm by record of at least {asked.sensitivity:g}, the root of the number of tables, "
            f"got {mechanism.max_grad_norm:g}: a smaller one would scale records down"
        )
    if proposal.chain is not None and proposal.chain.origin != "seed":
        raise InvalidInput("a counting study begins with zeros: it continues no other study")


def box_of(mechanism: Mechanism, patients: Sequence[int]) -> float:
    """Return the half-width of the public box in which every cell of one hospital lies, its noise included.

    Args:
        mechanism: calibrated.
        patients: released counts of all hospitals; the true ones differ by their noise.
    """
    return float(f"{max(patients) + _SAFETY + _SIGMAS * mechanism.share_deviation:.6g}")


def totals_of(proposal: Proposal, parameters: Mapping[str, NDArray[np.floating]], sites: int) -> NDArray[np.float64]:
    """Return the noised vector of all cells, summed over the hospitals of the round.

    Args:
        proposal: of a counting study.
        parameters: of the model after the round, by name.
        sites: how many hospitals were in the sum.

    Raises:
        InvalidInput: no counting study, or other parameters.
    """
    asked = asked_of(proposal)
    values = np.asarray(parameters.get(PARAMETER, ()), np.float64).ravel()
    if values.size != asked.length:
        raise InvalidInput(f"expected the {asked.length} cells of {proposal.study!r}, got {values.size} numbers")
    return values * (sites if proposal.noise_mode.sites_train else 1)


def deviation_of(proposal: Proposal, sites: int) -> float:
    """Return the standard deviation of the noise in one cell of the sum over ``sites`` hospitals; public.

    Each hospital adds all of the noise (local) or a share of it (shared); rounding to the grid adds little.
    """
    if proposal.noise_mode.sites_train:
        grid = proposal.training.update_bound / proposal.encryption.levels
        deviation = proposal.mechanism.share_deviation
    else:
        encoding = encoding_of(proposal)
        grid, deviation = encoding.step, encoding.deviation
    return math.sqrt(sites * (deviation**2 + grid**2 / 4))


def asked_of(proposal: Proposal) -> Counting:
    """Return what a counting study counts.

    Raises:
        InvalidInput: the study trains a model.
    """
    if proposal.model.counting is None:
        raise InvalidInput(f"{proposal.study!r} trains a model: it has no counts")
    return proposal.model.counting
