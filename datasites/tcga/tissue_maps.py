"""Tissue maps: small images of lymphocytes, cancer and tissue on a slide, one per case, for the convolutional encoder.

``image_tilmap64.npz`` holds ``case_id`` [n] and ``maps`` uint8 [n, side, side, 3]. A map becomes one row of
``side * side * 3`` values from 0 to 1, by the public constant 255 and nothing else.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from privacy.errors import InvalidInput

MAPS_FILE = "image_tilmap64.npz"
MAP_FEATURE = "map:"
SIDE, CHANNELS = 64, 3


def map_features(side: int = SIDE) -> list[str]:
    """Return the names of a map's values: ``map:row.column.channel``, channels last."""
    places = range(side)
    return [f"{MAP_FEATURE}{row}.{column}.{c}" for row in places for column in places for c in range(CHANNELS)]


def read_maps(path: Path) -> pd.DataFrame:
    """Read maps as a table of float32 in 0..1, indexed by ``case_id``.

    Raises:
        InvalidInput: not such a file, another shape or type, or a case twice.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        with path.open("rb") as source, np.load(source, allow_pickle=False) as file:
            cases, maps = file["case_id"], file["maps"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{where}: expected an .npz of case_id and maps, could not read it as one") from error
    if maps.dtype != np.uint8 or maps.ndim != 4 or maps.shape[1:] != (SIDE, SIDE, CHANNELS) or len(cases) != len(maps):
        raise InvalidInput(f"{where}: expected maps uint8 [n, {SIDE}, {SIDE}, {CHANNELS}], one for each case_id")
    if len(set(cases.tolist())) < len(cases):
        raise InvalidInput(f"{where}: expected every case once; merge or drop the repeated ones")
    values: NDArray[np.float32] = maps.reshape(len(maps), -1).astype(np.float32) / np.float32(255)
    index = pd.Index([str(case) for case in cases], name="case_id")
    return pd.DataFrame(values, index=index, columns=map_features()).sort_index()
