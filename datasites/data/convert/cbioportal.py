"""Reading a cBioPortal study folder: clinical attributes of patients, and expression by gene and sample.

Source: cBioPortal documentation, "File Formats". Files are tab-separated; the clinical ones begin with lines that
describe their columns, each after ``#``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from datasites.data.convert.barcodes import PRIMARY_TUMOURS, comment_lines, sample_type
from datasites.data.convert.clinical_columns import STAGE, Clinical, clinical_table, short_name
from datasites.data.reading.patients import alike
from datasites.data.reading.sniffing import what_is
from datasites.study.schema.variables import MISSING, plain
from datasites.study.text import visible
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


PRIMARY_WORDS = frozenset(
    {
        *("primary", "primary tumor", "primary tumour", "primary solid tumor", "primary solid tumour", "01"),
        *("primary blood derived cancer - peripheral blood", "primary blood derived cancer - bone marrow", "tumor"),
        *("primary cancer", "new primary", "primary lesion", "tumour", "1"),
    }
)
"""What SAMPLE_TYPE calls a primary tumour, as words are compared; everything else is another tissue."""

_TYPE_COLUMNS = ("SAMPLE_TYPE", "TUMOR_TYPE", "SAMPLE_CLASS", "SAMPLE_TYPE_ID", "SPECIMEN_TYPE")
_NO_SAMPLES = ("Hugo_Symbol", "Entrez_Gene_Id", "Cytoband")
_LOGARITHMS, _MANY_GENES = 30.0, 100


@dataclass(frozen=True, kw_only=True)
class StudyFolder:
    """One study: its cancer type, its patients, and expression by case and gene (None: none of these files).

    ``z_scores`` says whether ``expression`` is on that scale already or is RSEM, TPM or the like. ``notes`` has a line
    for everything that was left out.
    """

    cancer: str
    clinical: Clinical
    expression: pd.DataFrame | None
    z_scores: bool
    expression_file: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Samples:
    """The sample table: patient and type (None: no column says it) by sample, and its other attributes."""

    patient: Mapping[str, str]
    kind: Mapping[str, str] | None
    table: pd.DataFrame | None


def read_study(folder: Path, *, genes: Sequence[str] | None = None, partial: bool = False) -> StudyFolder:
    """Read one study's folder.

    Args:
        folder: holds ``data_clinical_patient.txt``, perhaps ``meta_study.txt``, samples and expression; any of them
            may be packed (``.gz``).
        genes: symbols to keep; default: all.
        partial: take the first sample of a patient where nothing says which is the primary tumour.

    Raises:
        InvalidInput: no patients, ids that do not join, samples of which nobody knows which is primary, or a file of
            another form.
    """
    path = _first(folder, PATIENTS)
    if path is None:
        raise InvalidInput(f"expected {PATIENTS[0]} in {folder.name}, found none; give the study's own folder")
    patients = _read(path, "PATIENT_ID")
    cancer = _meta(folder).get("type_of_cancer", "").upper()
    samples = _samples_of(folder)
    notes: list[str] = []
    patients = _with_stage(patients, samples, notes)
    clinical = clinical_table(
        patients.drop(columns="PATIENT_ID"), patients["PATIENT_ID"], project=cancer or folder.name, where=path.name
    )
    found = _first(folder, (*Z_SCORES, *ABUNDANCES))
    expression = None
    if found is None:
        notes += [f"{p.name} is not read" for p in sorted(folder.glob("data_mrna*"))]
    else:
        expression = _expression(found, samples, clinical, genes, partial, notes)
    name = "" if found is None else found.name.removesuffix(".gz")
    return StudyFolder(
        cancer=cancer,
        clinical=clinical,
        expression=expression,
        z_scores=name in Z_SCORES,
        expression_file=name,
        notes=(*clinical.notes, *notes),
    )


def _expression(
    path: Path,
    samples: _Samples,
    clinical: Clinical,
    genes: Sequence[str] | None,
    partial: bool,
    notes: list[str],
) -> pd.DataFrame:
    try:
        head = pd.read_csv(path, sep="\t", nrows=0, skiprows=comment_lines(path)).columns.astype(str)
    except (OSError, EOFError, ValueError) as error:
        raise InvalidInput(f"{path.name}: expected a table of genes and samples, found {what_is(path)}") from error
    if "Hugo_Symbol" not in head:
        raise InvalidInput(f"{path.name}: expected a column Hugo_Symbol, found {_told_head(path)}")
    columns = [c for c in head if c not in _NO_SAMPLES]
    chosen = _primaries(columns, samples, list(clinical.table["case_id"]), path.name, partial, notes)
    table = pd.read_csv(
        path,
        sep="\t",
        skiprows=comment_lines(path),
        usecols=["Hugo_Symbol", *chosen.values()],
        dtype={"Hugo_Symbol": str},
        keep_default_na=False,
        na_values={sample: ["", "NA", "NaN", "nan", "null"] for sample in chosen.values()},
    )
    named = table["Hugo_Symbol"] != ""
    repeated = int(table["Hugo_Symbol"][named].duplicated().sum())
    if repeated or not named.all():
        notes.append(
            f"{path.name}: {int((~named).sum())} rows name no gene and {repeated} repeat one, of which the first counts"
        )
    table = table[named].drop_duplicates("Hugo_Symbol").set_index("Hugo_Symbol")
    if genes is not None:
        absent = [gene for gene in genes if gene not in table.index]
        if len(absent) == len(genes):
            raise InvalidInput(f"{path.name}: has none of the {len(genes)} listed genes; check the list's symbols")
        if absent:
            notes.append(
                f"{path.name}: {len(absent)} of the {len(genes)} listed genes are missing, as {absent[0][:40]}"
            )
        table = table[table.index.isin(set(genes))]
    try:
        values = table.T.astype(np.float32)
    except ValueError as error:
        raise InvalidInput(f"{path.name}: expected numbers or NA, found something else") from error
    patient = {sample: case for case, sample in chosen.items()}
    values.index = pd.Index([patient[sample] for sample in values.index], name="case_id")
    values.columns.name = None
    empty = int(values.isna().all(axis=0).sum())
    if empty:
        notes.append(f"{path.name}: {empty} genes have no value in any chosen sample and are left out")
    values = values.dropna(axis="columns", how="all").sort_index()
    _check_abundance(values, path)
    return values


def _check_abundance(values: pd.DataFrame, path: Path) -> None:
    """Refuse logarithms in a file that should hold abundances: they would be taken twice."""
    if path.name.removesuffix(".gz") in Z_SCORES or values.shape[1] < _MANY_GENES:
        return
    largest = float(np.nanmax(values.to_numpy()))
    if largest <= _LOGARITHMS:
        raise InvalidInput(
            f"{path.name}: expected abundances (TPM, FPKM, RSEM), found values of at most {largest:.3g}, as logarithms "
            "have; give the untransformed file or the z-scores"
        )


def _primaries(
    columns: Sequence[str], samples: _Samples, cases: Sequence[str], where: str, partial: bool, notes: list[str]
) -> dict[str, str]:
    """Return the sample of the primary tumour of each patient, by patient; SAMPLE_TYPE decides, then the barcode."""
    known = set(cases)
    candidates: dict[str, list[str]] = {}
    other: Counter[str] = Counter()
    strangers = [
        sample for sample in columns if samples.patient and sample not in samples.patient and not _is_tcga(sample)
    ]
    _refuse_other_spelling(strangers, samples, where)
    for sample in sorted(set(columns) - set(strangers)):
        patient = samples.patient.get(sample) or _patient_in(sample)
        if patient not in known:
            strangers.append(sample)
        elif (kind := _kind(sample, samples)) is not None:
            other[kind] += 1
        else:
            candidates.setdefault(patient, []).append(sample)
    if not candidates:
        raise InvalidInput(f"{where}: expected samples of the study's patients, found none of a primary tumour")
    unsure = sum(len(found) > 1 and samples.kind is None and not _is_tcga(found[0]) for found in candidates.values())
    if unsure and not partial:
        raise InvalidInput(
            f"{where}: {unsure} patients have several samples, and neither SAMPLE_TYPE nor a TCGA barcode says which "
            "is the primary tumour; add the column to data_clinical_sample.txt, or take the first by --partial"
        )
    chosen = {patient: found[0] for patient, found in candidates.items()}
    spare = sum(len(found) - 1 for found in candidates.values())
    notes += [f"{where}: {spare} more primary samples of patients who have one already are left out"] if spare else []
    if other:
        kinds = ", ".join(f"{visible(kind)[:40]} ({count})" for kind, count in other.most_common(5))
        without = len({samples.patient.get(s) or _patient_in(s) for s in columns} & known - set(chosen))
        notes.append(f"{where}: samples of no primary tumour are left out: {kinds}; {without} patients have no other")
    if strangers:
        notes.append(f"{where}: {len(strangers)} samples are of no patient of the study and are left out")
    return chosen


def _refuse_other_spelling(strangers: Sequence[str], samples: _Samples, where: str) -> None:
    loose = {alike(sample) for sample in samples.patient}
    found = sum(alike(sample) in loose for sample in strangers)
    if found:
        raise InvalidInput(
            f"{where}: {found} of its samples are not in the sample table, but would be without capitals, signs and "
            "leading zeros; write sample ids alike in both files"
        )


def _kind(sample: str, samples: _Samples) -> str | None:
    """Return what a sample is, None for a primary tumour."""
    code = sample_type(sample)
    said = None if samples.kind is None else samples.kind.get(sample, "")
    if said is not None and plain(said) not in PRIMARY_WORDS:
        if plain(said) not in MISSING:
            return said
        return None if code in PRIMARY_TUMOURS else "of unknown type"
    if code not in (*PRIMARY_TUMOURS, None):
        return f"barcode of type {code}"
    return None


def _with_stage(patients: pd.DataFrame, samples: _Samples, notes: list[str]) -> pd.DataFrame:
    """Return the patients with the stage of their primary sample, where only the sample table says it."""
    if any(short_name(c) in STAGE for c in patients.columns) or samples.table is None:
        return patients
    column = next((c for c in samples.table.columns if short_name(c) in STAGE), None)
    if column is None:
        return patients
    primary = samples.table[[_kind(sample, samples) is None for sample in samples.table["SAMPLE_ID"]]]
    words = primary.groupby("PATIENT_ID")[column].agg(lambda cells: list(dict.fromkeys(filter(None, cells))))
    several = int((words.map(len) > 1).sum())
    if several:
        notes.append(f"{several} patients have primary samples of different stages and have no stage")
    stage = patients["PATIENT_ID"].map(lambda patient: words.get(patient, []))
    return patients.assign(**{column: stage.map(lambda found: found[0] if len(found) == 1 else "")})


def _samples_of(folder: Path) -> _Samples:
    path = _first(folder, SAMPLES)
    if path is None:
        return _Samples(patient={}, kind=None, table=None)
    table = _read(path, "SAMPLE_ID")
    if "PATIENT_ID" not in table.columns:
        raise InvalidInput(f"{path.name}: expected a column PATIENT_ID, found none")
    if table["SAMPLE_ID"].duplicated().any():
        raise InvalidInput(
            f"{path.name}: expected every sample once, {int(table['SAMPLE_ID'].duplicated().sum())} repeat"
        )
    column = next((name for name in _TYPE_COLUMNS if name in table.columns), None)
    kinds = None if column is None else dict(zip(table["SAMPLE_ID"], table[column], strict=True))
    return _Samples(patient=dict(zip(table["SAMPLE_ID"], table["PATIENT_ID"], strict=True)), kind=kinds, table=table)


def _is_tcga(sample: str) -> bool:
    return sample_type(sample) is not None


def _patient_in(sample: str) -> str:
    return sample[:12] if _is_tcga(sample) else sample


def _told_head(path: Path) -> str:
    """Return what a file without the wanted column is."""
    found = what_is(path)
    return "none" if found == "other content" else found


def _read(path: Path, key: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, sep="\t", skiprows=comment_lines(path), dtype=str, keep_default_na=False)
    except (OSError, EOFError, ValueError) as error:
        raise InvalidInput(f"{path.name}: expected tab-separated values, found {what_is(path)}") from error
    if key not in table.columns:
        raise InvalidInput(f"{path.name}: expected a column {key}, found {_told_head(path)}")
    return table.map(str.strip)


def _meta(folder: Path) -> dict[str, str]:
    path = folder / "meta_study.txt"
    lines = path.read_text(encoding="utf-8-sig").splitlines() if path.exists() else []
    return {key.strip(): value.strip() for key, found, value in (line.partition(":") for line in lines) if found}


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    paths = (folder / f"{name}{packed}" for name in names for packed in ("", ".gz"))
    return next((path for path in paths if path.exists()), None)
