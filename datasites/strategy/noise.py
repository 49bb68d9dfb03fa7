"""Who adds the noise, and everything that follows from it: the Protocol of a noise mode.

There are two, :mod:`datasites.strategy.local_noise` and :mod:`datasites.strategy.shared_noise`. What is charged for a
third one must be a mechanism of :mod:`privacy.dp.mechanism`, for which there are proofs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness

if TYPE_CHECKING:
    from datasites.study.messages import RoundPlan
    from datasites.study.proposal import Block, Proposal

Vector = NDArray[np.float32]
MOST_LEVELS = 1 << 22
"""No study asks for more levels of a site's integers."""


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

    @abstractmethod
    def steps_per_round(self, wanted: int) -> int:
        """Return how many noised steps a round has when ``wanted`` are asked for."""

    @abstractmethod
    def charged_size(self, *, sites: int, min_sites: int, parameters: int) -> tuple[int, int]:
        """Return the mechanism's ``max_sites`` and ``max_parameters`` for a study of this size."""

    @abstractmethod
    def usual_min_sites(self, sites: int) -> int:
        """Return the fewest sites in a sum that a demonstration with ``sites`` asks for."""

    @abstractmethod
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

    @abstractmethod
    def least_levels(self, mechanism: Mechanism, *, bound: float, values: int, counts: bool) -> int:
        """Return the fewest levels of a site's integers that the public box and the noise need.

        Args:
            mechanism: calibrated.
            bound: the half-width of the public box.
            values: how many values an update has.
            counts: whether the study counts. An update of training lies within a few steps of its noise; a count may be
                thousands of deviations large.

        Raises:
            InvalidInput: no number of levels holds so many patients at so little noise.
        """

    @abstractmethod
    def honest_sites(self, mechanism: Mechanism) -> int:
        """Return of how many sites' noise the charge is made up: what none of the colluders knows."""

    # what a round allows ---------------------------------------------------------------------------------------

    @abstractmethod
    def contributes(self, modality: str | None, held: Collection[str]) -> bool:
        """Return whether a site that holds the modalities ``held`` sends a block of ``modality`` (None: of all)."""

    @abstractmethod
    def weights(self, raw: Mapping[str, float], *, min_sites: int) -> dict[str, float]:
        """Return a block's weights in [1/4, 1] from a rule's raw ones."""

    @abstractmethod
    def check_weights(self, weights: Mapping[str, float]) -> None:
        """Refuse weights that this noise does not allow beyond the bounds that always hold.

        Raises:
            Refused: they are not allowed.
        """

    # what travels ----------------------------------------------------------------------------------------------

    @abstractmethod
    def share(self, proposal: Proposal, block: Block, gradient_sum: NDArray[np.floating], stream: Randomness) -> Vector:
        """Return what a site that takes no steps sends of one block, from its clipped gradient sum float64 [n]."""

    @abstractmethod
    def check_vector(self, proposal: Proposal, values: Vector) -> None:
        """Refuse a worker's vector that this mode cannot send.

        Raises:
            InvalidInput: it cannot.
        """

    @abstractmethod
    def integers(
        self, proposal: Proposal, block: Block, values: Vector, weight: float, stream: Randomness
    ) -> NDArray[np.int64]:
        """Return the integers that are encrypted: int64 [n] within the packing's levels, weighted."""

    @abstractmethod
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

    @abstractmethod
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

    @abstractmethod
    def against(self, colluders: int) -> str:
        """Return against whom the charged epsilon holds."""

    @abstractmethod
    def who_adds(self, *, min_sites: int, colluders: int) -> str:
        """Return who adds how much, for a table."""

    @abstractmethod
    def sentence(self, colluders: int) -> str:
        """Return who adds the noise and whom the cost counts on, for the people who decide."""
