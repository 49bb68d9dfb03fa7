"""Slide features in the HDF5 layout of CLAM and TRIDENT, averaged per case.

One file per slide, named by its barcode (``TCGA-BH-A0B3-01Z-00-DX1.<uuid>.h5``): ``features`` float [patches, width]
and ``coords`` int [patches, 2]; a slide encoder's file has ``features`` float [width] and may lack ``coords``. A case's
vector is the mean over its slides of the mean over their patches.
"""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasites.data.convert.barcodes import PRIMARY_TUMOUR, case_of, sample_type
from privacy.errors import InvalidInput

MAX_WIDTH = 8192
_ROWS_AT_ONCE = 65_536
_ENCODER = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")


def read_features(folder: Path, *, encoder: str | None = None) -> pd.DataFrame:
    """Return one row per case, float32, with columns named ``<encoder>:0000`` and so on.

    Args:
        folder: holds the files, at any depth.
        encoder: which network made the features. It stands in the column names, so that features of different
            networks are never taken for one another. Default: what follows ``features_`` in the folder's name.

    Raises:
        InvalidInput: no files, an unknown encoder, or files of different width or another form.
    """
    name = _checked_encoder(encoder if encoder is not None else folder.name.removeprefix("features_").lower())
    slides: dict[str, list[NDArray[np.float32]]] = {}
    for path in sorted(folder.rglob("*.h5")):
        if sample_type(path.name) in (PRIMARY_TUMOUR, None):
            slides.setdefault(case_of(path.name, where=folder.name), []).append(slide_vector(path))
    if not slides:
        raise InvalidInput(f"expected HDF5 files of slides (*.h5) below {folder.name}, found none of a primary tumour")
    widths = {len(vector) for vectors in slides.values() for vector in vectors}
    if len(widths) != 1:
        raise InvalidInput(f"{folder.name}: expected slides of one encoder, found {len(widths)} different widths")
    values = np.stack([np.mean(slides[case], axis=0) for case in sorted(slides)]).astype(np.float32)
    columns = [f"{name}:{i:04d}" for i in range(values.shape[1])]
    return pd.DataFrame(values, index=pd.Index(sorted(slides), name="case_id"), columns=columns)


def slide_vector(path: Path) -> NDArray[np.float32]:
    """Return the mean over the patches of one slide, float32 [width], reading piece by piece.

    Raises:
        InvalidInput: no ``features`` of a known shape, ``coords`` of another length, or a value that is not finite.
    """
    try:
        with h5py.File(path, "r") as file:
            features = file.get("features")
            if not isinstance(features, h5py.Dataset) or features.dtype.kind != "f":
                raise InvalidInput(f"expected a float dataset `features` in every file of {path.parent.name}")
            total, patches = _summed(features)
            coords = file.get("coords")
            if isinstance(coords, h5py.Dataset) and features.ndim > 1 and coords.size != 2 * patches:
                raise InvalidInput(f"{path.parent.name}: expected as many `coords` as `features` in every file")
    except OSError as error:
        raise InvalidInput(f"expected HDF5 files in {path.parent.name}, could not read one") from error
    mean = (total / patches).astype(np.float32)
    if not np.isfinite(mean).all():
        raise InvalidInput(f"{path.parent.name}: expected finite features, found a slide with others")
    return mean


def _summed(features: h5py.Dataset) -> tuple[NDArray[np.float64], int]:
    shape = features.shape
    if features.ndim == 1:
        shape = (1, shape[0])
    elif features.ndim == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or not shape[0] or not 0 < shape[1] <= MAX_WIDTH:
        raise InvalidInput(f"expected `features` of shape [patches, width up to {MAX_WIDTH}], got {features.shape}")
    total = np.zeros(shape[1], dtype=np.float64)
    for start in range(0, shape[0], _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        piece = features[()] if features.ndim == 1 else features[0, rows] if features.ndim == 3 else features[rows]
        total += np.asarray(piece, dtype=np.float64).reshape(-1, shape[1]).sum(axis=0)
    return total, int(shape[0])


def _checked_encoder(name: str) -> str:
    if not _ENCODER.fullmatch(name):
        raise InvalidInput("expected an encoder name of lower-case letters, digits, _ . and -; give --encoder")
    return name
