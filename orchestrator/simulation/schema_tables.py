"""Patients of any folder of tables for simulations, read by a study's schema as a hospital reads its own.

Three layouts are understood: a folder for each hospital, tables of everybody that are dealt to hospitals here, and the
cohorts of docs/data.md for the schemas that come with Tessera.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasites.data.federations import Federation, Site
from datasites.data.reading.hospital import HospitalData, read_hospital
from datasites.data.reading.mapping import LocalMapping
from datasites.data.reading.report import ReadingReport
from datasites.data.reading.schema_files import read_schema_document
from datasites.study.schema.document import StudySchema
from orchestrator.simulation.schema_patients import patients_of
from orchestrator.simulation.sites import Patients
from orchestrator.simulation.tcga_tables import deal_tables
from privacy.errors import InvalidInput

_HELD_OUT = 0.25
_SITES = 4
_FEWEST_SITES = 3
_CLINICAL = "clinical.csv"


@dataclass(frozen=True, kw_only=True)
class _Read:
    """One folder's patients; ``prefix`` keeps ids of different hospitals apart."""

    name: str
    prefix: str
    data: HospitalData
    lost: tuple[str, ...] = ()

    @property
    def cases(self) -> tuple[str, ...]:
        return tuple(self.prefix + patient for patient in self.data.patients)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(sorted(self.data.modalities))

    def site(self, name: str, cases: Sequence[str]) -> Site:
        cohort = Counter(self.data.cohorts).most_common(1)[0][0]
        return Site(name=name, institution=name, cohort=cohort, modalities=self.modalities, cases=tuple(cases))


def table_patients(
    schema: Path, outcome: str | None, data: Path, sites: int | None, federation: str, seed: int
) -> tuple[Patients, Federation]:
    """Return the patients of a folder of tables, and which hospital holds whom.

    A quarter of every hospital's patients is held out, at random.

    Args:
        schema: a file, or the name of a schema that comes with Tessera.
        outcome: of the schema; its first by default.
        data: a folder of a folder for each hospital; a folder of tables, which are dealt at random; or a folder of
            cohorts.
        sites: how many hospitals, where patients are dealt; 4 by default.
        federation: who holds what, of cohorts.
        seed: of the split.

    Raises:
        InvalidInput: no such folder, schema or outcome; tables that cannot be read; fewer than three hospitals.
    """
    document = read_schema_document(schema)
    asked = document.outcome(outcome).name if outcome else document.outcomes[0].name
    if len(document.cohorts) > 1 and not document.cohort_column:
        raise InvalidInput(f"expected a schema that says which column tells the cohort, {document.name} says none")
    if not data.is_dir():
        raise InvalidInput(f"expected a folder of tables, found none at {data}")
    folders = sorted(path for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))
    if any((folder / _CLINICAL).exists() for folder in folders) and document.cohort_column:
        return _cohorts(document, asked, data, sites, federation, seed)
    if folders:
        read, plan = _by_folder(document, asked, folders, sites, seed)
    else:
        read, plan = _dealt(document, asked, data, sites or _SITES, seed)
    return patients_of(document, asked, [(one.prefix, one.data) for one in read]), plan


def _by_folder(
    document: StudySchema, outcome: str, folders: Sequence[Path], sites: int | None, seed: int
) -> tuple[list[_Read], Federation]:
    if len(folders) < _FEWEST_SITES or (sites is not None and sites != len(folders)):
        wanted = f"at least {_FEWEST_SITES}" if sites is None or len(folders) < _FEWEST_SITES else str(sites)
        raise InvalidInput(f"expected {wanted} folders of hospitals, found {len(folders)}")
    read = [_read(document, outcome, folder, f"{folder.name}/") for folder in folders]
    made, test = [], list[str]()
    for number, one in enumerate(read):
        held, rest = _apart(one.cases, np.random.default_rng([seed, number]))
        test += held
        made.append(one.site(one.name, rest))
    return read, _federation(document, outcome, made, test, _lost(read))


def _dealt(document: StudySchema, outcome: str, folder: Path, sites: int, seed: int) -> tuple[list[_Read], Federation]:
    everybody, stream = _read(document, outcome, folder, ""), np.random.default_rng([seed, 0])
    test, rest = _apart(everybody.cases, stream)
    if len(rest) < sites:
        raise InvalidInput(f"expected at least a patient for each of {sites} hospitals, found {len(rest)}")
    made = [everybody.site(f"site-{number + 1}", sorted(rest[number::sites])) for number in range(sites)]
    return [everybody], _federation(document, outcome, made, test, everybody.lost)


def _cohorts(
    document: StudySchema, outcome: str, data: Path, sites: int | None, federation: str, seed: int
) -> tuple[Patients, Federation]:
    with tempfile.TemporaryDirectory() as scratch:
        plan, folders = deal_tables(
            data, document, Path(scratch), outcome=outcome, federation=federation, sites=sites, seed=seed
        )
        read = [_read(document, outcome, folders[name], "") for name in sorted(folders)]
    named = {one.name: one for one in read}
    made = [replace(site, cases=named[site.name].cases, modalities=named[site.name].modalities) for site in plan.sites]
    everybody = patients_of(document, outcome, [("", one.data) for one in read])
    return everybody, _federation(document, outcome, made, named["test"].cases, (*plan.lost, *_lost(read)))


def _read(document: StudySchema, outcome: str, folder: Path, prefix: str) -> _Read:
    only = "" if document.cohort_column else document.cohorts[0].name
    every = LocalMapping(refuse_above=1.0)  # the reading report counts what is refused; a simulation stops at nothing
    data, report = read_hospital([folder], document, outcome, mapping=every, cohort=only)
    if report.problems or not data.patients:
        why = report.problems[0] if report.problems else "no patient has the outcome and a modality"
        raise InvalidInput(f"the tables in {folder.name} were not understood: {why}")
    return _Read(name=folder.name, prefix=prefix, data=data, lost=tuple(_left_out(folder.name, report)))


def _left_out(name: str, report: ReadingReport) -> list[str]:
    """Return a line for every reason to leave patients out, and for every column with cells that were refused."""
    lines = [f"{name}: {step.patients} patients left out, {step.reason}" for step in report.left_out if step.patients]
    return lines + [
        f"{name}: {column.refused} of {column.cells} cells of {column.variable} refused"
        for column in report.columns
        if column.refused
    ]


def _lost(read: Sequence[_Read]) -> tuple[str, ...]:
    return tuple(line for one in read for line in one.lost)


def _apart(cases: Sequence[str], stream: np.random.Generator) -> tuple[list[str], list[str]]:
    order = [cases[place] for place in stream.permutation(len(cases))]
    held = max(1, round(_HELD_OUT * len(order)))
    return sorted(order[:held]), order[held:]


def _federation(
    document: StudySchema, outcome: str, made: Sequence[Site], test: Sequence[str], lost: tuple[str, ...]
) -> Federation:
    empty = [site.name for site in made if not site.cases]
    if empty:
        raise InvalidInput(f"expected at least two patients at {empty[0]}, one to train on and one held out")
    cohorts = tuple(level.name for level in document.cohorts)
    return Federation(name=document.name, task=outcome, cohorts=cohorts, sites=tuple(made), test=tuple(test), lost=lost)
