"""Made-up patients of any schema for simulations: the tables of the demo, read as a hospital reads its own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasites.data.federations import Federation, Site
from datasites.data.made_up import write_tables
from datasites.data.reading.encoding import encode
from datasites.data.reading.hospital import HospitalData, read_hospital
from datasites.data.reading.schema_files import read_schema_document
from datasites.data.reading.writing import labels_of
from datasites.study.schema.document import StudySchema
from models.config import in_order
from orchestrator.simulation.sites import Patients
from privacy.errors import TesseraError

_LACKING = 4
"""One hospital in so many lacks the last modality, as in the demo."""


@lru_cache(maxsize=4)
def schema_patients(
    schema: Path, outcome: str | None, sites: int, patients: int, seed: int
) -> tuple[Patients, Federation]:
    """Return made-up patients of a schema, and which hospital holds whom.

    Args:
        schema: a file, or the name of a schema that comes with Tessera.
        outcome: of the schema; its first by default.
        sites: how many hospitals.
        patients: at all hospitals together, and a fifth of them more held out.
        seed: of the patients.

    Raises:
        InvalidInput: no schema, or no such outcome.
        TesseraError: the tables were not understood.
    """
    document = read_schema_document(schema)
    asked = document.outcome(outcome).name if outcome else document.outcomes[0].name
    every = tuple(modality.name for modality in document.modalities)
    cohorts = tuple(level.name for level in document.cohorts)
    found, read = [], []
    for number in range(sites + 1):  # 0 is held out
        lacks = number > 0 and number % _LACKING == 0 and len(every) > 1
        held, cohort = every[:-1] if lacks else every, cohorts[number % len(cohorts)]
        count = max(8, patients // (sites if number else 5))
        data = _read(document, asked, number, seed, held, cohort, count)
        read.append(data)
        found.append(
            Site(
                name=f"site-{number}",
                institution=f"Hospital {number}",
                cohort=cohort,
                modalities=tuple(m for m in held if m in data.modalities),
                cases=data.patients,
            )
        )
    plan = Federation(name=document.name, task=asked, cohorts=cohorts, sites=tuple(found[1:]), test=found[0].cases)
    return patients_of(document, asked, [("", data) for data in read]), plan


def _read(
    document: StudySchema, outcome: str, number: int, seed: int, held: tuple[str, ...], cohort: str, count: int
) -> HospitalData:
    with tempfile.TemporaryDirectory() as folder:
        tables = write_tables(
            Path(folder) / "tables", document, outcome, patients=count, seed=seed, site=number, modalities=held
        )
        data, report = read_hospital([tables], document, outcome, cohort="" if document.cohort_column else cohort)
    if not data.patients:
        raise TesseraError(f"the made-up tables of hospital {number} were not understood: {report.problems[0]}")
    return data


def patients_of(document: StudySchema, outcome: str, parts: Sequence[tuple[str, HospitalData]]) -> Patients:
    """Return the patients of several hospitals as arrays.

    Args:
        document: the schema by which they were read.
        outcome: of the schema.
        parts: each hospital's patients, and what is put before their ids to keep hospitals apart.
    """
    asked, read = document.outcome(outcome), [data for _, data in parts]
    cases = [prefix + patient for prefix, data in parts for patient in data.patients]
    rows = {case: place for place, case in enumerate(cases)}
    cohorts = tuple(level.name for level in document.cohorts)
    labels = np.array([label for data in read for label in labels_of(asked, data.outcome)])
    continuous = asked.target is not None and asked.target.kind == "continuous"
    order = in_order(modality.name for modality in document.modalities)
    arrays: dict[str, NDArray[np.generic]] = {
        "cohort": np.array([cohorts.index(cohort) for data in read for cohort in data.cohorts]),
        "label": labels.astype(np.float32 if continuous else np.int64),
    }
    presence = np.zeros((len(cases), len(order)), dtype=np.float32)
    for modality in document.modalities:
        filled = np.zeros((len(cases), len(modality.inputs)), dtype=np.float32)
        for prefix, data in parts:
            if modality.name in data.modalities:
                measured = data.modalities[modality.name]
                places = [rows[prefix + patient] for patient in measured.patients]
                filled[places] = encode(modality, measured)
                presence[places, order.index(modality.name)] = 1.0
        arrays[modality.name] = filled
    return Patients(
        task=outcome,
        cohorts=cohorts,
        classes=asked.classes,
        rows=rows,
        arrays={**arrays, "presence": presence},
        predicts=asked.target,
        names={m.name: tuple(m.inputs) for m in document.modalities},
        gains={m.name: float(m.gain) for m in document.modalities if m.gain is not None},
    )
