"""Turn GDC, cBioPortal and slide-feature files into cohort tables that ``tessera federation deal`` reads.

::

    <out>/<COHORT>/clinical.csv  mrna.parquet  image_features.parquet
    <out>/genes_common.txt       the public list of genes, if one was given
    <out>/conversion.json        what was read, how it was scaled, which columns were kept as leaks or left out

Expression is put on the scale that the model expects (about that of z-scores) by public constants. No statistic of a
patient's record enters.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from datasites.data.convert.cbioportal import read_study
from datasites.data.convert.gdc import read_gdc
from datasites.data.convert.slide_features import read_features
from datasites.data.tcga.leakage import refuse_leakage
from datasites.data.tcga.stages import STAGES
from datasites.data.tcga.tables import CONVERSION, FILES, read_symbols, read_tables
from privacy.errors import InvalidInput

Scaling = Literal["constants", "reference", "cohort"]
CENTRE, SCALE = 3.0, 2.0
SCALINGS: tuple[Scaling, ...] = ("constants", "reference", "cohort")


def scaled(abundance: pd.DataFrame, scaling: Scaling, reference: Path | None = None) -> pd.DataFrame:
    """Return log2(x + 1), centred and scaled, float32 [cases, genes].

    Args:
        abundance: TPM or RSEM, not negative; missing stays missing.
        scaling: one of :data:`SCALINGS`.
        reference: for ``reference``: a CSV or TSV with the columns ``gene``, ``centre`` and ``scale``. Genes that
            it lacks are left out.

    Raises:
        InvalidInput: negative values, an unknown scaling, or a reference that is missing or malformed.
    """
    if (abundance.to_numpy() < 0).any():
        raise InvalidInput("expected expression values of at least 0 before scaling, found negative ones")
    logarithm = pd.DataFrame(np.log2(abundance.to_numpy() + 1.0), index=abundance.index, columns=abundance.columns)
    if scaling == "constants":
        return ((logarithm - CENTRE) / SCALE).astype(np.float32)
    if scaling == "reference":
        known = _read_reference(reference)
        genes = [g for g in abundance.columns if g in known.index]
        if not genes:
            raise InvalidInput("the reference has no gene in common with the expression table; check the names")
        return logarithm[genes].sub(known["centre"][genes]).div(known["scale"][genes]).astype(np.float32)
    if scaling == "cohort":
        spread = logarithm.std(ddof=0).replace(0.0, 1.0)
        return logarithm.sub(logarithm.mean()).div(spread).astype(np.float32)
    raise InvalidInput(f"unknown scaling {scaling!r}: expected one of {', '.join(SCALINGS)}")


def _read_reference(path: Path | None) -> pd.DataFrame:
    if path is None:
        raise InvalidInput(
            "scaling by reference needs a file with the columns gene, centre and scale; give --reference"
        )
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype={"gene": str}).set_index("gene")
        table = table[["centre", "scale"]].astype(float)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"{path.name}: expected a table with the columns gene, centre and scale") from error
    if table.index.duplicated().any() or not (table["scale"] > 0).all() or not np.isfinite(table.to_numpy()).all():
        raise InvalidInput(f"{path.name}: expected every gene once, with a finite centre and a scale above 0")
    return table


KINDS = ("gdc", "cbioportal", "features")
_COHORT = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_PROJECT_MARKS = ("cases.json", "clinical.tsv")


@dataclass(frozen=True, kw_only=True)
class ConvertedCohort:
    """One cohort's tables; ``modalities`` are indexed by case id. ``notes`` goes to ``conversion.json``."""

    name: str
    clinical: pd.DataFrame
    modalities: Mapping[str, pd.DataFrame]
    notes: Mapping[str, Any] = field(default_factory=dict)


