"""Tables on disk as data frames, for `tessera predict`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from datasites.node.files import write_atomically
from privacy.errors import InvalidInput
from tessera.trained.frames import ID, Frames

_READ = (".csv", ".tsv", ".parquet")
_WRITTEN = (".csv", ".parquet")


def read_frames(tables: Sequence[str]) -> Frames:
    """Return one table, or the tables by modality, from ``FILE`` or ``MODALITY=FILE`` each.

    Raises:
        InvalidInput: a file that cannot be read, a modality twice, or several tables without modalities.
    """
    named = [text.partition("=") for text in tables]
    if len(tables) == 1 and not named[0][1]:
        return _read(Path(tables[0]))
    if not tables or not all(sign for _, sign, _ in named):
        raise InvalidInput("expected one table, or MODALITY=FILE for each of several")
    if len({modality for modality, _, _ in named}) < len(named):
        raise InvalidInput("expected one table for each modality, got one twice")
    return {modality: _read(Path(path)) for modality, _, path in named}


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a table with its ids, whole or not at all; the ending says how.

    Raises:
        InvalidInput: another ending than .csv or .parquet.
    """
    if path.suffix not in _WRITTEN:
        raise InvalidInput(f"expected --out to end with {' or '.join(_WRITTEN)}, got {path.name!r}")
    whole = frame.rename_axis(str(frame.index.name or ID)).reset_index()
    target = io.BytesIO()
    if path.suffix == ".csv":
        target.write(whole.to_csv(index=False).encode())
    else:
        whole.to_parquet(target, index=False)
    write_atomically(path, target.getvalue())


def _read(path: Path) -> pd.DataFrame:
    if path.suffix not in _READ:
        raise InvalidInput(f"expected a table that ends with {', '.join(_READ)}, got {path.name!r}")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype={ID: str}, low_memory=False)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"could not read {path.name!r} as a {path.suffix[1:]} table") from error
