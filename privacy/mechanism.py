"""One frozen value per study that both runs and is charged (first shape; the privacy engine fills it)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """Poisson-subsampled Gaussian DP-SGD and the other releases of a study."""

    max_grad_norm: float
    noise_multiplier: float
    sampling_rate: float
    steps_per_round: int
    rounds: int
    target_delta: float
