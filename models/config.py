"""The frozen description of a model: modalities, architecture, sizes. Importing it does not import torch.

>>> config = ModelConfig(architecture="linear", features={"mrna": 976, "clinical": 17},
    ...                      cohorts=("BRCA",), classes=2)
>>> config.modalities
('mrna', 'clinical')
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from models.counting import Counting
from models.targets import QUANTITY_CELLS, InvalidModel, Target

__all__ = ["InvalidModel", "ModelConfig", "Target"]

Architecture = Literal["linear", "mlp", "mlp-auxiliary", "convolutional", "counts"]
Heads = Literal["shared", "combination"]

_FIRST: Mapping[str, float] = {"mrna": 1.2, "image": 0.75, "clinical": 2.3}
"""The modalities of the first studies: their models keep the order and the gains with which they were approved."""

_MODALITY = re.compile(r"[a-z][a-z0-9-]{0,39}")
RESERVED = frozenset({"presence", "cohort", "label"})
"""What a batch holds besides modalities; no modality has such a name."""


def in_order(modalities: Iterable[str]) -> tuple[str, ...]:
    """Return modalities in the order of a model's blocks and of the columns of ``presence``: by name.

    Those of the first studies come first, as they always stood:

    >>> in_order(["mutations", "clinical", "copy-number", "mrna"])
    ('mrna', 'clinical', 'copy-number', 'mutations')
    """
    given = set(modalities)
    return (*(m for m in _FIRST if m in given), *sorted(given - set(_FIRST)))


def check_modality(name: str) -> None:
    """Check the name of a modality, which becomes the name of a file, a block and a parameter.

    Raises:
        InvalidModel: anything but small letters, digits and dashes (at most 40), or a reserved name.
    """
    if not _MODALITY.fullmatch(name) or name in RESERVED:
        raise InvalidModel(f"expected a modality's name of small letters, digits and dashes, got {name[:40]!r}")


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
    the cohort indicator, ``classes`` is the number of classes told apart (2, or 3 for the ordinal task); it is 0 where
    ``predicts`` says that the outcome is a number or survival. Without ``predicts`` the classes have an order.

    ``class_weights`` (one per class, public; empty means all 1) multiply a record's loss by its class;
    ``heads`` says how the MLP fuses: one shared additive head over masked embeddings, or one head per modality
    combination; ``missing_tokens`` replaces an absent modality's zeros by a learned vector; ``modality_dropout`` is the
    probability with which training leaves out a modality that a record has, never its last one; ``auxiliary`` is the
    weight of the unimodal losses of ``mlp-auxiliary``; ``side`` is the edge length of the tissue maps that
    ``convolutional`` expects as its image input (side x side x 3 values).

    ``centred`` (linear only) subtracts feature means from the inputs; the first round of a study releases them in place
    of a gradient (:mod:`models.losses`). ``standardised`` names the modalities of a centred model whose features
    have no public scale: the second round releases their means more finely and the third their spreads, by which
    the inputs are then divided. ``shrunk`` pulls released means towards zero where their noise is larger than they
    are; ``public_centres`` takes means as constants of the initial model instead, from public tables
    (:mod:`datasites.study.schema.public_constants`) or as the study that this one continues released them, and no round
    releases any. ``cohort_gain`` (linear only, above 0)
    multiplies the cohort indicator: with 1 the bias alone has the norm of a whole record's inputs and takes half of
    the clipping norm.

    ``self_scaled`` names the modalities of which hospitals scaled their values by statistics of their own patients: one
    patient then moves everybody's inputs, and no epsilon can be stated.

    ``gains`` (above 0) are public factors by modality: the inputs are multiplied by gain / sqrt(features), so that a
    record's inputs have a norm near 1 in every modality, one learning rate suits all and none eats the clipping norm.

    ``counting`` goes with the architecture ``counts`` and says what is counted (:mod:`models.counting`).
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
    gains: Mapping[str, float] = field(default_factory=dict)
    predicts: Target | None = None
    self_scaled: tuple[str, ...] = ()
    shrunk: bool = False
    public_centres: bool = False
    counting: Counting | None = None
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "strict": True}  # as part of a proposal

    def is_centre(self, parameter: str) -> bool:
        """Return whether ``parameter`` is a public feature mean or spread; the server writes it, no site trains it."""
        return self.centred and parameter.startswith((CENTRES, SPREADS))

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities this model takes, in their order (:func:`in_order`)."""
        return in_order(self.features)

    @property
    def outputs(self) -> int:
        """How many numbers the model gives for one record."""
        if self.predicts is None:
            return self.classes - 1
        if self.predicts.kind == "categorical":
            return self.classes
        return len(self.predicts.edges) or 1

    @property
    def scores(self) -> int:
        """How many scores of one record the private evaluation counts (:func:`models.losses.scores`)."""
        if self.predicts is None or self.predicts.kind == "categorical":
            return self.outputs
        return 2 if self.predicts.is_quantity else 1 + len(self.predicts.horizons)

    @property
    def cells(self) -> int:
        """How many groups of outcomes the private evaluation keeps apart (:func:`models.losses.cells`)."""
        if self.predicts is None or self.predicts.kind == "categorical":
            return self.classes
        return QUANTITY_CELLS if self.predicts.is_quantity else 2 * len(self.predicts.horizons) + 1

    def gain(self, modality: str) -> float:
        """Return the public factor of a modality's inputs before they are divided by the root of their number."""
        return self.gains.get(modality, _FIRST.get(modality, 1.0))
