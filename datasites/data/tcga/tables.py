"""Read a folder of TCGA tables as hospitals have them: one sub-folder per cohort, joined by case id.

``<COHORT>/clinical.csv`` is required (``case_id``, ``tss``, ``stage``, clinical variables); ``mrna.parquet`` and
``image_features.parquet`` (or ``.csv``) are optional, and so is ``image_tilmap64.npz``, which is read instead of the
features when tissue maps are asked for (one small image per case: lymphocytes, cancer, tissue). Rows are joined by
``case_id`` and never by their order. Columns that define the stage, or are known only after it, are refused as inputs.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from privacy.errors import InvalidInput

LEAKING_PREFIXES = ("leak_", "stage", "has_")
"""T, N, M and the resection report; the label itself; which files a case is in."""


def refuse_leakage(columns: Iterable[str], *, where: str) -> None:
    """Refuse any column that would leak the stage into the inputs.

    Raises:
        InvalidInput: names the first offending column and what to do about it.
    """
    for column in columns:
        if str(column).lower().startswith(LEAKING_PREFIXES):
            raise InvalidInput(
                f"{where}: column {column!r} defines or leaks the stage and cannot be an input; "
                "leave out columns that start with leak_, stage or has_"
            )


TASKS: Mapping[str, tuple[int | None, int | None, int | None, int | None]] = {
    "I-II": (0, 1, None, None),
    "early-late": (0, 0, 1, 1),
    "ordinal": (0, 1, 2, 2),
    "I-IV": (0, 1, 2, 3),
}
"""The class of stages I, II, III and IV; None means that such cases are left out."""

_POSITION = {"I": 0, "II": 1, "III": 2, "IV": 3}


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
        label = None if pd.isna(stage) else mapping[_POSITION[str(stage)]]
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
STAGES = {"I": 0, "II": 1, "III": 2, "IV": 3}


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The tables of one cancer, indexed by case id; a modality that was not measured is absent."""

    name: str
    clinical: pd.DataFrame
    modalities: Mapping[str, pd.DataFrame]

    def holds(self, case: str, modality: str) -> bool:
        """Return whether ``case`` has ``modality`` here."""
        table = self.clinical if modality == "clinical" else self.modalities.get(modality)
        return table is not None and case in table.index


@dataclass(frozen=True, kw_only=True)
class Tables:
    """All cohorts of a folder, and the genes that every cohort measures."""

    cohorts: Mapping[str, Cohort]
    genes: tuple[str, ...]
    image_features: tuple[str, ...]


def read_tables(folder: Path, *, images: Images = "features", columns: Columns = "common") -> Tables:
    """Read every cohort below ``folder``.

    Args:
        folder: see the module's docstring.
        images: which images to read: computed slide features, or tissue maps for the convolutional encoder.
        columns: see :func:`join_cohorts`.

    Raises:
        InvalidInput: no such folder, no cohort in it, a table without ``case_id`` or with duplicate cases, or tables
            with no column in common where common ones are wanted.
    """
    if not folder.is_dir():
        raise InvalidInput(f"expected a folder of cohort tables, found none at {folder}; give --data an existing one")
    names = sorted(p.parent.name for p in folder.glob("*/clinical.csv"))
    if not names:
        raise InvalidInput(
            f"expected <COHORT>/clinical.csv below {folder}, found none; give the folder that holds the cohorts"
        )
    listed = folder / "genes_common.txt"
    genes = listed.read_text().split() if listed.exists() else None
    return join_cohorts([_read_cohort(folder / name, images) for name in names], genes=genes, columns=columns)


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


def join_cohorts(cohorts: list[Cohort], *, genes: Sequence[str] | None = None, columns: Columns = "common") -> Tables:
    """Return cohorts as one set of tables.

    Args:
        cohorts: their tables.
        genes: a public list of genes to keep (``genes_common.txt`` of the folder); default, and where the list names
            none of them: all.
        columns: ``common`` keeps the feature columns that all cohorts with a modality have. ``all`` keeps every column
            of any cohort, so that slide features may come from another encoder in each; a cohort that lacks a column
            has zeros there. Sums over a column are then sums over the hospitals of the cohorts that have it, possibly
            fewer than ``min_sites``: fit for comparisons on public data, not for consortia.
    """
    join = _every if columns == "all" else _common
    found = join(cohorts, "mrna")
    kept = found if genes is None else _kept(found, set(genes))
    return Tables(cohorts={c.name: c for c in cohorts}, genes=kept or found, image_features=join(cohorts, "image"))


def read_table(path: Path) -> pd.DataFrame:
    """Read one CSV or Parquet table, indexed by ``case_id``.

    Raises:
        InvalidInput: the file cannot be read, has no ``case_id``, an empty one, or the same one twice.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (OSError, ValueError) as error:  # pandas' and pyarrow's parse errors are ValueErrors
        raise InvalidInput(f"{where}: expected a {path.suffix[1:]} table, could not read it as one") from error
    if "case_id" not in table.columns:
        raise InvalidInput(f"{where}: expected a column case_id, got {len(table.columns)} columns without it")
    if table["case_id"].isna().any():
        raise InvalidInput(f"{where}: every row needs a case_id, {int(table['case_id'].isna().sum())} have none")
    repeated = int(table["case_id"].duplicated().sum())
    if repeated:
        raise InvalidInput(f"{where}: expected every case once, {repeated} rows repeat a case_id; merge or drop them")
    return table.set_index("case_id").sort_index()


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"case_id": str, "tss": str}, low_memory=False)


def _read_cohort(folder: Path, images: Images) -> Cohort:
    clinical = read_table(folder / "clinical.csv")
    if "stage" not in clinical.columns:
        raise InvalidInput(f"{folder.name}/clinical.csv: expected a column stage with I, II, III or IV")
    found = set(clinical["stage"].dropna().astype(str)) - set(STAGES)
    if found:
        raise InvalidInput(f"{folder.name}/clinical.csv: expected stages I, II, III, IV or blank, found other values")
    paths = {m: _existing(folder, stem) for m, stem in FILES.items() if m != "image" or images == "features"}
    modalities = {m: read_table(path) for m, path in paths.items() if path is not None}
    if images == "tissue-maps" and (folder / MAPS_FILE).exists():
        modalities["image"] = read_maps(folder / MAPS_FILE)
    return Cohort(name=folder.name, clinical=clinical, modalities=modalities)


def _existing(folder: Path, stem: str) -> Path | None:
    paths = [folder / f"{stem}{suffix}" for suffix in (".parquet", ".csv")]
    return next((path for path in paths if path.exists()), None)


def _common(cohorts: list[Cohort], modality: str) -> tuple[str, ...]:
    tables = [c.modalities[modality] for c in cohorts if modality in c.modalities]
    if not tables:
        return ()
    shared = set(tables[0].columns).intersection(*(t.columns for t in tables[1:]))
    if not shared:
        raise InvalidInput(
            f"the cohorts' {modality} tables have no column in common; check that they name features alike"
        )
    return tuple(str(c) for c in tables[0].columns if c in shared)


def _every(cohorts: list[Cohort], modality: str) -> tuple[str, ...]:
    tables = [c.modalities[modality] for c in cohorts if modality in c.modalities]
    return tuple(dict.fromkeys(str(column) for table in tables for column in table.columns))


def _kept(columns: tuple[str, ...], wanted: set[str]) -> tuple[str, ...]:
    return tuple(c for c in columns if c in wanted)
