"""Who adds the noise, and everything that follows from it: one object a mode.

Under local noise every site adds all of the noise that is charged to its own update. Under shared noise it adds a part
to its clipped gradient sum, and only the sum over the sites carries the whole (:mod:`privacy.dp.shared_noise`,
docs/shared-noise.md). A third mode is a subclass of :class:`NoiseMode` and one entry in ``registry.py``; what is
charged for it is one of the mechanisms of :mod:`privacy.dp.mechanism`, for which there are proofs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from datasites.strategy.weights import bounded
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness
from privacy.dp.shared_noise import SharedEncoding, choose_encoding, encode, mean_gradient
from privacy.encryption.packing import dequantise, quantise
from privacy.errors import InvalidInput, Refused

if TYPE_CHECKING:
    from datasites.study.messages import RoundPlan
    from datasites.study.proposal import Block, Proposal

_MOST_SHARED_PARAMETERS = 65_536  # local noise has a bound of its own
_MOST_SHARING = 64  # more hospitals have no proof of their shared noise; local noise does not ask


class NoiseMode(Protocol):
    """Who adds the noise, and what a round looks like because of it.

    Attributes:
        name: as proposals write it.
        accounted_as: the ``noise`` of the mechanism that is charged.
        sites_train: sites take steps of their own, and may keep parameters of their own; else a site sends one
            clipped gradient sum, and the server takes the step.
        covers_single_updates: one update alone carries all the noise that is charged. Else nothing may read single
            updates, and the claim rests on how many sites are honest.
        needs_privacy: there is no encoding without noise.
        weighing: one sentence about the weights, empty where the weight rule has the say.
        weaker_at_servers, weaker_at_hospitals: what bounds the risk when orchestrator and keyholder work together, or
            the orchestrator and all hospitals but one; empty where the charged epsilon still does.
    """

    name: ClassVar[str]
    accounted_as: ClassVar[Literal["local", "shared"]]
    sites_train: ClassVar[bool]
    covers_single_updates: ClassVar[bool]
    needs_privacy: ClassVar[bool]
    weighing: ClassVar[str] = ""
    weaker_at_servers: ClassVar[str] = ""
    weaker_at_hospitals: ClassVar[str] = ""

    # what is proposed and charged ------------------------------------------------------------------------------

    def steps_per_round(self, wanted: int) -> int:
        """Return how many noised steps a round has when ``wanted`` are asked for."""

    def charged_size(self, *, sites: int, min_sites: int, parameters: int) -> tuple[int, int]:
        """Return the mechanism's ``max_sites`` and ``max_parameters`` for a study of this size."""

    def usual_min_sites(self, sites: int) -> int:
        """Return the fewest sites in a sum that a demonstration with ``sites`` asks for."""

    def update_bound(
        self, mechanism: Mechanism, *, learning_rate: float, patients: Sequence[int], training_share: float
    ) -> float:
        """Return the half-width of the public box that every coordinate of an update is projected on.

        Args:
            mechanism: calibrated.
            learning_rate: of the sites' steps.
            patients: released counts of all sites.
            training_share: which part of the records trains.
        """

    # what a round allows ---------------------------------------------------------------------------------------

    def contributes(self, modality: str | None, held: Collection[str]) -> bool:
        """Return whether a site that holds the modalities ``held`` sends a block of ``modality`` (None: of all)."""

    def weights(self, raw: Mapping[str, float], *, min_sites: int) -> dict[str, float]:
        """Return a block's weights in [1/4, 1] from a rule's raw ones."""

    def check_weights(self, weights: Mapping[str, float]) -> None:
        """Refuse weights that this noise does not allow beyond the bounds that always hold.

        Raises:
            Refused: they are not allowed.
        """

    # what travels ----------------------------------------------------------------------------------------------

    def share(self, proposal: Proposal, block: Block, gradient_sum: NDArray[np.floating], stream: Randomness) -> Vector:
        """Return what a site that takes no steps sends of one block, from its clipped gradient sum float64 [n]."""

    def check_vector(self, proposal: Proposal, values: Vector) -> None:
        """Refuse a worker's vector that this mode cannot send.

        Raises:
            InvalidInput: it cannot.
        """

    def integers(
        self, proposal: Proposal, block: Block, values: Vector, weight: float, stream: Randomness
    ) -> NDArray[np.int64]:
        """Return the integers that are encrypted: int64 [n] within the packing's levels, weighted."""

    def without_data(
        self, proposal: Proposal, plan: RoundPlan, block: Block, before: Vector, records: float, stream: Randomness
    ) -> Vector:
        """Return what a site sends of one block when its worker failed: the usual noise, and nothing of a record.

        Args:
            proposal: the study's.
            plan: the round's.
            block: an exchanged block.
            before: the block's parameters in the model that the round began with.
            records: how many records would have trained, from the released count; at least 1.
            stream: of this round.
        """

    def mean_update(
        self,
        proposal: Proposal,
        plan: RoundPlan,
        block: Block,
        total: NDArray[np.int64],
        before: Vector,
        sites: Sequence[str],
        records: float,
    ) -> Vector:
        """Return a block's mean update from the decrypted sum, before blending's gain is restored.

        Args:
            proposal: the study's.
            plan: the round's.
            block: an exchanged block.
            total: the decrypted integers.
            before: the block's parameters in the model that the round began with.
            sites: whose updates are in the sum.
            records: how many records of the block's modality trained, from the released counts; at least 1.
        """

    # in words --------------------------------------------------------------------------------------------------

    def against(self, colluders: int) -> str:
        """Return against whom the charged epsilon holds."""

    def who_adds(self, *, min_sites: int, colluders: int) -> str:
        """Return who adds how much, for a table."""

    def sentence(self, colluders: int) -> str:
        """Return who adds the noise and whom the cost counts on, for the people who decide."""


