"""Local noise: every site adds all of the noise that is charged to its own update."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from datasites.language import tr
from datasites.strategy.noise import MOST_LEVELS, NoiseMode, Vector
from datasites.strategy.weights import bounded
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness
from privacy.encryption.packing import dequantise, quantise
from privacy.errors import Refused

if TYPE_CHECKING:
    from datasites.study.messages import RoundPlan
    from datasites.study.proposal import Block, Proposal

_MOST_PARAMETERS, _MOST_SITES = 65_536, 64
"""The mechanism takes no more of either; the guarantee of local noise depends on neither."""
_STEPS_PER_DEVIATION = 4.0


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
        """Return the size, cut to what the mechanism takes."""
        return max(min_sites, min(sites, _MOST_SITES)), min(parameters, _MOST_PARAMETERS)

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

    def least_levels(self, mechanism: Mechanism, *, bound: float, values: int, counts: bool) -> int:
        """Return one in training; a count wants a few steps to a deviation of its noise."""
        if not counts:
            return 1
        deviation = mechanism.share_deviation
        wanted = _STEPS_PER_DEVIATION * bound / deviation if deviation > 0 else bound
        return min(MOST_LEVELS, max(512, 1 << math.ceil(math.log2(max(1.0, wanted)))))

    def honest_sites(self, mechanism: Mechanism) -> int:
        """Return one: each site adds all of it."""
        return 1

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
        return tr("everybody, also against orchestrator and keyholder together")

    def who_adds(self, *, min_sites: int, colluders: int) -> str:
        """Return that everybody adds all."""
        return tr("every hospital adds all of it (local)")

    def sentence(self, colluders: int) -> str:
        """Return that nobody is trusted."""
        return tr(
            "This hospital adds its full noise to everything it sends, so it need not trust anybody else's noise."
        )
