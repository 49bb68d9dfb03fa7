"""Read a folder of TCGA tables as hospitals have them: one sub-folder per cohort, joined by case id.

``<COHORT>/clinical.csv`` is required (``case_id``, ``tss``, ``stage``, clinical variables); ``mrna.parquet`` and
``image_features.parquet`` are optional, and so is ``image_tilmap64.npz``, which is read instead of the features when
tissue maps are asked for (one small image per case: lymphocytes, cancer, tissue). Each table may be CSV, TSV (also
``.gz``) or Parquet. Rows are joined by ``case_id`` and never by their order. Columns that define the stage, or are
known only after it, are refused as inputs. What is not understood is refused, or said in ``Tables.notes``.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasites.data.patient_rows import check_patients
from datasites.data.reading.mapping import LocalMapping
from datasites.data.reading.tables import TEXT_SUFFIXES, open_table
from datasites.data.tcga.checks import as_numbers, enough_shared, indexed, joined, z_scores
from datasites.data.tcga.clinical import read_clinical
from datasites.data.tcga.leakage import refuse_leakage
from datasites.data.tcga.stages import STAGES, read_stages
from privacy.errors import InvalidInput

CONVERSION = "conversion.json"
"""What ``tessera convert`` leaves beside its tables."""

TASKS: Mapping[str, tuple[int | None, int | None, int | None, int | None]] = {
    "I-II": (0, 1, None, None),
    "early-late": (0, 0, 1, 1),
    "ordinal": (0, 1, 2, 2),
    "I-IV": (0, 1, 2, 3),
}
"""The class of stages I, II, III and IV; None means that such cases are left out."""


def class_count(task: str) -> int:
    """Return the number of classes of ``task``: 2, 3 for the ordinal task, 4 for all stages."""
    return 1 + max(c for c in classes_of(task) if c is not None)


def classes_of(task: str) -> tuple[int | None, ...]:
    """Return the class of each stage under ``task``.

    Raises:
        InvalidInput: no task of that name.
    """
    if task not in TASKS:
        raise InvalidInput(f"unknown task {task!r}: expected one of {', '.join(TASKS)}")
    return TASKS[task]


def labels(clinical: pd.DataFrame, task: str) -> dict[str, int]:
    """Return the class of every labelled case of a clinical table, by case id, in the order of the ids."""
    mapping = classes_of(task)
    found: dict[str, int] = {}
    for case, stage in clinical["stage"].sort_index().items():
        label = None if pd.isna(stage) else mapping[STAGES[str(stage)]]
        if label is not None:
            found[str(case)] = label
    return found


MAPS_FILE = "image_tilmap64.npz"
MAP_FEATURE = "map:"
SIDE, CHANNELS = 64, 3


def map_features(side: int = SIDE) -> list[str]:
    """Return the names of a map's values: ``map:row.column.channel``, channels last."""
    places = range(side)
    return [f"{MAP_FEATURE}{row}.{column}.{c}" for row in places for column in places for c in range(CHANNELS)]


def read_maps(path: Path) -> pd.DataFrame:
    """Read maps as a table of float32 in 0..1, indexed by ``case_id``.

    Raises:
        InvalidInput: not such a file, another shape or type, or a case twice.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        with path.open("rb") as source, np.load(source, allow_pickle=False) as file:
            cases, maps = file["case_id"], file["maps"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{where}: expected an .npz of case_id and maps, could not read it as one") from error
    if maps.dtype != np.uint8 or maps.ndim != 4 or maps.shape[1:] != (SIDE, SIDE, CHANNELS) or len(cases) != len(maps):
        raise InvalidInput(f"{where}: expected maps uint8 [n, {SIDE}, {SIDE}, {CHANNELS}], one for each case_id")
    if len(set(cases.tolist())) < len(cases):
        raise InvalidInput(f"{where}: expected every case once; merge or drop the repeated ones")
    values: NDArray[np.float32] = maps.reshape(len(maps), -1).astype(np.float32) / np.float32(255)
    index = pd.Index([str(case) for case in cases], name="case_id")
    return pd.DataFrame(values, index=index, columns=map_features()).sort_index()


FILES: Mapping[str, str] = {"mrna": "mrna", "image": "image_features"}
Images = Literal["features", "tissue-maps"]
Columns = Literal["common", "all"]


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The tables of one cancer, indexed by case id; a modality that was not measured is absent."""

    name: str
    clinical: pd.DataFrame
    modalities: Mapping[str, pd.DataFrame]
    notes: tuple[str, ...] = ()

    def holds(self, case: str, modality: str) -> bool:
        """Return whether ``case`` has ``modality`` here."""
        table = self.clinical if modality == "clinical" else self.modalities.get(modality)
        return table is not None and case in table.index