Vector = NDArray[np.float32]


class LocalNoise(NoiseMode):
    """Every site adds all of the noise to its own update; nobody is trusted with it."""

    name: ClassVar[str] = "local"
    accounted_as: ClassVar[Literal["local", "shared"]] = "local"
    sites_train: ClassVar[bool] = True
    covers_single_updates: ClassVar[bool] = True
    needs_privacy: ClassVar[bool] = False

    def steps_per_round(self, wanted: int) -> int:
        """Return ``wanted``."""
        return wanted

    def charged_size(self, *, sites: int, min_sites: int, parameters: int) -> tuple[int, int]:
        """Return the size within the mechanism's bounds; the local guarantee depends on neither."""
        return max(min_sites, min(sites, _MOST_SHARING)), min(parameters, _MOST_SHARED_PARAMETERS)

    def usual_min_sites(self, sites: int) -> int:
        """Return the smallest number that is ever allowed."""
        return 3

    def update_bound(
        self, mechanism: Mechanism, *, learning_rate: float, patients: Sequence[int], training_share: float
    ) -> float:
        """Return a tenth of the largest possible drift plus five deviations of the smallest site's noise.

        A gradient of norm C rarely puts more than a tenth of it on one coordinate; what would pass the box is
        projected on it, at every site alike.
        """
        records = max(1.0, training_share * min(patients))
        rate, steps = learning_rate, mechanism.steps_per_round
        drift = rate * steps * mechanism.max_grad_norm
        noise = rate * math.sqrt(steps) * mechanism.share_deviation / (mechanism.sampling_rate * records)
        return float(f"{0.1 * drift + 5 * noise:.6g}")

    def contributes(self, modality: str | None, held: Collection[str]) -> bool:
        """Return whether the site holds the modality."""
        return modality is None or modality in held

    def weights(self, raw: Mapping[str, float], *, min_sites: int) -> dict[str, float]:
        """Return the rule's weights, brought inside the bounds."""
        return bounded(raw, min_sites=min_sites)

    def check_weights(self, weights: Mapping[str, float]) -> None:
        """Allow all weights within the usual bounds."""

    def share(self, proposal: Proposal, block: Block, gradient_sum: NDArray[np.floating], stream: Randomness) -> Vector:
        """Refuse: sites take steps of their own.

        Raises:
            Refused: always.
        """
        raise Refused("under local noise a site sends the difference of its own steps, and no gradient sum")

    def check_vector(self, proposal: Proposal, values: Vector) -> None:
        """Allow every finite vector: the box bounds it."""

    def integers(
        self, proposal: Proposal, block: Block, values: Vector, weight: float, stream: Randomness
    ) -> NDArray[np.int64]:
        """Project on the public box, weight and round stochastically."""
        return quantise(
            values,
            bound=proposal.training.update_bound,
            weight=weight,
            levels=proposal.encryption.levels,
            uniform=stream.child("rounding").child(block.name).uniform,
        )

    def without_data(
        self, proposal: Proposal, plan: RoundPlan, block: Block, before: Vector, records: float, stream: Randomness
    ) -> Vector:
        """Return noise with the pull of weight decay and the plan's scale in it, as in every update."""
        mechanism, training = proposal.mechanism, proposal.training
        step = training.learning_rate * mechanism.share_deviation / (mechanism.sampling_rate * records)
        scale = plan.scales.get(block.name, 1.0)
        pull = (1 - scale * training.learning_rate * training.weight_decay) ** mechanism.steps_per_round - 1
        deviation = scale * (step * math.sqrt(mechanism.steps_per_round))
        noise = stream.child(block.name).gaussian((block.length,), deviation)
        return (noise + pull * before).astype(np.float32)

    def mean_update(
        self,
        proposal: Proposal,
        plan: RoundPlan,
        block: Block,
        total: NDArray[np.int64],
        before: Vector,
        sites: Sequence[str],
        records: float,
    ) -> Vector:
        """Return the mean over the weights that arrived."""
        weights = plan.weights[block.name]
        return dequantise(
            total,
            bound=proposal.training.update_bound,
            levels=proposal.encryption.levels,
            total_weight=sum(weights[site] for site in sites if site in weights),
        )

    def against(self, colluders: int) -> str:
        """Return everybody."""
        return "everybody, also against orchestrator and keyholder together"

    def who_adds(self, *, min_sites: int, colluders: int) -> str:
        """Return that everybody adds all."""
        return "every hospital adds all of it (local)"

    def sentence(self, colluders: int) -> str:
        """Return that nobody is trusted."""
        return "This hospital adds its full noise to everything it sends, so it need not trust anybody else's noise."


