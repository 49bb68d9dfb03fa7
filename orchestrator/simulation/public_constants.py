"""Constants from public tables: every input's mean, and weights of a regression over all of them.

The tables are of other cancers than the study's, or of the same with other patients: what is public already needs no
protection. They are encoded as the hospitals encode theirs. Each cohort, or each dataset, has intercepts of its own,
so that weights do not say which table a patient is from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from datasites.data.dataset import load, read_schema
from datasites.data.tcga.tables import read_tables
from models.batch import modalities_of
from models.config import ModelConfig, in_order
from orchestrator.simulation.sites import patients
from orchestrator.studies.proposing.constants import ConstantsFile, ModalityConstants
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput

Floats = NDArray[np.float64]
_PENALTY = 3e-3
"""Of the weights' squared norm, per patient: chosen on the selection seeds of docs/results.md."""
_INTERCEPTS = 1e-4
_FEWEST = 50
_STEPS = 300


@dataclass(frozen=True, kw_only=True)
class PublicPatients:
    """Patients of public tables: encoded inputs and who has them by modality, float [patients, features], bool.

    ``group`` [patients] says of which cohort or dataset, ``label`` the class in order; ``classes`` is 0 where the
    outcome is none. ``lost`` says what was left out when the tables were read.
    """

    task: str
    classes: int
    names: Mapping[str, tuple[str, ...]]
    inputs: Mapping[str, NDArray[np.float32]]
    present: Mapping[str, NDArray[np.bool_]]
    gains: Mapping[str, float]
    group: NDArray[np.int64]
    label: NDArray[np.int64]
    tables: Mapping[str, str]
    lost: tuple[str, ...] = ()


def from_tables(folder: Path, task: str) -> PublicPatients:
    """Read a folder of TCGA tables, one sub-folder for each cohort; the cohorts may be any.

    Raises:
        InvalidInput: a table cannot be read.
    """
    tables = read_tables(folder, columns="all")
    everyone = patients(tables, task, tuple(tables.cohorts))
    order = modalities_of(everyone.arrays)
    presence = np.asarray(everyone.arrays["presence"]) > 0
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return PublicPatients(
        task=task,
        classes=everyone.classes,
        names={m: everyone.names[m] for m in order},
        inputs={m: np.asarray(everyone.arrays[m], np.float32) for m in order},
        present={m: presence[:, place] for place, m in enumerate(order)},
        gains={},
        group=np.asarray(everyone.arrays["cohort"], np.int64),
        label=np.asarray(everyone.arrays["label"], np.int64),
        tables={str(path.relative_to(folder)): sha256_hex(path.read_bytes()) for path in files},
        lost=tables.notes,
    )


def from_datasets(folders: Sequence[Path]) -> PublicPatients:
    """Read dataset folders as ``tessera datasite ingest`` writes them, all of one study's schema.

    Raises:
        InvalidInput: a folder is no dataset, or two are of different features or outcomes.
    """
    schemas = [read_schema(folder) for folder in folders]
    first = schemas[0]
    for folder, schema in zip(folders, schemas, strict=True):
        if (schema.features, schema.task, schema.classes) != (first.features, first.task, first.classes):
            raise InvalidInput(f"{folder}: expected the features and the outcome of {folders[0]}; use one schema")
    batches = [load(folder / "private", schema) for folder, schema in zip(folders, schemas, strict=True)]
    order = in_order(first.features)
    presence = np.concatenate([np.asarray(batch["presence"]) for batch in batches]) > 0
    ordered = first.predicts is None
    return PublicPatients(
        task=first.task,
        classes=first.classes if ordered else 0,
        names=first.features,
        inputs={m: np.concatenate([np.asarray(batch[m], np.float32) for batch in batches]) for m in order},
        present={m: presence[:, place] for place, m in enumerate(order)},
        gains=first.gains,
        group=np.repeat(np.arange(len(batches)), [len(batch["label"]) for batch in batches]),
        label=np.concatenate([np.asarray(batch["label"]) for batch in batches]).astype(np.int64) * ordered,
        tables={
            f"{number}/{path.name}": sha256_hex(path.read_bytes())
            for number, folder in enumerate(folders, start=1)
            for path in [folder / "schema.json", *sorted((folder / "private").iterdir())]
        },
    )


