"""Reading what GDC gives: STAR-counts files, and clinical data as the API's JSON or the portal's ``clinical.tsv``.

A folder is what :mod:`datasites.data.convert.gdc_download` writes, or what people bring from the GDC data portal:
STAR-counts files in any sub-folder, ``gdc_sample_sheet*.tsv`` or ``metadata*.json`` that says whose they are,
``clinical.tsv``. Source: GDC documentation, "mRNA Analysis Pipeline" (the columns of a STAR-counts file).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datasites.data.convert.barcodes import PRIMARY_TUMOUR, case_of, comment_lines, sample_type
from datasites.data.convert.clinical_columns import STAGE, Clinical, clinical_table, short_name
from privacy.errors import InvalidInput

STAR_SUFFIX = ".tsv"
_MAX_LIST_BYTES = 512 * 1024**2
_CASE_COLUMNS = ("cases.submitter_id", "case_submitter_id")
_PROJECT_COLUMNS = ("project.project_id", "project_id")


@dataclass(frozen=True, kw_only=True)
class GdcFolder:
    """One cohort read from a GDC folder: clinical table, and TPM by case and gene symbol (None: no such files)."""

    project: str
    clinical: Clinical
    abundance: pd.DataFrame | None


def read_gdc(folder: Path, *, genes: Sequence[str] | None = None) -> GdcFolder:
    """Read one project's folder.

    Args:
        folder: see the module.
        genes: symbols to keep; default: all protein-coding ones.

    Raises:
        InvalidInput: no clinical data, files without an owner, or files of another form.
    """
    clinical, project = _read_clinical(folder)
    owners = _owners(folder)
    cases = set(clinical.table["case_id"])
    chosen: dict[str, tuple[str, Path]] = {}
    for path in sorted(folder.rglob(f"*{STAR_SUFFIX}")):
        sample = owners.get(path.name)
        if sample is None or sample_type(sample) not in (PRIMARY_TUMOUR, None):
            continue
        case = case_of(sample, where=folder.name)
        if case in cases:
            chosen[case] = min(chosen.get(case, (sample, path)), (sample, path))
    rows = {case: read_star_counts(path, genes=genes) for case, (_, path) in sorted(chosen.items())}
    abundance = pd.concat(rows, axis="columns").T.rename_axis(index="case_id", columns=None) if rows else None
    return GdcFolder(project=project, clinical=clinical, abundance=abundance)


def read_star_counts(path: Path, *, genes: Sequence[str] | None = None) -> pd.Series:
    """Return TPM by gene symbol of one STAR-counts file; genes that share a symbol are added up.

    Raises:
        InvalidInput: not a STAR-counts file, or without one of ``genes``.
    """
    columns = ["gene_id", "gene_name", "gene_type", "tpm_unstranded"]
    try:
        table = pd.read_csv(
            path, sep="\t", skiprows=comment_lines(path), usecols=columns, dtype={"gene_name": str, "gene_type": str}
        )
        values = pd.to_numeric(table["tpm_unstranded"])
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"expected a STAR-counts file with the columns {', '.join(columns)}, could not read one"
        ) from error
    kept = ~table["gene_id"].astype(str).str.startswith("N_") & ~table["gene_id"].astype(str).str.endswith("_PAR_Y")
    kept &= table["gene_name"].isin(genes) if genes is not None else table["gene_type"] == "protein_coding"
    tpm = values[kept].groupby(table["gene_name"][kept], sort=False).sum()
    if not np.isfinite(tpm.to_numpy()).all() or (tpm < 0).any():
        raise InvalidInput("expected finite TPM values of at least 0 in every STAR-counts file")
    if genes is not None:
        absent = [g for g in genes if g not in tpm.index]
        if absent:
            raise InvalidInput(
                f"a STAR-counts file lacks {len(absent)} of the wanted genes, the first is {absent[0]!r}"
            )
        tpm = tpm[list(genes)]
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


def clinical_from_portal(path: Path) -> tuple[Clinical, str]:
    """Return the clinical table of the portal's ``clinical.tsv`` and its project.

    The file has a row per diagnosis and treatment; of each case the row of the primary diagnosis counts.

    Raises:
        InvalidInput: no case column, or several projects.
    """
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path.name}: expected GDC's table of tab-separated values, could not read it") from error
    cases = _column(table, _CASE_COLUMNS, path.name).map(lambda v: case_of(v, where=path.name))
    projects = sorted(set(_column(table, _PROJECT_COLUMNS, path.name)))
    if len(projects) != 1:
        raise InvalidInput(f"{path.name}: expected one project in a file, found {len(projects)}; split it by project")
    names = [short_name(c) for c in table.columns]
    ranked = [_rank(dict(zip(names, row, strict=True))) for row in table.itertuples(index=False, name=None)]
    first = (
        pd.DataFrame({"case": cases, "rank": ranked}).sort_values("rank", kind="stable").drop_duplicates("case").index
    )
    chosen = sorted(first)
    clinical = clinical_table(
        table.loc[chosen].reset_index(drop=True),
        cases.loc[chosen].reset_index(drop=True),
        project=projects[0],
        where=path.name,
    )
    return clinical, projects[0]


def _read_clinical(folder: Path) -> tuple[Clinical, str]:
    if (folder / "cases.json").exists():
        hits = _read_json(folder / "cases.json")
        projects = sorted({str((hit.get("project") or {}).get("project_id")) for hit in hits})
        if len(projects) != 1:
            raise InvalidInput(f"{folder.name}/cases.json: expected the cases of one project, found {len(projects)}")
        return clinical_from_cases(hits, project=projects[0]), projects[0]
    paths = sorted(folder.glob("clinical*.tsv")) or sorted(folder.glob("*/clinical.tsv"))
    if not paths:
        raise InvalidInput(
            f"expected cases.json or clinical.tsv in {folder.name}, found neither; `tessera fetch` brings it"
        )
    return clinical_from_portal(paths[0])


def _owners(folder: Path) -> dict[str, str]:
    """Return file name to sample barcode, from whatever list lies in the folder."""
    owners: dict[str, str] = {}
    for path in sorted(folder.glob("gdc_sample_sheet*.tsv")):
        sheet = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        owners |= dict(
            zip(_column(sheet, ("File Name",), path.name), _column(sheet, ("Sample ID",), path.name), strict=True)
        )
    for path in sorted(folder.glob("metadata*.json")):
        for file in _read_json(path):
            samples = [str(e.get("entity_submitter_id", "")) for e in file.get("associated_entities") or []]
            if len(samples) == 1:
                owners[str(file.get("file_name"))] = samples[0]
    if (folder / "files.json").exists():
        owners |= {str(f.get("file_name")): str(f.get("sample")) for f in _read_json(folder / "files.json")}
    return owners


def _primary(diagnoses: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return min(diagnoses, key=_rank) if diagnoses else {}


def _rank(row: Mapping[str, Any]) -> int:
    """Return 0 for the primary diagnosis with a stage, more for less of that."""
    said = str(row.get("diagnosis_is_primary_disease")).lower(), str(row.get("classification_of_tumor")).lower()
    staged = any(str(row.get(name) or "").lower().startswith("stage") for name in STAGE)
    return 2 * ("true" not in said and "primary" not in said) + (not staged)


def _column(table: pd.DataFrame, names: Sequence[str], where: str) -> pd.Series:
    for name in names:
        if name in table.columns:
            return table[name]
    raise InvalidInput(f"{where}: expected a column {' or '.join(names)}, found none")


def _read_json(path: Path) -> list[dict[str, Any]]:
    if path.stat().st_size > _MAX_LIST_BYTES:
        raise InvalidInput(f"{path.name}: expected at most {_MAX_LIST_BYTES} bytes")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path.name}: expected JSON, could not read it") from error
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidInput(f"{path.name}: expected a list of objects")
    return value
