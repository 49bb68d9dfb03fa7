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

from datasites.data.convert.barcodes import PRIMARY_TUMOURS, case_of, sample_type
from datasites.data.reading.sniffing import what_is
from privacy.errors import InvalidInput

MAX_WIDTH = 8192
_ROWS_AT_ONCE = 65_536
_NAMED = 5
_UNFINISHED = (".part", ".partial", ".crdownload", ".tmp", ".download")
_ENCODER = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")


def read_features(
    folder: Path, *, encoder: str | None = None, partial: bool = False, notes: list[str] | None = None
) -> pd.DataFrame:
    """Return one row per case, float32, with columns named ``<encoder>:0000`` and so on.

    Args:
        folder: holds the files, at any depth.
        encoder: which network made the features. It stands in the column names, so that features of different
            networks are never taken for one another. Default: what follows ``features_`` in the folder's name.
        partial: go on without files that cannot be read or are unfinished.
        notes: gets a line for everything that was left out.

    Raises:
        InvalidInput: no files, an unknown encoder, files of different width, or (unless ``partial``) a broken one.
    """
    name = _checked_encoder(encoder if encoder is not None else folder.name.removeprefix("features_").lower())
    told = [] if notes is None else notes
    problems = _unread(folder, told)
    slides: dict[str, list[NDArray[np.float32]]] = {}
    others, broken = 0, []
    for path in _slides(folder):
        if sample_type(path.name) not in (*PRIMARY_TUMOURS, None):
            others += 1
            continue
        case = case_of(path.name, where=folder.name)
        try:
            slides.setdefault(case, []).append(slide_vector(path))
        except InvalidInput as error:
            broken.append(str(error))
    if others:
        told.append(f"{folder.name}: {others} slides are of no primary tumour and are left out")
    if broken:
        more = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        problems.append(f"{len(broken)} slides cannot be used: {'; '.join(broken[:_NAMED])}{more}")
    if problems and not partial:
        raise InvalidInput(f"{folder.name}: {'; '.join(problems)}; or go on without them by --partial")
    told += problems
    slides = {case: vectors for case, vectors in slides.items() if vectors}
    if not slides:
        raise InvalidInput(f"expected HDF5 files of slides (*.h5) below {folder.name}, found none of a primary tumour")
    widths = {len(vector) for vectors in slides.values() for vector in vectors}
    if len(widths) != 1:
        raise InvalidInput(f"{folder.name}: expected slides of one encoder, found {len(widths)} different widths")
    values = np.stack([np.mean(slides[case], axis=0) for case in sorted(slides)]).astype(np.float32)
    columns = [f"{name}:{i:04d}" for i in range(values.shape[1])]
    return pd.DataFrame(values, index=pd.Index(sorted(slides), name="case_id"), columns=columns)


def _slides(folder: Path) -> list[Path]:
    found = [path for pattern in ("*.h5", "*.hdf5") for path in folder.rglob(pattern)]
    return sorted(path for path in found if not path.name.startswith("."))


def _unread(folder: Path, notes: list[str]) -> list[str]:
    """Return what stands against going on, and note the files that are no slides."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    half = [path for path in files if path.name.lower().endswith(_UNFINISHED)]
    slides = set(_slides(folder))
    rest = [path for path in files if path not in slides and path not in half and not path.name.startswith(".")]
    if rest:
        kinds = ", ".join(sorted({path.suffix or path.name for path in rest})[:_NAMED])
        notes.append(f"{folder.name}: {len(rest)} files are no HDF5 files of slides ({kinds}) and are not read")
    return [f"{len(half)} downloads are unfinished; finish or remove them"] if half else []


def slide_vector(path: Path) -> NDArray[np.float32]:
    """Return the mean over the patches of one slide, float32 [width], reading piece by piece.

    Raises:
        InvalidInput: no ``features`` of a known shape, ``coords`` of another length, or a value that is not finite.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        with h5py.File(path, "r") as file:
            features = file.get("features")
            if not isinstance(features, h5py.Dataset) or features.dtype.kind != "f":
                raise InvalidInput(f"{where}: expected a float dataset `features`")
            total, patches = _summed(features, where)
            coords = file.get("coords")
            if isinstance(coords, h5py.Dataset) and features.ndim > 1 and coords.size != 2 * patches:
                raise InvalidInput(f"{where}: expected as many `coords` as `features`")
    except OSError as error:
        raise InvalidInput(f"{where}: expected an HDF5 file, found {what_is(path)}; it may be cut off") from error
    mean = (total / patches).astype(np.float32)
    if not np.isfinite(mean).all():
        raise InvalidInput(f"{where}: expected finite features, found others")
    return mean


def _summed(features: h5py.Dataset, where: str) -> tuple[NDArray[np.float64], int]:
    shape = features.shape
    if features.ndim == 1:
        shape = (1, shape[0])
    elif features.ndim == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or not shape[0] or not 0 < shape[1] <= MAX_WIDTH:
        raise InvalidInput(
            f"{where}: expected `features` of shape [patches, width up to {MAX_WIDTH}], got {features.shape}"
        )
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
