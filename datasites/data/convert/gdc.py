"""Reading what GDC gives: STAR-counts files, and clinical data as the API's JSON or the portal's ``clinical.tsv``.

A folder is what :mod:`datasites.data.convert.gdc_download` writes, or what people bring from the GDC data portal:
STAR-counts files in any sub-folder, ``gdc_sample_sheet*.tsv`` or ``metadata*.json`` that says whose they are,
``clinical.tsv``. Source: GDC documentation, "mRNA Analysis Pipeline" (the columns of a STAR-counts file).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datasites.data.convert.barcodes import case_of, comment_lines
from datasites.data.convert.clinical_columns import INPUTS, STAGE, Clinical, clinical_table, short_name
from datasites.data.convert.gdc_files import beside, column_of, find_expression, read_list
from datasites.data.reading.sniffing import what_is
from datasites.data.tcga.leakage import LEAKING
from datasites.data.tcga.stages import stage_word
from datasites.study.schema.variables import MISSING, plain
from privacy.errors import InvalidInput

_CASE_COLUMNS = ("cases.submitter_id", "case_submitter_id", "submitter_id", "bcr_patient_barcode", "Case ID")
_PROJECT_COLUMNS = ("project.project_id", "cases.project.project_id", "project_id", "Project ID")
_SIDE_TABLES = ("exposure*.tsv", "pathology_detail*.tsv", "family_history*.tsv")
_LATER = ("follow_up*.tsv", "molecular_test*.tsv")
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class GdcFolder:
    """One project read from a GDC folder: clinical table, and TPM by case and gene symbol (None: no such files).

    ``notes`` has a line for everything that was left out.
    """

    project: str
    clinical: Clinical
    abundance: pd.DataFrame | None
    notes: tuple[str, ...] = ()


def read_gdc(folder: Path, *, genes: Sequence[str] | None = None, partial: bool = False) -> tuple[GdcFolder, ...]:
    """Read a folder's projects.

    Args:
        folder: see the module.
        genes: symbols to keep; default: all protein-coding ones.
        partial: go on without files that are missing, broken or of nobody; a note says how many.

    Raises:
        InvalidInput: no clinical data, or (unless ``partial``) files that are missing, broken or of nobody known.
    """
    projects = _read_clinical(folder)
    found = find_expression(folder)
    if found.problems and not partial:
        raise InvalidInput(f"{folder.name}: {'; '.join(found.problems)}; or go on without them by --partial")
    owners = {case: project for project, clinical in projects.items() for case in clinical.table["case_id"]}
    chosen: dict[str, tuple[str, Path]] = {}
    strangers = several = 0
    for sample, path in found.files:
        case = case_of(sample, where=folder.name)
        strangers += case not in owners
        if case in owners:
            several += case in chosen
            chosen[case] = min(chosen.get(case, (sample, path)), (sample, path))
    notes = [*found.problems, *found.notes]
    notes += [f"{strangers} files are of cases without clinical data and are left out"] if strangers else []
    notes += [f"{several} files are of cases that have another file, the first by sample counts"] if several else []
    rows, broken = _read_all(chosen, genes)
    if broken and not partial:
        raise InvalidInput(f"{folder.name}: {_told(broken)}; or go on without them by --partial")
    notes += [_told(broken)] if broken else []
    return tuple(_project(name, clinical, rows, genes, notes) for name, clinical in projects.items())


def _project(
    name: str, clinical: Clinical, rows: Mapping[str, pd.Series], genes: Sequence[str] | None, notes: Sequence[str]
) -> GdcFolder:
    own = {case: rows[case] for case in sorted(clinical.table["case_id"]) if case in rows}
    if not own:
        return GdcFolder(project=name, clinical=clinical, abundance=None, notes=(*clinical.notes, *notes))
    abundance = pd.concat(own, axis="columns").T.rename_axis(index="case_id", columns=None)
    lost = [*clinical.notes, *notes]
    if genes is not None:
        absent = [gene for gene in genes if gene not in abundance.columns]
        if len(absent) == len(genes):
            raise InvalidInput(
                f"{name}: the files hold none of the {len(genes)} listed genes; check the list's symbols"
            )
        if absent:
            lost.append(f"{len(absent)} of the {len(genes)} listed genes are in no file, as {absent[0][:40]}")
        abundance = abundance[[gene for gene in genes if gene in abundance.columns]]
    gaps = int(abundance.isna().any(axis=0).sum())
    if gaps:
        lost.append(f"{gaps} genes are not in every file (gene models differ); they are missing there")
    return GdcFolder(project=name, clinical=clinical, abundance=abundance, notes=tuple(lost))


def _read_all(
    chosen: Mapping[str, tuple[str, Path]], genes: Sequence[str] | None
) -> tuple[dict[str, pd.Series], list[str]]:
    rows, broken = {}, []
    for case, (_, path) in sorted(chosen.items()):
        try:
            rows[case] = read_star_counts(path, genes=genes)
        except InvalidInput as error:
            broken.append(str(error))
    return rows, broken


def _told(broken: Sequence[str]) -> str:
    more = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    return f"{len(broken)} expression files could not be read: {'; '.join(broken[:_NAMED])}{more}"


def read_star_counts(path: Path, *, genes: Sequence[str] | None = None) -> pd.Series:
    """Return TPM by gene symbol of one STAR-counts file; genes that share a symbol are added up.

    Args:
        path: ``.tsv``, also packed as ``.tsv.gz``.
        genes: symbols to keep, those that the file has; default: all protein-coding ones.

    Raises:
        InvalidInput: not a STAR-counts file; the message names it and says what it is.
    """
    where = f"{path.parent.name}/{path.name}"
    columns = ["gene_id", "gene_name", "gene_type", "tpm_unstranded"]
    try:
        table = pd.read_csv(
            path,
            sep="\t",
            skiprows=comment_lines(path),
            usecols=columns,
            dtype={"gene_id": str, "gene_name": str, "gene_type": str},
            keep_default_na=False,
            na_values={"tpm_unstranded": [""]},
        )
        values = pd.to_numeric(table["tpm_unstranded"])
    except (OSError, EOFError, ValueError, InvalidInput) as error:
        raise InvalidInput(
            f"{where}: expected a STAR-counts file with the columns {', '.join(columns)}, found {what_is(path)}"
        ) from error
    ids = table["gene_id"]
    kept = ~ids.str.startswith("N_") & ~ids.str.endswith("_PAR_Y")
    kept &= table["gene_name"].isin(genes) if genes is not None else table["gene_type"] == "protein_coding"
    tpm = values[kept].groupby(table["gene_name"][kept], sort=False).sum(min_count=1)
    if not np.isfinite(tpm.to_numpy()).all() or (tpm < 0).any() or (genes is None and not len(tpm)):
        raise InvalidInput(
            f"{where}: expected finite TPM values of at least 0 for every gene, found others; the file may be cut off"
        )
    return tpm.astype(np.float32)


def clinical_from_cases(cases: Iterable[Mapping[str, Any]], *, project: str) -> Clinical:
    """Return the clinical table of API hits: demographic, exposures and the one primary diagnosis of each case."""
    rows, ids = [], []
    for case in cases:
        ids.append(case_of(str(case.get("submitter_id")), where="cases"))
        groups = [case.get("demographic") or {}, *(case.get("exposures") or [])[:1]]
        groups.append(_primary(case.get("diagnoses") or []))
        rows.append(
            {key: value for group in groups for key, value in group.items() if not isinstance(value, dict | list)}
        )
    columns = sorted({key for row in rows for key in row})
    table = pd.DataFrame([[row.get(key) for key in columns] for row in rows], columns=columns, dtype=object)
    return clinical_table(table, pd.Series(ids, dtype=object), project=project, where="cases.json")


def clinical_from_portal(path: Path, side: Sequence[Path] = ()) -> dict[str, Clinical]:
    """Return the clinical table of each project in the portal's ``clinical.tsv``.

    The file has a row per diagnosis and treatment; of each case the row of the primary diagnosis counts.

    Args:
        path: the file, of any portal release since 2018.
        side: tables beside it, such as ``exposure.tsv``, whose values fill what it lacks.

    Raises:
        InvalidInput: no case column, or a table of another form.
    """
    table = _table(path)
    cases = column_of(table, _CASE_COLUMNS, path.name).map(lambda v: case_of(v, where=path.name))
    projects = column_of(table, _PROJECT_COLUMNS, path.name)
    names = [short_name(c) for c in table.columns]
    ranked = [_rank(dict(zip(names, row, strict=True))) for row in table.itertuples(index=False, name=None)]
    order = pd.DataFrame({"case": cases, "rank": ranked}).sort_values("rank", kind="stable").drop_duplicates("case")
    chosen = sorted(order.index)
    rows, own = table.loc[chosen].reset_index(drop=True), cases.loc[chosen].reset_index(drop=True)
    notes = _contradictions(table, cases, ranked)
    for other in side:
        rows, told = _filled(rows, own, other)
        notes += told
    made = {}
    for project in sorted(set(projects.loc[chosen])):
        mine = (projects.loc[chosen].reset_index(drop=True) == project).to_numpy()
        made[project] = clinical_table(
            rows[mine].reset_index(drop=True),
            own[mine].reset_index(drop=True),
            project=project,
            where=path.name,
            notes=notes,
        )
    return made


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path.name}: expected GDC's table of tab-separated values, found {what_is(path)}"
        ) from error


def _contradictions(table: pd.DataFrame, cases: pd.Series, ranked: Sequence[int]) -> list[str]:
    """Return a line where primary diagnoses of one case have different stages."""
    stages = [c for c in table.columns if short_name(c) in STAGE]
    best = pd.Series(ranked, index=table.index).groupby(cases).transform("min")
    first = table[pd.Series(ranked, index=table.index) == best]
    several = sum(
        int((first[c].map(lambda v: stage_word(v) or None).groupby(cases[first.index]).nunique() > 1).sum())
        for c in stages
    )
    return [f"{several} cases have several diagnoses of different stages; the first row counts"] if several else []


def _filled(rows: pd.DataFrame, cases: pd.Series, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return rows with the values of another table where they have none."""
    table = _table(path)
    owners = column_of(table, _CASE_COLUMNS, path.name).str.strip()
    known = {name for names in INPUTS.values() for name in names} | LEAKING
    present = {short_name(c): c for c in rows.columns}
    rows, conflicts, left_out = rows.copy(), 0, []
    for column in table.columns:
        name = short_name(column)
        if name not in known or column in _CASE_COLUMNS:
            left_out.append(column)
            continue
        given = table[column].map(lambda text: "" if plain(text) in MISSING else text.strip())
        values = given[given != ""].groupby(owners[given != ""]).unique()
        conflicts += int((values.map(len) > 1).sum())
        one = {case: found[0] for case, found in values.items() if len(found) == 1}
        target = present.setdefault(name, name)
        if target not in rows.columns:
            rows[target] = ""
        empty = rows[target].map(lambda text: plain(text) in MISSING)
        rows.loc[empty, target] = cases[empty].map(lambda case, one=one: one.get(case, ""))
    strangers = len(set(owners) - set(cases))
    notes = (
        [f"{path.name}: {conflicts} values contradict each other within a case and are left out"] if conflicts else []
    )
    notes += [f"{path.name}: {strangers} cases are not in the clinical table"] if strangers else []
    return rows, notes


