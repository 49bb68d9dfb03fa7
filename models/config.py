"""The frozen description of a model: modalities, architecture, sizes. Importing it does not import torch.

>>> config = ModelConfig(architecture="linear", features={"mrna": 976, "clinical": 17},
    ...                      cohorts=("BRCA",), classes=2)
>>> config.modalities
('mrna', 'clinical')
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal


class InvalidModel(ValueError):
    """A configuration describes no model, or bytes and values do not fit the model they are meant for."""


Architecture = Literal["linear", "mlp", "mlp-auxiliary", "convolutional"]
Heads = Literal["shared", "combination"]

MODALITIES: tuple[str, ...] = ("mrna", "image", "clinical")
"""The order of the columns of ``presence`` and of the blocks of every model."""

INPUT_GAINS: Mapping[str, float] = {"mrna": 1.2, "image": 0.75, "clinical": 2.3}
"""The linear model multiplies a modality's inputs by gain / sqrt(features): a record's inputs then have a norm near 1
in every modality, so that one learning rate suits all and none eats the clipping budget."""

CENTRES = "centres."
"""How the names of a centred model's feature means begin: public constants that travel with the parameters."""

SPREADS = "spreads."
"""How the names of a standardised model's feature spreads begin; they travel as the means do."""

CENTRING_NORM = 2.0
"""Public bound of the L2 norm of one record's scaled inputs, all modalities together, in the release of their means."""


REFINING_NORM = 0.5
"""The same bound where means of features of unknown scale are released a second time, around the first ones."""

USUAL_SPREAD = 0.2
"""What the spread of a feature of unknown scale is taken for, in the release of spreads: a record whose features all
lie one such spread from their mean has norm 1 there."""


def centring_unit(max_grad_norm: float, norm: float = CENTRING_NORM) -> float:
    """Return the factor on the inputs with which clipping at ``max_grad_norm`` clips them at ``norm``."""
    return max_grad_norm / norm


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One staging model.

    ``features`` maps each modality to its number of input features, ``cohorts`` names the cancers in the order of
    the cohort indicator, ``classes`` is the number of stages told apart (2, or 3 for the ordinal task).

    ``class_weights`` (one per class, public; empty means all 1) multiply a record's loss by its class;
    ``heads`` says how the MLP fuses: one shared additive head over masked embeddings, or one head per modality
    combination; ``missing_tokens`` replaces an absent modality's zeros by a learned vector; ``modality_dropout`` is the
    probability with which training leaves out a modality that a record has, never its last one; ``auxiliary`` is the
    weight of the unimodal losses of ``mlp-auxiliary``; ``side`` is the edge length of the tissue maps that
    ``convolutional`` expects as its image input (side x side x 3 values).

    ``centred`` (linear only) subtracts feature means from the inputs; the first round of a study releases them in
    place of a gradient (:mod:`models.losses`). ``standardised`` names the modalities of a centred model whose features
    have no public scale: the second round releases their means more finely and the third their spreads, by which the
    inputs are then divided. ``cohort_gain`` (linear only, above 0) multiplies the cohort
    indicator: with 1 the bias alone has the norm of a whole record's inputs and takes half of the clipping norm.
    """

    architecture: Architecture
    features: Mapping[str, int]
    cohorts: tuple[str, ...]
    classes: int
    embedding: int = 16
    hidden: int = 64
    class_weights: tuple[float, ...] = ()
    heads: Heads = "shared"
    missing_tokens: bool = False
    modality_dropout: float = 0.0
    auxiliary: float = 2.0
    side: int = 64
    centred: bool = False
    cohort_gain: float = 1.0
    standardised: tuple[str, ...] = ()
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "strict": True}  # as part of a proposal

    def is_centre(self, parameter: str) -> bool:
        """Return whether ``parameter`` is a public feature mean or spread; the server writes it, no site trains it."""
        return self.centred and parameter.startswith((CENTRES, SPREADS))

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities this model takes, in the order of :data:`MODALITIES`."""
        return tuple(m for m in MODALITIES if m in self.features)