def make_constants(public: PublicPatients, source: str, *, weights: bool = True) -> ConstantsFile:
    """Return the constants of public patients: the same tables give the same file.

    Args:
        public: at least 50 patients.
        source: names the tables in words.
        weights: fit weights besides means; of classes in order only.

    Raises:
        InvalidInput: too few patients, no modality, or no classes to fit weights on.
    """
    if len(public.label) < _FEWEST:
        raise InvalidInput(f"expected at least {_FEWEST} public patients, got {len(public.label)}")
    held = {m: values for m, values in public.inputs.items() if public.present[m].any()}
    centres = {m: values[public.present[m]].mean(axis=0, dtype=np.float64) for m, values in held.items()}
    fitted = _fitted(public, held, centres) if weights else {}
    return ConstantsFile(
        source=source,
        task=public.task,
        patients=len(public.label),
        tables=public.tables,
        modalities={
            m: ModalityConstants(
                names=tuple(public.names[m]),
                centres=_rounded(centres[m]),
                weights=_rounded(fitted[m]) if m in fitted else (),
            )
            for m in held
        },
    )


def _fitted(
    public: PublicPatients, held: Mapping[str, NDArray[np.float32]], centres: Mapping[str, Floats]
) -> dict[str, Floats]:
    """Return the weights of a proportional-odds regression with intercepts of each group, per unit of each input."""
    if public.classes < 2 or len(np.unique(public.label)) < 2:
        raise InvalidInput(
            "weights are fitted on two or more classes in order, which these tables do not hold; give --centres-only"
        )
    config = ModelConfig(
        architecture="linear", features={m: v.shape[1] for m, v in held.items()}, cohorts=("public",),
        classes=public.classes, gains={m: g for m, g in public.gains.items() if m in held},
    )  # fmt: skip
    scales = {m: config.gain(m) / math.sqrt(values.shape[1]) for m, values in held.items()}
    design = np.concatenate(
        [(values - centres[m]) * scales[m] * public.present[m][:, None] for m, values in held.items()], axis=1
    )
    groups = np.eye(int(public.group.max()) + 1)[public.group]  # [patients, groups]
    later = (public.label[:, None] > np.arange(public.classes - 1)).astype(np.float64)  # [patients, thresholds]
    features, patients_, shape = design.shape[1], len(design), (groups.shape[1], later.shape[1])

    def loss(point: Floats) -> tuple[float, Floats]:
        weights, intercepts = point[:features], point[features:].reshape(shape)
        logits = (design @ weights)[:, None] + groups @ intercepts
        value = float((np.logaddexp(0.0, logits) - later * logits).sum() / patients_)
        residual = (1.0 / (1.0 + np.exp(-logits)) - later) / patients_
        value += 0.5 * _PENALTY * float(weights @ weights) + 0.5 * _INTERCEPTS * float((intercepts**2).sum())
        slope = design.T @ residual.sum(axis=1) + _PENALTY * weights
        return value, np.concatenate([slope, (groups.T @ residual + _INTERCEPTS * intercepts).ravel()])

    start = np.zeros(features + math.prod(shape))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x[:features]
    parts = np.split(found, np.cumsum([values.shape[1] for values in held.values()])[:-1])
    return {m: part * scales[m] for m, part in zip(held, parts, strict=True)}


def _rounded(values: Floats) -> tuple[float, ...]:
    """Return numbers to four digits: machines differ in the last ones, and the file's hash should not."""
    return tuple(float(f"{value:.4g}") for value in values)