@dataclass(frozen=True, kw_only=True)
class Tables:
    """All cohorts of a folder, the genes that every cohort measures, and a line for everything that was lost."""

    cohorts: Mapping[str, Cohort]
    genes: tuple[str, ...]
    image_features: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_tables(
    folder: Path, *, images: Images = "features", columns: Columns = "common", mapping: LocalMapping | None = None
) -> Tables:
    """Read every cohort below ``folder``.

    Args:
        folder: see the module's docstring.
        images: which images to read: computed slide features, or tissue maps for the convolutional encoder.
        columns: see :func:`join_cohorts`.
        mapping: the owner's words and units of clinical columns.

    Raises:
        InvalidInput: no such folder, no cohort in it, a table without ``case_id`` or with duplicate cases, ids that do
            not join, values that are not understood, or tables with too few columns in common.
    """
    if not folder.is_dir():
        raise InvalidInput(f"expected a folder of cohort tables, found none at {folder}; give --data an existing one")
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = [path.name for path in below if _existing(path, "clinical") is not None]
    if not names:
        raise InvalidInput(
            f"expected <COHORT>/clinical.csv below {folder}, found none; give the folder that holds the cohorts"
        )
    notes = [f"{p.name}: a folder without clinical.csv; it is not read" for p in below if p.name not in names]
    listed = folder / "genes_common.txt"
    genes = read_symbols(listed) if listed.exists() else None
    cohorts = [_read_cohort(folder / name, images, mapping) for name in names]
    if images == "tissue-maps" and not any("image" in cohort.modalities for cohort in cohorts):
        raise InvalidInput(f"expected tissue maps ({MAPS_FILE}) in a cohort below {folder}, found none")
    return join_cohorts(cohorts, genes=genes, columns=columns, notes=notes)


def read_symbols(path: Path) -> list[str]:
    """Return a list of gene symbols: one a line, or parted by blanks or commas; each is kept once.

    A byte order mark, blank lines and lines that begin with ``#`` do not count.

    Raises:
        InvalidInput: it cannot be read as text, or names no gene.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path.name}: expected a list of gene symbols as text, could not read one") from error
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found = list(dict.fromkeys(word.strip('"') for line in lines for word in re.split(r"[\s,;]+", line) if word))
    if not found:
        raise InvalidInput(f"{path.name}: expected gene symbols, one a line, found none")
    return found


def images_of(name: str) -> Images:
    """Return which images ``name`` asks for.

    Raises:
        InvalidInput: neither features nor tissue-maps.
    """
    if name == "features":
        return "features"
    if name == "tissue-maps":
        return "tissue-maps"
    raise InvalidInput(f"expected images to be features or tissue-maps, got {name[:40]!r}")


def join_cohorts(
    cohorts: list[Cohort],
    *,
    genes: Sequence[str] | None = None,
    columns: Columns = "common",
    notes: Sequence[str] = (),
) -> Tables:
    """Return cohorts as one set of tables.

    Args:
        cohorts: their tables.
        genes: a public list of genes to keep (``genes_common.txt`` of the folder); default, and where the list names
            none of them: all, which is told of.
        columns: ``common`` keeps the feature columns that all cohorts with a modality have. ``all`` keeps every column
            of any cohort, so that slide features may come from another encoder in each; a cohort that lacks a column
            has zeros there. Sums over a column are then sums over the hospitals of the cohorts that have it, possibly
            fewer than ``min_sites``: fit for comparisons on public data, not for consortia.
        notes: what is to be said besides what the cohorts say.

    Raises:
        InvalidInput: a patient in two cohorts, or tables with too few columns in common.
    """
    _check_apart(cohorts)
    told = [*notes, *(note for cohort in cohorts for note in cohort.notes)]
    measured = _every(cohorts, "mrna")
    kept = _chosen_genes(cohorts, measured, genes, columns, told) if measured else ()
    images = _every(cohorts, "image") if columns == "all" else _common(cohorts, "image", told)
    return Tables(cohorts={c.name: c for c in cohorts}, genes=kept, image_features=images, notes=tuple(told))


def _check_apart(cohorts: Sequence[Cohort]) -> None:
    """Refuse a patient in two cohorts, who could train in one and be held out in the other (InvalidInput)."""
    try:
        check_patients([case for cohort in cohorts for case in cohort.clinical.index])
    except InvalidInput as error:
        raise InvalidInput(f"expected every patient in one cohort only, over all clinical tables: {error}") from error


def _chosen_genes(
    cohorts: list[Cohort], measured: tuple[str, ...], genes: Sequence[str] | None, columns: Columns, told: list[str]
) -> tuple[str, ...]:
    if genes is None:
        return measured if columns == "all" else _common(cohorts, "mrna", told)
    wanted = set(genes)
    found = tuple(gene for gene in measured if gene in wanted)
    if not found:
        told.append(f"genes_common.txt: none of its {len(genes)} genes is measured; all measured genes are kept")
        return _chosen_genes(cohorts, measured, None, columns, told)
    absent = [gene for gene in genes if gene not in set(found)]
    if absent:
        told.append(
            f"genes_common.txt: {len(absent)} of its {len(genes)} genes are measured nowhere, as {absent[0][:40]}"
        )
    if columns == "all":
        return found
    shared = set(found).intersection(*(c.modalities["mrna"].columns for c in cohorts if "mrna" in c.modalities))
    enough_shared({"genes_common.txt": found}, tuple(shared), "mrna")
    if len(shared) < len(found):
        told.append(f"mrna: {len(found) - len(shared)} listed genes are not measured in every cohort and are left out")
    return tuple(gene for gene in found if gene in shared)


def read_table(path: Path) -> pd.DataFrame:
    """Read one table, indexed by ``case_id``: text as text, numbers of a Parquet file as numbers.

    Raises:
        InvalidInput: the file cannot be read, has no ``case_id``, an empty one, or the same one twice.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        if path.suffix == ".parquet":
            return indexed(pd.read_parquet(path), where=where)
        opened = open_table(path)
        pieces = list(opened.pieces(opened.columns))
    except InvalidInput as error:
        raise InvalidInput(f"{path.parent.name}/{error}" if str(error).startswith(path.name) else str(error)) from error
    except (OSError, ValueError) as error:  # pandas' and pyarrow's parse errors are ValueErrors
        raise InvalidInput(f"{where}: expected a {path.suffix[1:]} table, could not read it as one") from error
    table = pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame(columns=list(opened.columns))
    return indexed(table, where=where)