def convert(
    source: Path,
    out: Path,
    *,
    kind: str,
    cohort: str | None = None,
    genes: Path | None = None,
    scaling: Scaling = "constants",
    reference: Path | None = None,
    features: Path | None = None,
    encoder: str | None = None,
    tables: Path | None = None,
    partial: bool = False,
) -> tuple[ConvertedCohort, ...]:
    """Read ``source`` and write ``out``, which appears complete or not at all.

    Args:
        source: a GDC folder (or a folder of them), a cBioPortal study, or a folder of slide features.
        out: a new folder.
        kind: one of :data:`KINDS`.
        cohort: the cohort's name; default: from the project or the study.
        genes: a text file of gene symbols to keep; it becomes ``genes_common.txt``.
        scaling, reference: see :func:`datasites.data.convert.conversion.scaled`; for what is not z-scores already.
        features: a folder of slide features to join by case, for ``gdc`` and ``cbioportal``.
        encoder: which network made them.
        tables: for ``features``: a folder of cohort tables that the features are joined to.
        partial: go on without files that are missing, broken or of nobody; ``conversion.json`` says how many.

    Raises:
        InvalidInput: bad files, names or numbers; nothing was written.
    """
    if out.exists():
        raise InvalidInput(f"expected a new output folder, {out} exists; choose another one or remove it")
    if not source.is_dir():
        raise InvalidInput(f"expected a folder to convert, found none at {source}")
    wanted = read_symbols(genes) if genes is not None else None
    if kind == "gdc":
        cohorts = [
            made for f in _projects(source) for made in _from_gdc(f, cohort, wanted, scaling, reference, partial)
        ]
    elif kind == "cbioportal":
        cohorts = [_from_study(source, cohort, wanted, scaling, reference, partial)]
    elif kind == "features":
        if tables is None:
            raise InvalidInput("slide features alone have no stage; give --tables, a folder of cohort tables to join")
        cohorts, features = _from_tables(tables), source
    else:
        raise InvalidInput(f"unknown source {kind!r}: expected one of {', '.join(KINDS)}")
    if features is not None:
        lost: list[str] = []
        cohorts = _joined(cohorts, read_features(features, encoder=encoder, partial=partial, notes=lost), lost)
    return tuple(_write(out, cohorts, wanted))


def _projects(source: Path) -> list[Path]:
    if any((source / mark).exists() for mark in _PROJECT_MARKS):
        return [source]
    below = sorted({p.parent for mark in _PROJECT_MARKS for p in source.glob(f"*/{mark}")})
    if not below:
        raise InvalidInput(f"expected cases.json or clinical.tsv in {source.name} or its sub-folders, found none")
    return below


def _from_gdc(
    folder: Path,
    cohort: str | None,
    genes: Sequence[str] | None,
    scaling: Scaling,
    reference: Path | None,
    partial: bool,
) -> list[ConvertedCohort]:
    projects = read_gdc(folder, genes=genes, partial=partial)
    if cohort is not None and len(projects) > 1:
        names = ", ".join(read.project for read in projects)
        raise InvalidInput(f"{folder.name} holds several projects ({names}); --cohort names one cohort only")
    made = []
    for read in projects:
        mrna = {} if read.abundance is None else {"mrna": scaled(read.abundance, scaling, reference)}
        notes = {
            "source": "gdc",
            "mrna": f"log2(TPM + 1), {scaling}" if mrna else "none",
            "leaking": read.clinical.leaking,
            "left_out": read.clinical.left_out,
            "lost": list(read.notes),
        }
        made.append(_cohort(cohort or read.project.rsplit("-", 1)[-1], read.clinical.table, mrna, notes))
    return made


def _from_study(
    folder: Path,
    cohort: str | None,
    genes: Sequence[str] | None,
    scaling: Scaling,
    reference: Path | None,
    partial: bool,
) -> ConvertedCohort:
    read = read_study(folder, genes=genes, partial=partial)
    mrna = read.expression
    if mrna is not None and not read.z_scores:
        mrna = scaled(mrna, scaling, reference)
    scale = "z-scores as published" if read.z_scores else f"log2(x + 1), {scaling}"
    return _cohort(
        cohort or read.cancer,
        read.clinical.table,
        {} if mrna is None else {"mrna": mrna},
        {
            "source": "cbioportal",
            "mrna": f"{read.expression_file}: {scale}" if mrna is not None else "none",
            "leaking": read.clinical.leaking,
            "left_out": read.clinical.left_out,
            "lost": list(read.notes),
        },
    )


