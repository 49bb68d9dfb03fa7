"""AnnData files (``.h5ad``): the observations' columns, and the matrix X, in pieces of rows.

Source: anndata documentation, "On-disk format". ``obs`` becomes a table of text; ``X`` a table of numbers with a column
per variable. Sparse matrices must be stored by rows.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from datasites.data.reading.sniffing import what_is
from datasites.data.sources.extraction import MOST_ROWS, Extraction
from privacy.errors import InvalidInput

_MOST_COLUMNS = 100_000
_AT_ONCE = 512


def extract_h5ad(path: Path, made: Extraction) -> None:
    """Read one file: tables ``obs`` and ``x``, both with the index of the observations as ``obs_id``.

    Raises:
        InvalidInput: no such file, another layout, or a matrix of another shape than its names say.
    """
    if not path.is_file():
        raise InvalidInput(f"expected an .h5ad file at {path.name}")
    try:
        with h5py.File(path, "r") as file:
            obs, var, matrix = file.get("obs"), file.get("var"), file.get("X")
            if not isinstance(obs, h5py.Group) or not isinstance(var, h5py.Group) or matrix is None:
                raise InvalidInput(f"{path.name}: expected the groups obs and var and a matrix X")
            ids, names = _index(obs, path), _index(var, path)
            if len(ids) > MOST_ROWS or len(names) > _MOST_COLUMNS or len(set(names)) < len(names):
                raise InvalidInput(f"{path.name}: expected at most {_MOST_COLUMNS} variables, each name once")
            _observations(obs, ids, made)
            _matrix(matrix, ids, names, made, path)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InvalidInput(f"{path.name}: expected an .h5ad file, found {what_is(path)}; it may be cut off") from error


def _index(group: h5py.Group, path: Path) -> list[str]:
    name = group.attrs.get("_index", "_index")
    values = group[name.decode() if isinstance(name, bytes) else str(name)]
    if not isinstance(values, h5py.Dataset) or values.ndim != 1:
        raise InvalidInput(f"{path.name}: expected an index of names in {group.name}")
    return _texts(values[()])


def _texts(values: np.ndarray) -> list[str]:
    found = []
    for value in values.tolist():
        text = value.decode() if isinstance(value, bytes) else value
        found.append(f"{text:.15g}" if isinstance(text, float) else "" if text is None else str(text))
    return ["" if text == "nan" else text for text in found]


def _observations(obs: h5py.Group, ids: list[str], made: Extraction) -> None:
    index = str(obs.attrs.get("_index", "_index"))
    columns: dict[str, list[str]] = {}
    for name in obs:
        item = obs[name]
        if name in (index, "__categories"):
            continue
        if isinstance(item, h5py.Dataset) and item.shape == (len(ids),):
            columns[name] = _texts(item[()])
        elif isinstance(item, h5py.Group) and {"codes", "categories"} <= set(item):
            words, codes = _texts(item["categories"][()]), item["codes"][()]
            columns[name] = ["" if code < 0 else words[code] for code in codes.tolist()]
        else:
            made.passed_over[f"column {name[:40]} of obs, of another kind"] += 1
    for row, identity in enumerate(ids):
        made.add("obs", {"obs_id": identity, **{name: values[row] for name, values in columns.items()}})


def _matrix(matrix: object, ids: list[str], names: list[str], made: Extraction, path: Path) -> None:
    for start in range(0, len(ids), _AT_ONCE):
        piece = _rows(matrix, start, min(start + _AT_ONCE, len(ids)), len(names), path)
        if piece.shape[1] != len(names):
            raise InvalidInput(f"{path.name}: X has {piece.shape[1]} columns for {len(names)} names")
        for offset, values in enumerate(piece.tolist()):
            texts = ("" if value != value else f"{value:.9g}" for value in values)  # NaN is missing
            made.add("x", {"obs_id": ids[start + offset], **dict(zip(names, texts, strict=True))})


def _rows(matrix: object, start: int, end: int, width: int, path: Path) -> np.ndarray:
    if isinstance(matrix, h5py.Dataset) and matrix.ndim == 2:
        return np.asarray(matrix[start:end], dtype=np.float64)
    if isinstance(matrix, h5py.Group) and str(matrix.attrs.get("encoding-type")) == "csr_matrix":
        pointers = matrix["indptr"][start : end + 1]
        first, last = int(pointers[0]), int(pointers[-1])
        data, places = matrix["data"][first:last], matrix["indices"][first:last]
        found = np.zeros((end - start, width))
        rows = np.repeat(np.arange(end - start), np.diff(pointers))
        found[rows, places] = data
        return found
    raise InvalidInput(f"{path.name}: expected X as a matrix, or sparse by rows (csr_matrix)")