def _read_cohort(folder: Path, images: Images, mapping: LocalMapping | None) -> Cohort:
    place = _existing(folder, "clinical")
    if place is None:
        raise InvalidInput(f"{folder.name}: expected clinical.csv, found none")
    where = f"{folder.name}/{place.name}"
    clinical = read_table(place)
    if "stage" not in clinical.columns:
        raise InvalidInput(f"{where}: expected a column stage with I, II, III or IV")
    clinical, notes = read_clinical(clinical, where=where, mapping=mapping)
    clinical["stage"], told = read_stages(clinical["stage"], where=where)
    notes += told
    modalities = {}
    for modality, stem in FILES.items():
        path = _existing(folder, stem) if modality != "image" or images == "features" else None
        if path is not None:
            modalities[modality] = _read_features(path, modality, clinical, notes)
    if images == "tissue-maps" and (folder / MAPS_FILE).exists():
        modalities["image"] = read_maps(folder / MAPS_FILE)
        notes += joined(modalities["image"], list(clinical.index), where=f"{folder.name}/{MAPS_FILE}")
    return Cohort(name=folder.name, clinical=clinical, modalities=modalities, notes=tuple(notes))


def _read_features(path: Path, modality: str, clinical: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    where = f"{path.parent.name}/{path.name}"
    table = read_table(path)
    if table.empty:
        raise InvalidInput(f"{where}: expected rows and columns of features, it has none; remove it or bring them")
    refuse_leakage(table.columns, where=where, genes=modality == "mrna")
    notes += joined(table, list(clinical.index), where=where)
    table = as_numbers(table, where=where)
    empty = int(table.isna().all(axis=1).sum())
    if empty == len(table):
        raise InvalidInput(f"{where}: expected values, all {table.size} cells are empty")
    if empty:
        notes.append(f"{where}: {empty} rows hold no value; these cases are without {modality}")
        table = table[~table.isna().all(axis=1)]
    if modality == "mrna" and not _scaled_by_us(path.parent):
        z_scores(table, where=where)
    return table


def _scaled_by_us(folder: Path) -> bool:
    """Return whether ``tessera convert`` wrote the cohort: it scaled expression, whatever the signs."""
    return (folder.parent / CONVERSION).exists()


def _existing(folder: Path, stem: str) -> Path | None:
    paths = [folder / f"{stem}{suffix}" for suffix in (".parquet", *TEXT_SUFFIXES)]
    found = [path for path in paths if path.exists()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise InvalidInput(f"{folder.name}: holds {names}; leave only the one that counts")
    return found[0] if found else None


def _common(cohorts: list[Cohort], modality: str, told: list[str]) -> tuple[str, ...]:
    tables = {c.name: c.modalities[modality] for c in cohorts if modality in c.modalities}
    if not tables:
        return ()
    columns = {name: [str(c) for c in table.columns] for name, table in tables.items()}
    shared = set.intersection(*map(set, columns.values()))
    if not shared:
        raise InvalidInput(
            f"the cohorts' {modality} tables have no column in common; check that they name features alike"
        )
    enough_shared(columns, tuple(shared), modality)
    for name, own in columns.items():
        if len(own) > len(shared):
            told.append(f"{name}/{modality}: {len(own) - len(shared)} columns are not in every cohort and are left out")
    return tuple(column for column in next(iter(columns.values())) if column in shared)


def _every(cohorts: list[Cohort], modality: str) -> tuple[str, ...]:
    tables = [c.modalities[modality] for c in cohorts if modality in c.modalities]
    return tuple(dict.fromkeys(str(column) for table in tables for column in table.columns))
