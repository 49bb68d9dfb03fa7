"""OMOP common data model: person, measurement and condition_occurrence as CSV or Parquet tables (OHDSI CDM v5.4).

``person`` has a row per person. Each wanted measurement becomes a table of its own: person, date, value with its unit.
``conditions`` has a row per person with ``recorded`` for each wanted condition. Concept ids are OMOP's standard ones,
each looked up by its name in the concept-level checks of OHDSI's DataQualityDashboard (measurements: CDM v5.4, release
of January 2026; units: its first list of 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from datasites.data.reading.patients import as_ids
from datasites.data.reading.tables import Table, known, open_table
from datasites.data.sources.extraction import Extraction, table_name
from privacy.errors import InvalidInput

SEX: Mapping[str, str] = {"8507": "male", "8532": "female"}
UNITS: Mapping[str, str] = {
    "8713": "g/dL",
    "8636": "g/L",
    "8840": "mg/dL",
    "8753": "mmol/L",
    "8749": "umol/L",
    "8848": "10^3/uL",
    "9444": "10^9/L",
    "8876": "mmHg",
    "8582": "cm",
    "9529": "kg",
    "8554": "%",
    "8645": "U/L",
    "9531": "kg/m2",
    "8541": "/min",
}
"""Unit concepts (UCUM) as schemas spell them; another unit stands as ``unit N`` and is refused by the schema."""

OPERATORS: Mapping[str, str] = {"4171756": "<", "4171754": "<=", "4171755": ">=", "4172704": ">"}
"""Concepts of what stands before a number; such a value is a bound and no number, and the schema refuses it."""

MEASUREMENTS: Mapping[str, str] = {
    "3004249": "systolic-blood-pressure",
    "3012888": "diastolic-blood-pressure",
    "3027018": "heart-rate",
    "3036277": "height",
    "3025315": "weight",
    "3038553": "bmi",
    "3027114": "cholesterol",
    "3016723": "creatinine",
    "3024561": "albumin",
    "3024128": "bilirubin",
    "3000963": "haemoglobin",
}
"""Measurement concepts (LOINC) that are read without a list of one's own."""


_OPERATOR, _EQUAL = "operator_concept_id", ("", "0", "4172703")


def extract_omop(folder: Path, made: Extraction, *, concepts: Mapping[str, str] | None = None) -> None:
    """Read a folder of CDM tables.

    Args:
        folder: holds ``person`` and, where there, ``measurement`` and ``condition_occurrence`` as CSV or Parquet.
        made: gets the tables.
        concepts: concept id to the name of its column, of measurements and conditions; default :data:`MEASUREMENTS`.

    Raises:
        InvalidInput: no table of persons, or one without a column that the model has.
    """
    wanted = dict(MEASUREMENTS if concepts is None else concepts)
    persons: list[str] = []
    names = ("person_id", "gender_concept_id", "year_of_birth")
    for person, sex, born, own in _rows(_table(folder, "person", needed=True), names, ("gender_source_value",)):
        persons.append(person)
        words = SEX.get(sex, own if sex in ("", "0") else f"concept {sex}")
        made.add("person", {"person_id": person, "sex": words, "year_of_birth": born})
    if measured := _table(folder, "measurement"):
        _measurements(measured, wanted, made)
    if condition := _table(folder, "condition_occurrence"):
        _conditions(condition, wanted, persons, made)


def _measurements(table: Table, wanted: Mapping[str, str], made: Extraction) -> None:
    names = ("person_id", "measurement_concept_id", "measurement_date", "value_as_number", "unit_concept_id")
    for person, concept, date, value, unit, own, operator in _rows(table, names, ("unit_source_value", _OPERATOR)):
        if concept not in wanted:
            made.passed_over["measurement of a concept that was not asked for"] += 1
        elif not value:
            made.passed_over[f"{wanted[concept]} without a number"] += 1
        else:
            words = UNITS.get(unit, own if unit in ("", "0") else f"unit {unit}")
            before = "" if operator in _EQUAL else OPERATORS.get(operator, f"operator {operator} ")
            name = table_name(wanted[concept])
            made.add(name, {"person_id": person, "date": date[:10], name: f"{before}{value} {words}".strip()})


def _conditions(table: Table, wanted: Mapping[str, str], persons: list[str], made: Extraction) -> None:
    recorded: dict[str, set[str]] = {}
    for person, concept in _rows(table, ("person_id", "condition_concept_id")):
        if concept in wanted:
            recorded.setdefault(wanted[concept], set()).add(person)
        else:
            made.passed_over["condition of a concept that was not asked for"] += 1
    if recorded:
        for person in persons:
            found = {name: "recorded" if person in own else "not recorded" for name, own in recorded.items()}
            made.add("conditions", {"person_id": person, **found})


def _table(folder: Path, name: str, *, needed: bool = False) -> Table | None:
    found = [p for p in sorted(folder.iterdir()) if known(p) and p.name.split(".")[0].casefold() == name]
    if len(found) > 1 or (needed and not found):
        raise InvalidInput(f"expected one table {name} of the OMOP model in {folder.name}, found {len(found)}")
    return open_table(found[0]) if found else None


def _rows(table: Table | None, names: tuple[str, ...], more: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the cells of some columns; of ``more``, a column that is not there has empty cells."""
    if table is None:
        return
    spelled = {column.casefold(): column for column in table.columns}
    absent = [name for name in names if name not in spelled]
    if absent:
        raise InvalidInput(f"{table.name}: expected the OMOP column {absent[0]}, found none")
    columns = [spelled[name] for name in (*names, *more) if name in spelled]
    for piece in table.pieces(columns):
        texts = {name: _texts(piece[spelled[name]]) for name in (*names, *more) if name in spelled}
        empty = [""] * len(piece)
        yield from zip(*(texts.get(name, empty) for name in (*names, *more)), strict=True)


def _texts(cells: object) -> list[str]:
    """Return ids and codes as whole numbers, and measured values as they stand."""
    import pandas as pd

    if isinstance(cells, pd.Series) and pd.api.types.is_numeric_dtype(cells.dtype):
        return ["" if pd.isna(value) else f"{value:.15g}" for value in cells]
    return as_ids(pd.Series(cells, dtype=object))
