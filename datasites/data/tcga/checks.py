"""What a table of the folder must fulfil before it is used: its ids join, its numbers are of the expected scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from datasites.data.patient_rows import check_patients, plain_id
from datasites.data.reading.cells.counting import Reading
from datasites.data.reading.cells.numbers import NumberColumn
from datasites.data.reading.groups import table_facts
from datasites.data.reading.patients import as_ids
from datasites.study.schema.variables import Number
from datasites.study.text import visible
from privacy.errors import InvalidInput

_LARGEST = 1e300
_TELLING_CELLS = 50
_LOGARITHMS = 30.0
_LEAST_SHARED = 0.9


def indexed(table: pd.DataFrame, *, where: str) -> pd.DataFrame:
    """Return a table by ``case_id``: a text without spaces around it, in the order of the ids.

    Raises:
        InvalidInput: there is no such column, an id is empty, or two rows are of one case (spaces, capitals and
            punctuation do not count).
    """
    if "case_id" not in table.columns:
        raise InvalidInput(f"{where}: expected a column case_id, got {len(table.columns)} columns without it")
    cells = table["case_id"]
    texts = cells.astype(object).where(cells.notna(), "") if not pd.api.types.is_numeric_dtype(cells.dtype) else cells
    ids = as_ids(texts)
    empty = sum(not plain_id(case) for case in ids)
    if empty:
        raise InvalidInput(f"{where}: every row needs a case_id, {empty} have none")
    try:
        check_patients(ids)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: expected every case once: {error}") from error
    found = table.drop(columns="case_id")
    found.index = pd.Index(ids, name="case_id")
    return found.sort_index()


def joined(table: pd.DataFrame, cases: Sequence[str], *, where: str) -> list[str]:
    """Return what to say of the rows of a table that are of no case of the clinical table.

    Raises:
        InvalidInput: none joins, or some would if ids were written alike; the message shows how ids look.
    """
    known = set(cases)
    facts = table_facts("", where, len(table), 0, list(table.index), known)
    if facts.joined == facts.patients and facts.patients:
        return []
    line = (
        f"{where}: {facts.joined} of its {facts.patients} ids are cases of the clinical table (others look like "
        f"{facts.looks or 'nothing'}, those of the clinical table like {facts.wanted or 'nothing'})"
    )
    if not facts.joined or facts.hint:
        raise InvalidInput(f"{line}; {facts.hint or 'check the ids'}")
    return [f"{line}; the others are left out"]


def as_numbers(table: pd.DataFrame, *, where: str) -> pd.DataFrame:
    """Return a table in which columns of text have become numbers, with missing words as NaN.

    Raises:
        InvalidInput: a column holds something that is no number; the message names it and shows some.
    """
    found = {}
    for column in table.columns:
        cells = table[column]
        if not pd.api.types.is_numeric_dtype(cells.dtype):
            texts = cells.astype(object).where(cells.notna(), "").map(str)
            reading = Reading(column=str(column), variable=str(column))
            reader = NumberColumn(Number(name="x", low=-_LARGEST, high=_LARGEST), reading)
            values = reader.feed(texts.reset_index(drop=True))
            for row, value in reader.finish():
                values[row] = value
            if reading.refusals:
                shown = ", ".join(repr(visible(word)) for word, _, _ in reading.strange()[:3])
                raise InvalidInput(
                    f"{where}: column {str(column)[:80]!r} holds {reading.refusals} values that are no numbers "
                    f"({shown}), expected numbers; correct or leave out the column"
                )
            cells = pd.Series(values, index=table.index)
        found[column] = cells
    return pd.DataFrame(found, index=table.index)


def z_scores(table: pd.DataFrame, *, where: str) -> None:
    """Refuse expression that is plainly no z-score: counts, TPM, or logarithms of them have no negative values.

    Raises:
        InvalidInput: so it is, or no row has a value.
    """
    values = table.to_numpy(dtype=np.float64)
    given = values[np.isfinite(values)]
    if not given.size:
        raise InvalidInput(f"{where}: expected expression values, all {values.size} cells are empty")
    if given.size < _TELLING_CELLS or (given < 0).any():
        return
    whole = bool((given == np.round(given)).all())
    what = "logarithms" if given.max() <= _LOGARITHMS and not whole else "counts" if whole else "TPM, FPKM or RSEM"
    raise InvalidInput(
        f"{where}: expected z-scores, of which about half are below 0; none of its {given.size} values is: "
        f"they look like {what} (0 to {given.max():.3g}). Scale them by public constants first, as `tessera convert` "
        "does, or read them by a schema that says their unit"
    )


def enough_shared(columns: Mapping[str, Sequence[str]], shared: Sequence[str], modality: str) -> None:
    """Refuse to cut feature tables down to a small common part.

    Raises:
        InvalidInput: a cohort would lose more than a tenth of its columns.
    """
    for cohort, names in columns.items():
        if len(shared) < _LEAST_SHARED * len(names):
            counts = ", ".join(f"{name} {len(own)}" for name, own in columns.items())
            raise InvalidInput(
                f"the cohorts' {modality} tables share {len(shared)} columns only ({counts}): {cohort} would lose "
                f"{len(names) - len(shared)} of {len(names)}. Features of different encoders or panels are different "
                "modalities: name both in a schema, bring the same columns, or list the shared genes in "
                "genes_common.txt"
            )
