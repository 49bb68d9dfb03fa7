"""From what was read to a dataset version and its reading report: both appear whole, or not at all."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasites.data.dataset import MOCK_ROWS, Part, Schema, mock_labels, write_dataset
from datasites.data.glance import STUDY_SCHEMA
from datasites.data.missing import Missing, count, write_missing
from datasites.data.part_files import Sliced
from datasites.data.patient_rows import check_patients
from datasites.data.reading.encoding import Encoded, mock_inputs
from datasites.data.reading.finding import RECORDS
from datasites.data.reading.measured import HospitalData
from datasites.data.reading.report import ColumnFacts, ReadingReport
from datasites.data.synthesis import ReleasedTables, drawn_classes, drawn_inputs
from datasites.language import LANGUAGES, speaking, spoken, tr
from datasites.node.files import write_atomically
from datasites.node.web.documents import render_page
from datasites.study.schema.document import Modality, StudySchema
from datasites.study.schema.outcomes import Classes, Outcome, Survival
from datasites.study.signing import dump
from privacy.canonical import canonical_json

_MANY = 60


def write_hospital(
    folder: Path,
    schema: StudySchema,
    outcome: str,
    data: HospitalData,
    *,
    name: str,
    version: int,
    institution: str,
    cohort: str,
    released: ReleasedTables | None = None,
) -> None:
    """Write one dataset version: private part, mock part and schema, with the study's schema beside them.

    Args:
        folder: a new one.
        schema: the study's.
        outcome: of the schema.
        data: the hospital's patients.
        name: of the dataset.
        version: from 1 on.
        institution: whose it is.
        cohort: under which the dataset is listed.
        released: charged tables that the mock follows; by default it follows the public schema alone.

    Raises:
        InvalidInput: the folder exists, a patient stands there twice, or the tables are of another schema.
    """
    asked = schema.outcome(outcome)
    if released is not None:
        released.check(schema, asked)
    check_patients(data.patients)
    held = tuple(m.name for m in schema.modalities if m.name in data.modalities)
    dataset = Schema(
        name=name,
        version=version,
        institution=institution,
        cohort=cohort,
        cohorts=tuple(level.name for level in schema.cohorts),
        task=outcome,
        classes=asked.classes,
        modalities=held,
        features={m.name: m.inputs for m in schema.modalities},
        preprocessing={m.name: _words(m) for m in schema.modalities},
        source=f"schema {schema.name}, version {schema.version} ({schema.schema_hash})",
        predicts=asked.target,
        gains={m.name: float(m.gain) for m in schema.modalities if m.gain is not None},
        self_scaled=tuple(m.name for m in schema.modalities if m.scaling == "self"),
        mock="" if released is None else f"charged synthesis by {released.source}",
    )
    inputs, missing = _inputs(schema, data)
    private = Part(
        cases=data.patients,
        cohorts=data.cohorts,
        labels=labels_of(asked, data.outcome),
        inputs=inputs,
    )
    write_dataset(folder, dataset, private, mock=_mock(schema, asked, held, cohort, released))
    write_missing(folder, missing)
    write_atomically(folder / STUDY_SCHEMA, canonical_json(dump(schema)))


def _inputs(schema: StudySchema, data: HospitalData) -> tuple[dict[str, tuple[tuple[str, ...], Sliced]], list[Missing]]:
    """Return patients and inputs of each modality that somebody has, and what is missing of it."""
    inputs: dict[str, tuple[tuple[str, ...], Sliced]] = {}
    missing: list[Missing] = []
    for modality in schema.modalities:
        if modality.name in data.modalities:
            measured = data.modalities[modality.name]
            missing.append(count(modality.name, modality.names, measured.values, of=len(data.patients)))
            inputs[modality.name] = (measured.patients, Encoded(modality=modality, measured=measured))
    return inputs, missing


def write_report(folder: Path, report: ReadingReport) -> tuple[Path, Path]:
    """Write the reading report as JSON and as a page in every language, private to this user.

    The pages are called ``reading-SCHEMA-TIME.html`` and, in another language than English,
    ``reading-SCHEMA-TIME.de.html``. The JSON is English.

    Returns:
        The paths of the English page and of the JSON.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stem = f"reading-{report.schema}-{report.read_at.replace(':', '').replace('+0000', 'Z')}"
    facts = folder / f"{stem}.json"
    write_atomically(facts, json.dumps(dump(report), indent=2, ensure_ascii=False).encode())
    for language in LANGUAGES:
        with speaking(language):
            page = page_of(report)
        write_atomically(folder / f"{stem}{'' if language == 'en' else f'.{language}'}.html", page)
    return folder / f"{stem}.html", facts


def page_of(report: ReadingReport) -> bytes:
    """Return the report as one page without anything to load, in the language that is spoken."""
    return render_page(
        Path(__file__).parent / "reading_report.html",
        r=report,
        columns=shown(report),
        plain=plain_columns(report),
        spoken=spoken,
        group=lambda name: tr("the patients' records") if name == RECORDS else name,
    )


def shown(report: ReadingReport) -> list[ColumnFacts]:
    """Return the columns that a page lists one by one: all of a few, and of many those with something to say."""
    many = {group for group, count in Counter(c.group for c in report.columns).items() if count > _MANY}
    return [c for c in report.columns if c.group not in many or c.refused or c.mapped]


def plain_columns(report: ReadingReport) -> list[tuple[str, int, int, int]]:
    """Return (group, columns, understood cells, missing cells) of the columns that a page does not list."""
    listed = {id(column) for column in shown(report)}
    rest = [column for column in report.columns if id(column) not in listed]
    return [
        (group, len(own), sum(c.understood for c in own), sum(c.missing for c in own))
        for group in dict.fromkeys(c.group for c in rest)
        if (own := [c for c in rest if c.group == group])
    ]


def labels_of(outcome: Outcome, values: NDArray[np.float64]) -> tuple[float, ...]:
    """Return labels as datasets hold them, from columns of the outcome as they were read."""
    if isinstance(outcome, Survival):
        return tuple(outcome.target.interval_label(time, happened=event == 1) for time, event in values.tolist())
    if outcome.kind == "continuous":
        return tuple(values[:, 0].tolist())
    return tuple(int(value) for value in values[:, 0])


def _mock(
    schema: StudySchema, outcome: Outcome, held: tuple[str, ...], cohort: str, released: ReleasedTables | None
) -> Part:
    generator = np.random.default_rng(int(schema.schema_hash[:12], 16))
    cases = tuple(f"MOCK-{number:04d}" for number in range(MOCK_ROWS))
    prevalence = outcome.prevalence if isinstance(outcome, Classes) else ()
    made = mock_labels(outcome.target, outcome.classes, generator, MOCK_ROWS, prevalence)
    inputs = {m: mock_inputs(schema.modality(m), generator, MOCK_ROWS) for m in held}
    if released is not None:
        classes = drawn_classes(released, generator, MOCK_ROWS)
        made = tuple(classes.tolist()) if released.outcome else made
        inputs = {m: drawn_inputs(schema.modality(m), released, classes, inputs[m], generator) for m in held}
    return Part(
        cases=cases,
        cohorts=(cohort,) * MOCK_ROWS,
        labels=made,
        inputs={m: (cases, values) for m, values in inputs.items()},
    )


def _words(modality: Modality) -> str:
    if modality.measure is None:
        return f"{modality.label}: each variable as the schema says"
    measure, where = modality.measure, f"; {modality.source}" if modality.source else ""
    return f"{modality.label}: {measure.transform}, centre and scale of the schema, clipped to {measure.clip:g}{where}"
