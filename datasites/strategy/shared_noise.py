"""Shared noise: every site adds a part to its clipped gradient sum, and only the sum over the sites carries the whole.

The encoding and its proof are those of :mod:`privacy.dp.shared_noise` and docs/shared-noise.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from datasites.language import mark, tr, tr_plural
from datasites.strategy.noise import MOST_LEVELS, NoiseMode, Vector
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness
from privacy.dp.shared_noise import SharedEncoding, choose_encoding, encode, mean_gradient
from privacy.errors import InvalidInput, Refused

if TYPE_CHECKING:
    from datasites.study.messages import RoundPlan
    from datasites.study.proposal import Block, Proposal


class SharedNoise(NoiseMode):
    """Every site adds a part of the noise; a round is one step of DP-SGD over the union of the hospitals."""

    name: ClassVar[str] = "shared"
    accounted_as: ClassVar[Literal["local", "shared"]] = "shared"
    sites_train: ClassVar[bool] = False
    covers_single_updates: ClassVar[bool] = False
    needs_privacy: ClassVar[bool] = True
    weighing: ClassVar[str] = mark("With shared noise every hospital has the same weight.")
    weaker_at_servers: ClassVar[str] = mark("only this hospital's share of the noise protects: weaker than ε")
    weaker_at_hospitals: ClassVar[str] = mark("two hospitals' shares of the noise: weaker than ε")

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

    def least_levels(self, mechanism: Mechanism, *, bound: float, values: int, counts: bool) -> int:
        """Return levels that hold a share of at least three steps beside the box, in training and in counts.

        Raises:
            InvalidInput: there are none.
        """
        levels = 64
        while levels <= MOST_LEVELS:
            try:
                return choose_encoding(mechanism, values=values, bound=bound, levels=levels).levels
            except InvalidInput:
                levels *= 2
        raise InvalidInput(
            "these hospitals have more patients than a count with so little noise can carry; ask for less"
        )

    def honest_sites(self, mechanism: Mechanism) -> int:
        """Return the fewest in a sum without the colluders."""
        return mechanism.min_sites - mechanism.colluders

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
        return tr_plural(
            "everybody, also against the orchestrator working with one other hospital",
            "everybody, also against the orchestrator working with {count} other hospitals",
            colluders,
        )

    def who_adds(self, *, min_sites: int, colluders: int) -> str:
        """Return that everybody adds a part, and what is assumed."""
        return tr(
            "every hospital adds a share (shared; at least {least} in a sum, {colluders} may collude)",
            least=min_sites,
            colluders=colluders,
        )

    def sentence(self, colluders: int) -> str:
        """Return that everybody adds a part, and whom the cost counts on."""
        return tr_plural(
            "The noise is shared: each hospital adds a part. The cost below counts the orchestrator and one dishonest "
            "hospital working together.",
            "The noise is shared: each hospital adds a part. The cost below counts the orchestrator and {count} "
            "dishonest hospitals working together.",
            colluders,
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
