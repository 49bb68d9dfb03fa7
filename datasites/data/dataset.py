"""One version of one dataset on disk: a public schema, a private part and a mock part of the same shape.

::

    <dataset>/schema.json            public: modalities, feature names, cohorts, task, preprocessing
    <dataset>/private/records.parquet   case_id, cohort, label
    <dataset>/private/<modality>.parquet   case_id and the model's inputs, float32: a column each, or (tissue maps)
                                           all in one column, a list a row
    <dataset>/mock/...               the same files with synthetic rows

The mock is drawn from public constants only: it says nothing about the private part but its schema, and has
its own number of rows. Features are stored preprocessed; ``schema.json`` says how.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasites.data.part_files import (
    Sliced,
    blocks,
    file_hash,
    modality_blocks,
    read_columns,
    read_modality,
    write_modality,
)
from datasites.data.patient_rows import check_patients, check_rows, row_hashes
from datasites.study.signing import parse
from datasites.study.text import visible
from models.config import InvalidModel, Target, check_modality, in_order
from privacy.canonical import canonical_hash, canonical_json
from privacy.errors import InvalidInput

MOCK_ROWS = 48
MOCK_MISSING = 0.05
"""Share of a mock variable's values that are missing."""

_ADDED = frozenset({"predicts", "gains", "self_scaled", "mock"})
PARTS = ("private", "mock")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")
Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What anybody may know of a dataset.

    ``features`` maps every modality of the *study* to its feature names, in order: all sites of a federation have
    the same ones, so that their updates line up. ``modalities`` are those that this site holds. ``predicts`` says what
    the labels are where they are no classes in order, ``gains`` are public factors by modality, ``self_scaled`` names
    the modalities of which each hospital scales its own records by their own statistics. ``mock`` says what the mock
    part follows where it is more than the public schema.
    """

    name: str
    version: int
    institution: str
    cohort: str
    cohorts: tuple[str, ...]
    task: str
    classes: int
    modalities: tuple[str, ...]
    features: Mapping[str, tuple[str, ...]]
    preprocessing: Mapping[str, str]
    source: str
    predicts: Target | None = None
    gains: Mapping[str, float] = field(default_factory=dict)
    self_scaled: tuple[str, ...] = ()
    mock: str = ""

    @property
    def schema_hash(self) -> str:
        """SHA-256 of the canonical schema."""
        return canonical_hash(self.plain())

    def plain(self) -> dict[str, Any]:
        """Return the schema as it is written: without what came later and says nothing."""
        return {name: value for name, value in asdict(self).items() if name not in _ADDED or value}

    def feature_counts(self) -> dict[str, int]:
        """Return the number of features of each modality, as :class:`models.config.ModelConfig` wants it."""
        return {m: len(self.features[m]) for m in in_order(self.features)}


@dataclass(frozen=True, kw_only=True)
class Part:
    """The rows of one part: one entry per case, and per modality the cases that have it.

    ``labels`` are places of classes, counts, numbers in their unit, or survival (:class:`models.targets.Target`).
    ``inputs`` maps a modality to (cases, float32 [cases, features]); the rows are joined by case id and read block by
    block, so that they need not all be in memory.
    """

    cases: tuple[str, ...]
    cohorts: tuple[str, ...]
    labels: tuple[float, ...]
    inputs: Mapping[str, tuple[tuple[str, ...], Sliced]]


def write_dataset(folder: Path, schema: Schema, private: Part, *, mock_seed: int = 0, mock: Part | None = None) -> None:
    """Write a whole dataset version; the folder appears complete or not at all.

    Args:
        folder: a new one.
        schema: what anybody may know.
        private: the patients.
        mock_seed: of :func:`mock_part`, where no ``mock`` is given.
        mock: made-up rows of the same shape.

    Raises:
        InvalidInput: the folder exists, or the rows do not fit the schema.
    """
    if not _NAME.fullmatch(schema.name):  # it becomes the name of a folder
        raise InvalidInput(
            f"expected a dataset's name of letters, digits, blanks, dots and dashes, got {visible(schema.name)[:60]!r}"
        )
    if folder.exists():
        raise InvalidInput(f"expected a new dataset folder, {folder} exists; datasets are never overwritten")
    by_schema = mock is not None
    mock = mock or mock_part(schema, seed=mock_seed)
    check_disjoint(private, mock, by_schema=by_schema)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (staging / "schema.json").write_bytes(canonical_json(schema.plain()))
        _write_part(staging / "private", schema, private)
        _write_part(staging / "mock", schema, mock)
        staging.chmod(0o700)
        staging.replace(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def read_schema(path: Path) -> Schema:
    """Read ``schema.json`` (or the one inside a dataset folder).

    Raises:
        InvalidInput: it is missing, not JSON, has a missing or unknown field, or names that no dataset can have.
    """
    path = path / "schema.json" if path.is_dir() else path
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
        value["features"] = {m: tuple(names) for m, names in value["features"].items()}
        for field in ("cohorts", "modalities"):
            value[field] = tuple(value[field])
        value["self_scaled"] = tuple(value.get("self_scaled", ()))
        if value.get("predicts") is not None:
            value["predicts"] = parse(Target, value["predicts"])
        schema = Schema(**value)
        # all of these become names of files
        for modality in (*schema.features, *schema.modalities):
            check_modality(modality)
        if not (
            set(schema.modalities) <= set(schema.features)
            and _NAME.fullmatch(schema.name)
            and type(schema.version) is int
            and schema.version > 0
        ):
            raise ValueError
        return schema
    except (OSError, ValueError, TypeError, KeyError, AttributeError, InvalidModel) as error:
        raise InvalidInput(f"expected a dataset schema at {path.name}, could not read one") from error


def load(part_folder: Path, schema: Schema) -> Arrays:
    """Return one part as a batch (see :mod:`models.batch`), rows in the order of ``case_id``.

    Every modality of the study is there; one that the site or the case lacks is zero with ``presence`` 0.

    Raises:
        InvalidInput: a file is missing or does not fit the schema.
    """
    records = read_columns(part_folder / "records.parquet", ["case_id", "cohort", "label"]).sort_values("case_id")
    cases = records["case_id"].tolist()
    check_patients(cases)
    batch: Arrays = {}
    order = in_order(schema.features)
    presence = np.zeros((len(cases), len(order)), dtype=np.float32)
    for modality, names in schema.features.items():
        values = np.zeros((len(cases), len(names)), dtype=np.float32)
        if modality in schema.modalities:
            table = read_modality(part_folder / f"{modality}.parquet", names)
            check_rows(modality, table.index.tolist(), [table.to_numpy(dtype=np.float32)])
            rows = [i for i, case in enumerate(cases) if case in table.index]
            values[rows] = table.loc[[cases[i] for i in rows]].to_numpy(dtype=np.float32)
            presence[rows, order.index(modality)] = 1.0
        batch[modality] = values
    batch["presence"] = presence
    batch["cohort"] = np.array([schema.cohorts.index(c) for c in records["cohort"]], dtype=np.int64)
    batch["label"] = _labels(schema, records["label"].to_numpy())
    return batch


def check_part(part_folder: Path, schema: Schema) -> None:
    """Refuse what :func:`load` would refuse, block by block: a large part is not held in memory.

    Raises:
        InvalidInput: a file is missing or does not fit the schema, or a patient stands in it twice.
    """
    records = read_columns(part_folder / "records.parquet", ["case_id", "cohort", "label"])
    check_patients(records["case_id"].tolist())
    if not set(records["cohort"]) <= set(schema.cohorts):
        raise InvalidInput(f"expected the cohorts {', '.join(schema.cohorts)} only in {part_folder.name}")
    _labels(schema, records["label"].to_numpy())
    for modality in schema.modalities:
        path = part_folder / f"{modality}.parquet"
        cases = read_columns(path, ["case_id"])["case_id"].tolist()
        check_rows(modality, cases, (block for _, block in modality_blocks(path, schema.features[modality])))


def _labels(schema: Schema, values: NDArray[Any]) -> NDArray[np.generic]:
    """Return labels as models read them; one that the outcome cannot have is refused, and none is shown."""
    target = schema.predicts
    continuous = target is not None and target.kind == "continuous"
    try:
        found = values.astype(np.float64)
        if target is None or target.kind == "categorical":
            known = (found >= 0) & (found < schema.classes) & (found == np.floor(found))
        else:
            known = np.array([target.holds(label) for label in found.tolist()], dtype=bool)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"expected numbers as labels of {schema.task}") from error
    if not known.all():
        raise InvalidInput(f"{int((~known).sum())} labels are none that the outcome {schema.task} can have")
    return found.astype(np.float32 if continuous else np.int64)


def case_ids(part_folder: Path) -> list[str]:
    """Return the case ids of one part, in the order of :func:`load`; they never leave the site.

    Raises:
        InvalidInput: a patient stands there twice.
    """
    cases = read_columns(part_folder / "records.parquet", ["case_id"])["case_id"].tolist()
    check_patients(cases)
    return sorted(cases)


def membership(cases: Sequence[str], secret: bytes, *, validation: float = 0.2) -> NDArray[np.bool_]:
    """Return which cases train (True) and which validate (False), by keyed hash of the case id.

    A case's side depends on itself and the site's secret alone, never on who else is there: stratifying would
    break add/remove adjacency.
    """
    words = [_keyed(secret, "membership", case) for case in cases]
    fractions = np.array([int.from_bytes(word[:8], "big") / 2.0**64 for word in words])
    train: NDArray[np.bool_] = fractions >= validation
    return train


def fingerprint(folder: Path, secret: bytes) -> str:
    """Return a keyed hash (HMAC-SHA256, hexadecimal) over the schema and every private file of a dataset."""
    digest = hmac.new(secret, b"tessera dataset", hashlib.sha256)
    for path in [folder / "schema.json", *sorted((folder / "private").iterdir())]:
        digest.update(path.name.encode() + b"\0" + file_hash(path))
    return digest.hexdigest()


def mock_part(schema: Schema, *, seed: int, rows: int = MOCK_ROWS) -> Part:
    """Return synthetic rows of the schema's shape, from public constants and ``seed`` only.

    Case ids start with ``MOCK-``; labels are :func:`mock_labels`. Of a variable of words, one level holds; a number is
    about normal and now and then missing; a tissue map's values lie in 0..1; any other feature is standard normal.
    """
    generator = np.random.default_rng([seed, int(schema.schema_hash[:8], 16)])
    cases = tuple(f"MOCK-{i:04d}" for i in range(rows))
    inputs = {}
    for modality in schema.modalities:
        values = _mock_values(schema.features[modality], generator, rows)
        inputs[modality] = (cases, values.astype(np.float32))
    return Part(
        cases=cases,
        cohorts=(schema.cohort,) * rows,
        labels=mock_labels(schema.predicts, schema.classes, generator, rows),
        inputs=inputs,
    )


def _mock_values(features: Sequence[str], generator: np.random.Generator, rows: int) -> NDArray[np.float64]:
    values = generator.normal(size=(rows, len(features)))
    if features and features[0].startswith("map:"):
        return generator.uniform(size=values.shape)
    groups: dict[str, list[int]] = {}
    for place, feature in enumerate(features):
        groups.setdefault(feature.rpartition(":")[0], []).append(place)
    for name, places in groups.items():
        if not name or features[places[-1]] != f"{name}:missing":
            continue
        missing = generator.uniform(size=rows) < MOCK_MISSING
        if features[places[0]] == f"{name}:value":
            values[:, places] = np.stack(
                [np.where(missing, 0.0, np.clip(values[:, places[0]], -3, 3)), missing], axis=1
            )
        else:
            values[:, places] = np.eye(len(places))[generator.integers(0, len(places) - 1, size=rows)]
    return values


def mock_labels(
    target: Target | None, classes: int, generator: np.random.Generator, rows: int, prevalence: Sequence[float] = ()
) -> tuple[float, ...]:
    """Return made-up outcomes from public constants: classes as declared or alike, numbers around the typical one.

    Args:
        target: of the dataset.
        classes: how many, where the outcome is a class.
        generator: public randomness.
        rows: how many.
        prevalence: of the classes, as declared; alike without.
    """
    if target is None or target.kind == "categorical":
        likely = np.array(prevalence or [1.0] * classes)
        return tuple(map(int, generator.choice(classes, size=rows, p=likely / likely.sum())))
    if target.kind == "count":
        drawn = np.rint(target.typical * generator.exponential(size=rows))
        return tuple(map(int, np.clip(drawn, math.ceil(target.low), math.floor(target.high))))
    if target.kind == "continuous":
        drawn = np.clip(target.typical + target.spread * generator.normal(size=rows), target.low, target.high)
        return tuple(map(float, drawn))
    times, stays = generator.exponential(1.44 * target.edges[-1], size=(2, rows))  # half outlive the last edge
    return tuple(target.interval_label(min(t, s), happened=bool(t <= s)) for t, s in zip(times, stays, strict=True))


def check_disjoint(private: Part, mock: Part, *, by_schema: bool = False) -> None:
    """Refuse a mock that shares a case or a row of any modality with the private part.

    A mock made ``by_schema`` has the words and ranges of real tables, so rows of few values may agree by chance; those
    of many may not.
    """
    if set(private.cases) & set(mock.cases):
        raise InvalidInput("the mock part shares a case id with the private part; use another mock seed")
    for modality, (_, values) in mock.inputs.items():
        telling = by_schema or _has_words(values[:])
        own, made_up = (
            row_hashes((b for _, b in blocks(v)), telling=telling) for v in (private.inputs[modality][1], values)
        )
        if np.isin(made_up, own).any():
            raise InvalidInput(f"the mock part shares a {modality} row with the private part; use another mock seed")


def _has_words(values: NDArray[np.float32]) -> bool:
    """Return whether some inputs of a mock are 0 or 1 only, as those of words are."""
    return bool(np.isin(values, (0.0, 1.0)).all(axis=0).any()) if len(values) else False


def _keyed(secret: bytes, purpose: str, case: str) -> bytes:
    return hmac.new(secret, f"{purpose}\0{case}".encode(), hashlib.sha256).digest()


def _write_part(folder: Path, schema: Schema, part: Part) -> None:
    import pandas as pd

    folder.mkdir()
    if set(part.inputs) != set(schema.modalities):
        raise InvalidInput(f"expected inputs for {schema.modalities}, got {tuple(part.inputs)}")
    check_patients(part.cases)
    labels = _labels(schema, np.array(part.labels, dtype=np.float64))
    if np.issubdtype(labels.dtype, np.floating):
        labels = np.array(part.labels, dtype=np.float64)
    records = pd.DataFrame({"case_id": part.cases, "cohort": part.cohorts, "label": labels})
    records.to_parquet(folder / "records.parquet", index=False)
    for modality, (cases, values) in part.inputs.items():
        names = list(schema.features[modality])
        if values.shape != (len(cases), len(names)) or not all(np.isfinite(b).all() for _, b in blocks(values)):
            raise InvalidInput(f"expected finite {modality} inputs of shape ({len(cases)}, {len(names)})")
        check_rows(modality, cases, (block for _, block in blocks(values)))
        write_modality(folder / f"{modality}.parquet", names, cases, values)
