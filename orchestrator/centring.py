"""From the sum of a centring round to the feature means of the next model; everything here is public.

The round itself is any other round: :mod:`models.centring` has the loss, :mod:`datasites.centring` says when. Its mean
update of a modality's block is ``length * unit`` times the mean of the scaled, clipped inputs. The server's optimiser
has no part in it, and the weights stay at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from datasites.contract import Block
from models.config import CENTRES

Arrays = dict[str, np.ndarray]


def with_centres(
    model: Mapping[str, np.ndarray], blocks: Sequence[Block], updates: Mapping[str, np.ndarray], size: float
) -> Arrays:
    """Return the model with its centres written from the mean updates of a centring round.

    Args:
        model: parameter name to float32 array, with one ``centres.MODALITY`` for each modality.
        blocks: the exchanged blocks; those of a modality hold its weights and nothing else.
        updates: block name to mean update, float32 [features].
        size: the update per unit of a mean input: the step's length times the loss's unit.
    """
    result = {name: np.array(value, np.float32) for name, value in model.items()}
    for block in blocks:
        if block.modality is not None:
            result[CENTRES + block.modality] = (updates[block.name] / np.float32(size)).astype(np.float32)
    return result
