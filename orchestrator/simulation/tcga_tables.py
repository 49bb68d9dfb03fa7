"""Hospitals of a shipped TCGA schema over the real tables: dealt as ever, written as tables, read by schema.

Who holds which patients and slides is the federation's matter; copy number and mutations are at every hospital whose
cohort has them. Each hospital then reads its own tables as any hospital reads its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from datasites.data.federations import Federation, build
from datasites.data.tcga.study_schemas import EXTRA, read_calls
from datasites.data.tcga.tables import TASKS, Tables, read_tables
from datasites.data.tcga.variables import COMPOUND
from datasites.study.schema.document import StudySchema
from privacy.errors import InvalidInput

_STRATIFIED = "early-late"
"""By which stages patients are dealt where the outcome is none of the staging tasks."""


def deal_tables(
    source: Path, document: StudySchema, out: Path, *, outcome: str, federation: str, sites: int | None, seed: int
) -> tuple[Federation, dict[str, Path]]:
    """Deal the patients of a folder of TCGA cohorts; write each hospital's tables, and those of the held-out patients.

    Args:
        source: ``<COHORT>/clinical.csv`` and its like (docs/data.md), with ``cna.npz`` and ``mut.npz``.
        document: a schema whose columns these tables have.
        out: where the tables are written, a folder a hospital and ``test``.
        outcome: of the schema.
        federation: who holds what.
        sites: how many hospitals.
        seed: of the split.

    Returns:
        the federation, and the folder of tables by site, with ``test`` for the held-out patients.

    Raises:
        InvalidInput: the tables lack a modality of the schema, or cannot be read.
    """
    tables = read_tables(source)
    known = {level.name for level in document.cohorts}
    if not set(tables.cohorts) <= known:
        strange = ", ".join(sorted(set(tables.cohorts) - known))
        raise InvalidInput(f"expected the cohorts {', '.join(sorted(known))} of schema {document.name}, got {strange}")
    task = outcome if outcome in TASKS else _STRATIFIED
    plan = build(federation, tables, task=task, seed=seed, sites=sites)
    extra = {m: _calls(source, tables, m) for m in EXTRA if any(modality.name == m for modality in document.modalities)}
    names = tuple(modality.name for modality in document.modalities)
    made, folders = [], {}
    for site in plan.sites:
        held = [m for m in names if m in site.modalities or (m in extra and site.cohort in extra[m])]
        made.append(replace(site, modalities=tuple(held)))
        folders[site.name] = _write(out / site.name, tables, document, extra, site.cases, held)
    folders["test"] = _write(out / "test", tables, document, extra, plan.test, names)
    return replace(plan, name=document.name, task=outcome, sites=tuple(made)), folders


def _calls(source: Path, tables: Tables, modality: str) -> dict[str, pd.DataFrame]:
    found = {}
    for cohort in tables.cohorts:
        cases, genes, values = read_calls(source / cohort, modality)
        columns = [EXTRA[modality][1] + gene for gene in genes]
        found[cohort] = pd.DataFrame(values, index=pd.Index(cases, name="case_id"), columns=columns)
    return found


def _write(
    folder: Path,
    tables: Tables,
    document: StudySchema,
    extra: dict[str, dict[str, pd.DataFrame]],
    cases: Sequence[str],
    held: Sequence[str],
) -> Path:
    """Write the tables of some patients; return their folder."""
    folder.mkdir(parents=True)
    wanted, key = set(cases), document.patient.column
    rows = [cohort.clinical[cohort.clinical.index.isin(wanted)] for cohort in tables.cohorts.values()]
    everybody = pd.concat(rows).rename_axis(key)
    records = {document.cohort_column, *(column for outcome in document.outcomes for column in outcome.columns)}
    everybody[[c for c in everybody.columns if c in records]].to_csv(folder / "patients.csv")
    for modality in document.modalities:
        if modality.name not in held:
            continue
        if modality.variables:
            own = everybody[[name for name in modality.names if name in everybody.columns]].copy()
            for column in set(COMPOUND) & set(own.columns):
                own[column] = own[column].replace(dict(COMPOUND[column]))
            own.to_csv(folder / f"{modality.name}.csv")
            continue
        parts = extra.get(modality.name) or {
            name: cohort.modalities[modality.name]
            for name, cohort in tables.cohorts.items()
            if modality.name in cohort.modalities
        }
        chosen = [part[part.index.isin(wanted)] for part in parts.values()]
        table = pd.concat([part.reindex(columns=list(modality.names)) for part in chosen])
        if len(table):
            table.rename_axis(key).reset_index().to_parquet(folder / f"{modality.name}.parquet", index=False)
    return folder
