"""The frozen description of a model; importing it does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Architecture = Literal["linear", "mlp", "mlp-auxiliary", "convolutional"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One staging model.

    ``features`` maps each modality to its number of input features, ``cohorts`` names the cancers in the order of
    the cohort indicator, ``classes`` is the number of stages told apart (2, or 3 for the ordinal task).
    """

    architecture: Architecture
    features: Mapping[str, int]
    cohorts: tuple[str, ...]
    classes: int
    embedding: int = 16
    hidden: int = 64
