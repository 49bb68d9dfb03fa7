"""The demo's hospitals for any schema: made-up tables, read as a hospital reads its own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from datasites.data.federations import Federation, Site
from datasites.data.made_up import write_tables
from datasites.data.reading.hospital import read_hospital
from datasites.data.reading.mapping import LocalMapping
from datasites.data.reading.schema_files import read_schema_document
from datasites.data.reading.writing import write_hospital, write_report
from datasites.study.schema.document import StudySchema
from orchestrator.demo.consortium import Prepared
from orchestrator.simulation.tcga_tables import deal_tables
from privacy.errors import InvalidInput, TesseraError

PATIENTS = 150
_LACKING = 4
"""One hospital in so many lacks the last modality."""


def prepare_schema(schema: Path, out: Path, *, outcome: str | None, sites: int, seed: int) -> Prepared:
    """Make hospitals of made-up patients by a schema; each reads its own tables and gets its dataset.

    Args:
        schema: a file, or the name of a schema that comes with Tessera.
        out: the demo's folder.
        outcome: of the schema; its first by default.
        sites: how many hospitals.
        seed: of the patients.

    Raises:
        InvalidInput: no schema, or an outcome that no model trains.
    """
    document = read_schema_document(schema)
    asked = document.outcome(outcome).name if outcome else document.outcomes[0].name
    every = tuple(modality.name for modality in document.modalities)
    found = []
    for number in range(1, sites + 1):
        lacks = number % _LACKING == 0 and len(every) > 1
        held, name = every[:-1] if lacks else every, f"{document.name.casefold()}-{number}"
        cohort = document.cohorts[number % len(document.cohorts)].name
        folder = out / name / "datasets" / f"{name}-{document.name}" / "v1"
        cases = _made(document, asked, out / name, folder, number, seed, held, cohort, f"Hospital {number} (demo)")
        found.append(
            Site(name=name, institution=f"Hospital {number} (demo)", cohort=cohort, modalities=held, cases=cases)
        )
    test = _made(
        document, asked, out / "held-out", out / "dealt" / "test", 0, seed, every, document.cohorts[0].name, "held out"
    )
    shutil.rmtree(out / "held-out")
    plan = Federation(
        name=document.name,
        task=asked,
        cohorts=tuple(level.name for level in document.cohorts),
        sites=tuple(found),
        test=test,
    )
    return Prepared(federation=plan, test=out / "dealt" / "test", public=False)


def prepare_tables(
    schema: Path, source: Path, out: Path, *, outcome: str | None, federation: str, sites: int, seed: int
) -> Prepared:
    """Deal real TCGA tables to hospitals by a schema; each reads its own tables and gets its dataset.

    Args:
        schema: a file, or the name of a schema that comes with Tessera.
        source: the folder of cohorts (docs/data.md).
        out: the demo's folder.
        outcome: of the schema; its first by default.
        federation: who holds what.
        sites: how many hospitals.
        seed: of the split.

    Raises:
        InvalidInput: no schema, no such outcome, or tables that cannot be read.
        TesseraError: a hospital's tables were not understood.
    """
    document = read_schema_document(schema)
    asked = document.outcome(outcome).name if outcome else document.outcomes[0].name
    plan, folders = deal_tables(
        source, document, out / "dealt-tables", outcome=asked, federation=federation, sites=sites, seed=seed
    )
    every = LocalMapping(refuse_above=1.0)  # the reading report counts what is refused; a demo stops at nothing
    made = []
    for site in plan.sites:
        folder = out / site.name / "datasets" / f"{site.name}-{document.name}" / "v1"
        cases = _read(
            folders[site.name], document, asked, out / site.name, folder, site.modalities, site.cohort,
            site.institution, every,
        )  # fmt: skip
        made.append(replace(site, cases=cases))
    names, first = tuple(m.name for m in document.modalities), plan.sites[0].cohort
    test = out / "dealt" / "test"
    cases = _read(folders["test"], document, asked, out / "held-out", test, names, first, "held out", every)
    shutil.rmtree(out / "held-out")
    shutil.rmtree(out / "dealt-tables")
    return Prepared(federation=replace(plan, sites=tuple(made), test=cases), test=test, public=True)


def _made(
    document: StudySchema,
    outcome: str,
    home: Path,
    folder: Path,
    number: int,
    seed: int,
    held: tuple[str, ...],
    cohort: str,
    institution: str,
) -> tuple[str, ...]:
    tables = home / "tables"
    write_tables(tables, document, outcome, patients=PATIENTS, seed=seed, site=number, modalities=held)
    return _read(tables, document, outcome, home, folder, held, cohort, institution)


def _read(
    tables: Path,
    document: StudySchema,
    outcome: str,
    home: Path,
    folder: Path,
    held: tuple[str, ...],
    cohort: str,
    institution: str,
    mapping: LocalMapping | None = None,
) -> tuple[str, ...]:
    data, report = read_hospital(
        [tables], document, outcome, mapping=mapping, cohort="" if document.cohort_column else cohort
    )
    write_report(home / "reading", report)
    if report.problems:
        raise TesseraError(f"the tables of {institution} were not understood: {report.problems[0]}")
    missing = set(held) - set(data.modalities)
    if missing:
        raise InvalidInput(f"no patient of {institution} has the modality {sorted(missing)[0]}; leave it out of a demo")
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_hospital(
        folder,
        document,
        outcome,
        data,
        name=folder.parent.name if folder.parent.name != "dealt" else "test",
        version=1,
        institution=institution,
        cohort=cohort,
    )
    return data.patients