class SharedNoise(NoiseMode):
    """Every site adds a part of the noise; a round is one step of DP-SGD over the union of the hospitals."""

    name: ClassVar[str] = "shared"
    accounted_as: ClassVar[Literal["local", "shared"]] = "shared"
    sites_train: ClassVar[bool] = False
    covers_single_updates: ClassVar[bool] = False
    needs_privacy: ClassVar[bool] = True
    weighing: ClassVar[str] = "With shared noise every hospital has the same weight."
    weaker_at_servers: ClassVar[str] = "only this hospital's share of the noise protects: weaker than ε"
    weaker_at_hospitals: ClassVar[str] = "two hospitals' shares of the noise: weaker than ε"

    def steps_per_round(self, wanted: int) -> int:
        """Return one: only the sum carries the noise of a step."""
        return 1

    def charged_size(self, *, sites: int, min_sites: int, parameters: int) -> tuple[int, int]:
        """Return the size itself, which enters delta; the mechanism refuses what has no proof."""
        return sites, parameters

    def usual_min_sites(self, sites: int) -> int:
        """Return all but one: every missing share is charged for."""
        return max(3, sites - 1)

    def update_bound(
        self,
        mechanism: Mechanism,
        *,
        learning_rate: float,
        patients: Sequence[int],
        training_share: float,
    ) -> float:
        """Return a box that holds the largest site's clipped gradient sum."""
        return float(f"{0.1 * mechanism.max_grad_norm * mechanism.sampling_rate * max(patients):.6g}")

    def contributes(self, modality: str | None, held: Collection[str]) -> bool:
        """Return True: every site sends every block, so that all shares are in the sum."""
        return True

    def weights(self, raw: Mapping[str, float], *, min_sites: int) -> dict[str, float]:
        """Return 1 for everybody: a weight would weigh the shares of the noise as well."""
        return dict.fromkeys(raw, 1.0)

    def check_weights(self, weights: Mapping[str, float]) -> None:
        """Refuse unequal weights.

        Raises:
            Refused: a weight other than 1.
        """
        if set(weights.values()) != {1.0}:
            raise Refused("under shared noise every weight is 1")

    def share(self, proposal: Proposal, block: Block, gradient_sum: NDArray[np.floating], stream: Randomness) -> Vector:
        """Return the sum with this site's share of the noise, as integers in float32; zeros give a share alone."""
        share = encode(
            gradient_sum.astype(np.float64, copy=False), encoding_of(proposal), stream.child(f"share of {block.name}")
        )
        return share.astype(np.float32)

    def check_vector(self, proposal: Proposal, values: Vector) -> None:
        """Refuse what is no integer within the encoding's levels.

        Raises:
            InvalidInput: a value is no integer or too large.
        """
        integers = np.rint(values)
        if not np.array_equal(integers, values) or int(np.abs(integers).max(initial=0)) > encoding_of(proposal).levels:
            raise InvalidInput("expected integers within the encoding's levels from the worker")

    def integers(
        self,
        proposal: Proposal,
        block: Block,
        values: Vector,
        weight: float,
        stream: Randomness,
    ) -> NDArray[np.int64]:
        """Return the worker's integers, checked."""
        self.check_vector(proposal, values)
        return np.rint(values).astype(np.int64)

    def without_data(
        self,
        proposal: Proposal,
        plan: RoundPlan,
        block: Block,
        before: Vector,
        records: float,
        stream: Randomness,
    ) -> Vector:
        """Return a share of the noise around zero."""
        return self.share(proposal, block, np.zeros(block.length), stream)

    def mean_update(
        self,
        proposal: Proposal,
        plan: RoundPlan,
        block: Block,
        total: NDArray[np.int64],
        before: Vector,
        sites: Sequence[str],
        records: float,
    ) -> Vector:
        """Return one step of gradient descent with weight decay, from the noised gradient sum."""
        gradient = mean_gradient(
            total,
            encoding_of(proposal),
            sampling_rate=proposal.mechanism.sampling_rate,
            expected_records=records,
        )
        gradient = gradient + proposal.training.weight_decay * before
        scale = plan.scales.get(block.name, 1.0)
        return (-proposal.training.learning_rate * scale * gradient).astype(np.float32)

    def against(self, colluders: int) -> str:
        """Return everybody, within what is assumed."""
        hospitals = "one other hospital" if colluders == 1 else f"{colluders} other hospitals"
        return f"everybody, also against the orchestrator working with {hospitals}"

    def who_adds(self, *, min_sites: int, colluders: int) -> str:
        """Return that everybody adds a part, and what is assumed."""
        return f"every hospital adds a share (shared; at least {min_sites} in a sum, {colluders} may collude)"

    def sentence(self, colluders: int) -> str:
        """Return that everybody adds a part, and whom the cost counts on."""
        return (
            f"The noise is shared: each hospital adds a part. The cost below counts the orchestrator and "
            f"{colluders} dishonest hospital{'' if colluders == 1 else 's'} working together."
        )


def encoding_of(proposal: Proposal) -> SharedEncoding:
    """Return the public constants of shared noise that a proposal fixes, the same everywhere.

    Raises:
        Refused, InvalidInput: no encoding fits the proposal's levels and box.
    """
    return choose_encoding(
        proposal.mechanism,
        values=sum(block.length for block in proposal.exchanged_blocks()),
        bound=proposal.training.update_bound,
        levels=proposal.encryption.levels,
    )
