"""TCGA-like tables out of nothing: three cohorts, three modalities, a known stage signal, all from one seed.

A patient has an aggressiveness that decides the stage, and latent factors; mRNA and image features are noisy
linear views of both, clinical variables depend on them more weakly. Nothing is learned from real patients, so the
demo runs where no data is at hand; results on it say how the machinery works, not how well staging does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasites.data.tcga.tables import Cohort, Tables, join_cohorts
from privacy.errors import InvalidInput

Floats = NDArray[np.float64]
_STAGES = ("I", "II", "III", "IV")
_KINDS = ("AREA..MM2.", "COUNT.PROP", "DENSITY.RATIO", "TOTAL", "REGION.PROPERTIES..SOLIDITY")


@dataclass(frozen=True, kw_only=True)
class SyntheticShape:
    """Dimensions and signal of the generated tables.

    ``patients`` per cohort; ``signal`` is how strongly mRNA and image follow the stage (0: no signal at all);
    ``missing`` is the share of cases without a given modality; ``stage_mix`` the shares of stages I to IV.
    """

    patients: Mapping[str, int]
    genes: int = 200
    image_features: int = 60
    factors: int = 6
    signal: float = 0.25
    missing: float = 0.1
    stage_mix: tuple[float, float, float, float] = (0.35, 0.4, 0.2, 0.05)


DEFAULT_SHAPE = SyntheticShape(patients={"BRCA": 600, "LUSC": 480, "LIHC": 420})


def generate(*, seed: int, shape: SyntheticShape = DEFAULT_SHAPE) -> Tables:
    """Return synthetic tables in the form of real ones; the same seed gives the same tables.

    Raises:
        InvalidInput: no patients, no features, or shares that are not shares.
    """
    if not shape.patients or min(shape.patients.values()) < 1 or min(shape.genes, shape.image_features) < 1:
        raise InvalidInput("synthetic tables need at least one patient per cohort and one feature per modality")
    if not 0.0 <= shape.missing < 1.0 or abs(sum(shape.stage_mix) - 1.0) > 1e-9:
        raise InvalidInput("expected missing in 0..1 and a stage mix that adds up to 1")
    shared = np.random.default_rng([seed, 0])
    loadings = {
        "mrna": _loadings(shared, shape, shape.genes),
        "image": _loadings(shared, shape, shape.image_features),
    }
    cohorts = [
        _cohort(name, count, np.random.default_rng([seed, 1 + i]), shape, loadings)
        for i, (name, count) in enumerate(shape.patients.items())
    ]
    return join_cohorts(cohorts)


def _loadings(generator: np.random.Generator, shape: SyntheticShape, features: int) -> Floats:
    """Return [1 + factors, features]: the first row carries the stage, in a quarter of the features."""
    rows: Floats = generator.normal(size=(1 + shape.factors, features)) / np.sqrt(shape.factors)
    rows[0] = 2.0 * shape.signal * generator.normal(size=features) * (generator.uniform(size=features) < 0.25)
    return rows


def _cohort(
    name: str, count: int, generator: np.random.Generator, shape: SyntheticShape, loadings: Mapping[str, Floats]
) -> Cohort:
    cases = [f"SYNT-{name[:2]}{i % 6}-{i:04d}" for i in range(count)]
    severity = generator.normal(size=count)
    cuts = np.quantile(severity, np.cumsum(shape.stage_mix)[:-1])
    stage = np.searchsorted(cuts, severity)
    latent = np.column_stack([severity, generator.normal(size=(count, shape.factors))])
    expression = np.sinh(latent @ loadings["mrna"] + 0.8 * generator.normal(size=(count, shape.genes)))
    view = latent @ loadings["image"] + 0.8 * generator.normal(size=(count, shape.image_features))
    slides = np.exp(np.clip(0.3 * view, -3, 3))
    images = [f"{_KINDS[i % len(_KINDS)]}..SYNTHETIC.{i:03d}" for i in range(shape.image_features)]
    modalities = {
        "mrna": _table(cases, expression, [f"GENE{i:03d}" for i in range(shape.genes)]),
        "image": _table(cases, slides, images),
    }
    kept = {m: table[generator.uniform(size=count) >= shape.missing] for m, table in modalities.items()}
    return Cohort(name=name, clinical=_clinical(name, cases, stage, severity, generator), modalities=kept)


def _table(cases: list[str], values: Floats, columns: list[str]) -> pd.DataFrame:
    index = pd.Index(cases, name="case_id")
    return pd.DataFrame(values.astype(np.float32), index=index, columns=columns).sort_index()


def _clinical(
    name: str, cases: list[str], stage: NDArray[np.int64], severity: Floats, generator: np.random.Generator
) -> pd.DataFrame:
    count = len(cases)
    grade = np.clip(np.round(2.0 + 0.5 * severity + 0.8 * generator.normal(size=count)), 1, 4).astype(int)
    ecog = np.clip(np.round(0.7 + 0.4 * severity + 0.7 * generator.normal(size=count)), 0, 4)
    table = {
        "case_id": cases,
        "tss": [case.split("-")[1] for case in cases],
        "site_name": [f"{name} clinic {case.split('-')[1][-1]}" for case in cases],
        "age": np.round(62 + 11 * generator.normal(size=count) + severity).clip(20, 90),
        "sex": generator.choice(["female", "male"], size=count),
        "race": generator.choice(["white", "black or african american", "asian"], size=count, p=[0.7, 0.2, 0.1]),
        "prior_malignancy": generator.choice(["no", "yes"], size=count, p=[0.9, 0.1]),
        "x_grade": [f"g{g}" for g in grade],
        "x_ecog": np.where(generator.uniform(size=count) < 0.3, np.nan, ecog),
        "stage": [_STAGES[s] for s in stage],
        "stage_idx": stage,
        "leak_t": [f"t{s + 1}" for s in stage],
    }
    return pd.DataFrame(table).set_index("case_id").sort_index()
