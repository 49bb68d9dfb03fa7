"""What a study may take from public tables: the inputs' means, and weights to begin with, as constants of its proposal.

At a small epsilon the noise on released means is larger than the means. Tables that anybody may have, of other cancers
say, give means and weights without noise and without a charge. The initial model holds them, the proposal binds its
hash, and every hospital checks before it reads a record that they are those, and not too large.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from datasites.study.signing import Message
from datasites.study.text import check_prose
from models.config import CENTRES, CENTRING_NORM
from privacy.errors import InvalidInput, Refused

MOST_CENTRE = 2.0 * CENTRING_NORM
"""Largest L2 norm of one modality's public means, of scaled inputs: twice what a released mean can have."""

MOST_WEIGHT = 3.0
"""Largest L2 norm of all public weights. A record's scaled inputs have a norm near 1 in every modality, so nobody's
prediction is so sure from the start that her gradient vanishes: at a norm of 2, no less than 1 part in 400 is left."""

_HASH = re.compile("[0-9a-f]{64}")
_BEYOND = 1e-4


@dataclass(frozen=True, kw_only=True)
class PublicConstants(Message):
    """Where the constants of an initial model come from, as the scientist states it and people read it.

    ``source`` names the tables in words. ``tables_hash`` is the SHA-256 over them, ``constants_hash`` that of the file
    that ``tessera constants make`` wrote: whoever has the tables makes it again and compares. ``patients`` is how many
    the tables hold; ``weights`` says whether weights were fitted on them, besides means.
    """

    source: str
    tables_hash: str
    constants_hash: str
    patients: int
    weights: bool

    def __post_init__(self) -> None:
        check_prose(self.source, "the source of public constants")
        if not _HASH.fullmatch(self.tables_hash) or not _HASH.fullmatch(self.constants_hash) or self.patients < 1:
            raise InvalidInput("expected the SHA-256 of the public tables and of the constants, and their patients")


def check_constants(model: Mapping[str, np.ndarray], constants: PublicConstants) -> None:
    """Check that a model holds public constants and nothing else, within the bounds.

    Args:
        model: the initial model, parameter name to float32 array, of an approved layout.
        constants: what the proposal says of it.

    Raises:
        Refused: means or weights too large, weights where none are said, or another parameter that is not zero.
    """
    weights = 0.0
    for name, values in model.items():
        size = float(np.square(values.astype(np.float64)).sum())
        if not np.isfinite(size):
            raise Refused("the initial model has values that are not finite; no record is read for it")
        if name.startswith(CENTRES):
            if size > (MOST_CENTRE + _BEYOND) ** 2:
                raise Refused(f"the public means of {name.removeprefix(CENTRES)} are larger than {MOST_CENTRE:g}")
        elif name.startswith("branches."):
            weights += size
        elif size:
            raise Refused(f"the initial model's {name} is not zero: it is no constant of public tables")
    if weights > (MOST_WEIGHT + _BEYOND) ** 2 if constants.weights else weights:
        raise Refused(
            f"expected public weights of a norm of at most {MOST_WEIGHT if constants.weights else 0:g}, got "
            f"{weights**0.5:.3g}; no record is read for this model"
        )
