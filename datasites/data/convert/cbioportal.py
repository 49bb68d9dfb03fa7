"""Reading a cBioPortal study folder: clinical attributes of patients, and expression by gene and sample.

Source: cBioPortal documentation, "File Formats". Files are tab-separated; the clinical ones begin with lines that
describe their columns, each after ``#``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from datasites.data.convert.barcodes import PRIMARY_TUMOUR, comment_lines, sample_type
from datasites.data.convert.clinical_columns import Clinical, clinical_table
from privacy.errors import InvalidInput

PATIENTS = ("data_clinical_patient.txt", "data_bcr_clinical_data_patient.txt")
SAMPLES = ("data_clinical_sample.txt", "data_bcr_clinical_data_sample.txt")
Z_SCORES = (
    "data_mrna_seq_v2_rsem_zscores_ref_diploid_samples.txt",
    "data_RNA_Seq_v2_mRNA_median_Zscores.txt",
    "data_mrna_seq_v2_rsem_zscores_ref_all_samples.txt",
    "data_RNA_Seq_v2_mRNA_median_all_sample_Zscores.txt",
)
ABUNDANCES = (
    "data_mrna_seq_v2_rsem.txt",
    "data_RNA_Seq_v2_expression_median.txt",
    "data_mrna_seq_tpm.txt",
    "data_mrna_seq_rpkm.txt",
    "data_mrna_seq_fpkm.txt",
)
"""Files by preference; the z-scores against diploid samples are those our own tables hold."""


@dataclass(frozen=True, kw_only=True)
class StudyFolder:
    """One study: its cancer type, its patients, and expression by case and gene (None: none of these files).

    ``z_scores`` says whether ``expression`` is on that scale already or is RSEM, TPM or the like.
    """

    cancer: str
    clinical: Clinical
    expression: pd.DataFrame | None
    z_scores: bool
    expression_file: str


def read_study(folder: Path, *, genes: Sequence[str] | None = None) -> StudyFolder:
    """Read one study's folder.

    Args:
        folder: holds ``data_clinical_patient.txt``, perhaps ``meta_study.txt``, samples and expression.
        genes: symbols to keep; default: all.

    Raises:
        InvalidInput: no patients, or a file of another form.
    """
    path = _first(folder, PATIENTS)
    if path is None:
        raise InvalidInput(f"expected {PATIENTS[0]} in {folder.name}, found none; give the study's own folder")
    patients = _read(path, "PATIENT_ID")
    cancer = _meta(folder).get("type_of_cancer", "").upper()
    clinical = clinical_table(
        patients.drop(columns="PATIENT_ID"), patients["PATIENT_ID"], project=cancer or folder.name, where=path.name
    )
    found = _first(folder, (*Z_SCORES, *ABUNDANCES))
    return StudyFolder(
        cancer=cancer,
        clinical=clinical,
        expression=None if found is None else _expression(found, _patients_of(folder), clinical, genes),
        z_scores=found is not None and found.name in Z_SCORES,
        expression_file="" if found is None else found.name,
    )


def _expression(
    path: Path, patient_of: Mapping[str, str], clinical: Clinical, genes: Sequence[str] | None
) -> pd.DataFrame:
    head = pd.read_csv(path, sep="\t", nrows=0, skiprows=comment_lines(path)).columns.astype(str)
    if "Hugo_Symbol" not in head:
        raise InvalidInput(f"{path.name}: expected a column Hugo_Symbol, found none")
    cases = set(clinical.table["case_id"])
    chosen: dict[str, str] = {}
    for sample in sorted(c for c in head if c not in ("Hugo_Symbol", "Entrez_Gene_Id", "Cytoband")):
        patient = patient_of.get(sample) or _patient_in(sample)
        if patient in cases and sample_type(sample) in (PRIMARY_TUMOUR, None):
            chosen.setdefault(patient, sample)
    if not chosen:
        raise InvalidInput(f"{path.name}: expected samples of the study's patients, found none of a primary tumour")
    table = pd.read_csv(
        path,
        sep="\t",
        skiprows=comment_lines(path),
        usecols=["Hugo_Symbol", *chosen.values()],
        dtype={"Hugo_Symbol": str},
    )
    table = table[table["Hugo_Symbol"].fillna("") != ""].drop_duplicates("Hugo_Symbol").set_index("Hugo_Symbol")
    if genes is not None:
        table = table[table.index.isin(set(genes))]
    try:
        values = table.T.astype(np.float32)
    except ValueError as error:
        raise InvalidInput(f"{path.name}: expected numbers or NA, found something else") from error
    values.index = pd.Index([{s: p for p, s in chosen.items()}[sample] for sample in values.index], name="case_id")
    values.columns.name = None
    return values.dropna(axis="columns", how="all").sort_index()


def _patients_of(folder: Path) -> dict[str, str]:
    path = _first(folder, SAMPLES)
    if path is None:
        return {}
    samples = _read(path, "SAMPLE_ID")
    if "PATIENT_ID" not in samples.columns:
        raise InvalidInput(f"{path.name}: expected a column PATIENT_ID, found none")
    return dict(zip(samples["SAMPLE_ID"], samples["PATIENT_ID"], strict=True))


def _patient_in(sample: str) -> str:
    return sample[:12] if sample_type(sample) is not None else sample


def _read(path: Path, key: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, sep="\t", skiprows=comment_lines(path), dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path.name}: expected tab-separated values, could not read them") from error
    if key not in table.columns:
        raise InvalidInput(f"{path.name}: expected a column {key}, found none")
    return table


def _meta(folder: Path) -> dict[str, str]:
    path = folder / "meta_study.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {key.strip(): value.strip() for key, found, value in (line.partition(":") for line in lines) if found}


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)