def _read_clinical(folder: Path) -> dict[str, Clinical]:
    if (folder / "cases.json").exists():
        hits = read_list(folder / "cases.json")
        by_project: dict[str, list[dict[str, Any]]] = {}
        for hit in hits:
            by_project.setdefault(str((hit.get("project") or {}).get("project_id")), []).append(hit)
        if not hits:
            raise InvalidInput(f"{folder.name}/cases.json: expected cases, found none")
        return {name: clinical_from_cases(own, project=name) for name, own in sorted(by_project.items())}
    paths = beside(folder, "clinical*.tsv")
    if not paths:
        raise InvalidInput(
            f"expected cases.json or clinical.tsv in {folder.name}, found neither; `tessera fetch` brings it"
        )
    if len(paths) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in paths[:_NAMED])
        raise InvalidInput(f"{folder.name}: expected one clinical.tsv, found {len(paths)} ({names}); leave one")
    side = [path for pattern in _SIDE_TABLES for path in beside(folder, pattern)]
    made = clinical_from_portal(paths[0], side)
    later = [path.name for pattern in _LATER for path in beside(folder, pattern)]
    if later:
        line = f"{', '.join(later)}: known only after the diagnosis; not read"
        made = {name: clinical.with_note(line) for name, clinical in made.items()}
    return made


def _primary(diagnoses: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return min(diagnoses, key=_rank) if diagnoses else {}


def _rank(row: Mapping[str, Any]) -> int:
    """Return 0 for the primary diagnosis with a stage, more for less of that."""
    said = str(row.get("diagnosis_is_primary_disease")).lower(), str(row.get("classification_of_tumor")).lower()
    staged = any(stage_word(row.get(name)) for name in STAGE)
    return 2 * ("true" not in said and "primary" not in said) + (not staged)