def _from_tables(folder: Path) -> list[ConvertedCohort]:
    read = read_tables(folder, columns="all")
    of_cohorts = {note for c in read.cohorts.values() for note in c.notes}
    of_all = [note for note in read.notes if note not in of_cohorts]  # such as a folder that is no cohort
    return [
        _cohort(
            name,
            c.clinical.reset_index(),
            {m: t for m, t in c.modalities.items() if m != "image"},
            {"source": "tables", "lost": [*of_all, *c.notes]},
        )
        for name, c in sorted(read.cohorts.items())
    ]


def _cohort(
    name: str, clinical: pd.DataFrame, modalities: Mapping[str, pd.DataFrame], notes: Mapping[str, Any]
) -> ConvertedCohort:
    if not _COHORT.fullmatch(name):
        raise InvalidInput("expected a cohort name of capital letters, digits, _ and -; give --cohort")
    for modality, table in modalities.items():
        refuse_leakage(table.columns, where=f"{name}/{modality}", genes=modality == "mrna")
    return ConvertedCohort(name=name, clinical=clinical, modalities=modalities, notes=notes)


def _joined(cohorts: Sequence[ConvertedCohort], features: pd.DataFrame, lost: Sequence[str]) -> list[ConvertedCohort]:
    """Return the cohorts with the slide features of their cases; slides of other cases are counted and left out."""
    made = []
    every = {case for c in cohorts for case in c.clinical["case_id"]}
    strangers = sum(case not in every for case in features.index)
    told = [*lost, *([f"{strangers} cases with slides are in no clinical table"] if strangers else [])]
    for c in cohorts:
        own = features[features.index.isin(set(c.clinical["case_id"]))]
        images = {"image": own} if len(own) else {}
        text = f"{own.shape[1]} features, mean over patches and slides" if images else "none"
        notes = {**c.notes, "image": text, "lost": [*c.notes.get("lost", []), *told]}
        made.append(_cohort(c.name, c.clinical, {**c.modalities, **images}, notes))
    if not any("image" in c.modalities for c in made):
        raise InvalidInput("the slide features and the clinical tables have no case in common; check the barcodes")
    return made


def _write(out: Path, cohorts: Sequence[ConvertedCohort], genes: Sequence[str] | None) -> list[ConvertedCohort]:
    """Write the tables and read them again; return the cohorts with what the reader of tables had to say."""
    names = [c.name for c in cohorts]
    if len(set(names)) < len(names):
        raise InvalidInput("two of the folders are of the same cohort; convert them one by one")
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for c in cohorts:
            _write_cohort(staging / c.name, c)
        if genes is not None:
            (staging / "genes_common.txt").write_text("\n".join(genes) + "\n", encoding="utf-8")
        notes = {c.name: {**c.notes, **summary(c)} for c in cohorts}
        _write_notes(staging, notes)
        read = read_tables(staging, columns="all")  # what cannot be read again is not handed over
        told = {name: [*notes[name].get("lost", []), *cohort.notes] for name, cohort in read.cohorts.items()}
        _write_notes(staging, {name: {**own, "lost": told[name]} for name, own in notes.items()})
        staging.chmod(0o700)
        staging.replace(out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return [replace(c, notes={**c.notes, "lost": told[c.name]}) for c in cohorts]


def _write_notes(folder: Path, notes: Mapping[str, Any]) -> None:
    (folder / CONVERSION).write_text(json.dumps(notes, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_cohort(folder: Path, cohort: ConvertedCohort) -> None:
    folder.mkdir()
    cohort.clinical.sort_values("case_id").to_csv(folder / "clinical.csv", index=False)
    for modality, table in cohort.modalities.items():
        table.sort_index().reset_index().to_parquet(folder / f"{FILES[modality]}.parquet", index=False)


def summary(cohort: ConvertedCohort) -> dict[str, Any]:
    """Return how many cases a cohort has, how many of each stage, and of each modality."""
    stages = cohort.clinical["stage"]
    return {
        "cases": len(cohort.clinical),
        "stages": {stage: int((stages == stage).sum()) for stage in STAGES},
        "modalities": {m: {"cases": len(t), "features": t.shape[1]} for m, t in cohort.modalities.items()},
    }
