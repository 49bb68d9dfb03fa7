"""What is missing in a dataset, by modality and variable: exact numbers, for the hospital's own people only.

They are counted in the private part and stand beside it in ``missing.json``. They are never published, charged or
reported: a page of the portal shows them to those who sign in there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from datasites.data.dataset import Schema
from datasites.data.part_files import Sliced, blocks
from datasites.node.files import write_atomically
from datasites.study.signing import Message, dump, parse
from privacy.errors import InvalidInput
from privacy.sentences import say

MISSING = "missing.json"
_INDICATOR = ":missing"


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Of one modality: how many of the dataset's patients have it, and how many of these lack each variable.

    ``variables`` is empty where a missing value was written as zero and cannot be told from one any more.
    """

    modality: str
    patients: int
    of: int
    variables: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Changes(Message):
    """How many patients a new version adds, changes, withdraws and keeps, compared with version ``since``."""

    since: int
    added: int
    changed: int
    withdrawn: int
    same: int


@dataclass(frozen=True, kw_only=True)
class Whole:
    """What is missing of a dataset version, and how it differs from the version before, if there was one."""

    modalities: tuple[Missing, ...]
    changes: Changes | None = None


def count(modality: str, names: Sequence[str], values: Sliced, *, of: int) -> Missing:
    """Return what is missing of one modality.

    Args:
        modality: its name.
        names: of its variables.
        values: [patients who have it, variables], NaN where one is missing.
        of: how many patients the dataset has.
    """
    absent = np.zeros(len(names), dtype=int)
    for _, block in blocks(values):
        absent += np.isnan(block).sum(axis=0)
    variables = tuple(zip(names, map(int, absent), strict=True)) if values.shape[0] else ()
    return Missing(modality=modality, patients=values.shape[0], of=of, variables=variables)


def write_missing(folder: Path, modalities: Sequence[Missing]) -> None:
    """Keep what is missing beside the dataset in ``folder``."""
    _write(folder, Whole(modalities=tuple(modalities)))


def write_changes(folder: Path, changes: Changes) -> Changes:
    """Keep how this version differs from the one before, beside what is missing; return it."""
    _write(folder, Whole(modalities=read_missing(folder).modalities, changes=changes))
    return changes


def read_missing(folder: Path, schema: Schema | None = None) -> Whole:
    """Return what is missing of the dataset in ``folder``; without ``missing.json`` it is counted in the private part.

    Args:
        folder: the dataset version.
        schema: its schema, needed only without ``missing.json``.

    Raises:
        InvalidInput: a file is missing or malformed.
    """
    path = folder / MISSING
    try:
        if path.exists():
            return _read(path, path.stat().st_mtime_ns)
        if schema is None:
            return Whole(modalities=())
        records = folder / "private" / "records.parquet"
        return _counted(folder, schema.modalities, records.stat().st_mtime_ns)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        raise InvalidInput(
            say("expected what is missing of the dataset at {name}, could not read it", name=MISSING)
        ) from error


def _write(folder: Path, whole: Whole) -> None:
    value = {
        "modalities": {
            m.modality: {"patients": m.patients, "of": m.of, "variables": dict(m.variables)} for m in whole.modalities
        },
        "changes": None if whole.changes is None else dump(whole.changes),
    }
    write_atomically(folder / MISSING, json.dumps(value, indent=1, ensure_ascii=False).encode())


@lru_cache(maxsize=16)
def _read(path: Path, _: int) -> Whole:
    value = json.loads(path.read_bytes())
    found = tuple(
        Missing(
            modality=str(name),
            patients=int(own["patients"]),
            of=int(own["of"]),
            variables=_numbers(own["variables"]),
        )
        for name, own in value["modalities"].items()
    )
    changes = value["changes"]
    return Whole(modalities=found, changes=None if changes is None else parse(Changes, changes))


def _numbers(values: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((str(name), int(count)) for name, count in values.items())


@lru_cache(maxsize=16)
def _counted(folder: Path, modalities: Sequence[str], _: int) -> Whole:
    """Count rows, and ones in the inputs that say that a value is missing; nothing else of the part is read."""
    everybody = parquet.read_metadata(folder / "private" / "records.parquet").num_rows
    found = []
    for name in modalities:
        path = folder / "private" / f"{name}.parquet"
        flags = [column for column in parquet.read_schema(path).names if column.endswith(_INDICATOR)]
        table = parquet.read_table(path, columns=flags)
        variables = tuple(
            (flag.removesuffix(_INDICATOR), int(np.asarray(table.column(flag)).astype(np.float64).sum()))
            for flag in flags
        )
        rows = parquet.read_metadata(path).num_rows
        found.append(Missing(modality=name, patients=rows, of=everybody, variables=variables))
    return Whole(modalities=tuple(found))
