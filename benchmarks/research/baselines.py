"""What scikit-learn makes of the pooled training patients: the yardstick beside the federated methods.

A baseline sees what the hospitals hold together: the same training patients with the same modalities masked. Its inputs
are those of our models, unscaled: the modalities side by side and the cohort one-hot. It needs no federation and no
privacy, so nothing in the protocol may use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import RidgeCV

from models.batch import has
from models.config import ModelConfig
from orchestrator.simulation.sites import Records

Floats = NDArray[np.float64]
D = TypeVar("D")
Predict = Callable[[Records], Floats]
"""Class probabilities of records, float64 [n, classes]."""

FAMILIES = ("linear", "pairs", "by-cohort", "rbf")
"""Kernels on the inputs as our linear model scales them: linear, with products of two inputs, with slopes of each
cohort beside the common ones, and Gaussian."""
BASELINES = ("ridge", "ridge-biased", "hgb", *FAMILIES)
_ALPHAS = np.logspace(1.0, 6.0, 21)
_KERNEL_ALPHAS = np.logspace(-1.5, 3.0, 14)
_KERNEL_STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "linear": (1.0,),
    "pairs": (0.1, 0.3, 1.0),
    "by-cohort": (0.3, 1.0, 3.0),
    "rbf": (0.5, 1.0, 4.0),
}
_COHORT_GAIN = 0.5
_LEAST = 1e-3


def fit(name: str, records: Records, config: ModelConfig) -> Predict:
    """Train one of :data:`BASELINES` on pooled records and return how it predicts.

    The :data:`FAMILIES` say whether a model that is not linear could gain here: kernel ridge regressions, whose penalty
    and strength (or width) are chosen by leave-one-out error.

    ``ridge`` standardises each feature over the training patients who have its modality and chooses its penalty by
    leave-one-out error (scikit-learn's ``RidgeCV``), one regression on "later than class k" per threshold. A cohort's
    column is one of thousands there and shrunk like them, so that ``ridge`` has hardly a bias per cohort;
    ``ridge-biased`` makes it as large beside the features as it is in our private models. ``hgb`` is
    scikit-learn's gradient boosting over histograms, which takes absent modalities as missing values.

    Args:
        name: one of :data:`BASELINES`.
        records: the training patients of all sites together.
        config: says which modalities, cohorts and classes there are.
    """
    if name in FAMILIES:
        return _kernel_ridge(name, records, config)
    if name == "hgb":
        return _boosting(records, config)
    gain = _COHORT_GAIN * sum(config.features.values()) ** 0.5 if name == "ridge-biased" else 1.0
    return _ridge(records, config, gain)


def _per_threshold(
    records: Records,
    config: ModelConfig,
    design: Callable[[Records], D],
    learn: Callable[[D, Floats], Callable[[D], Floats]],
) -> Predict:
    """Return what a regression on "later than class k" for every threshold k predicts together."""
    seen, label = design(records), records["label"].numpy()

    def regression(later: Floats) -> Callable[[D], Floats | float]:
        if later.min() == later.max():  # nobody on one side: nothing to learn
            return lambda _: float(later[0])
        return learn(seen, later)

    models = [regression((label > k).astype(float)) for k in range(config.classes - 1)]

    def predict(asked: Records) -> Floats:
        own, count = design(asked), len(asked["label"])
        return _classes(np.stack([np.broadcast_to(model(own), count) for model in models], axis=1))

    return predict


def _ridge(records: Records, config: ModelConfig, cohort_gain: float) -> Predict:
    scaling = {m: _moments(records, m) for m in config.modalities}

    def learn(inputs: Floats, later: Floats) -> Callable[[Floats], Floats]:
        model = RidgeCV(alphas=_ALPHAS).fit(inputs, later)
        return lambda asked: np.asarray(model.predict(asked), np.float64)

    return _per_threshold(records, config, lambda asked: _standardised(asked, config, scaling, cohort_gain), learn)


@dataclass(frozen=True, kw_only=True)
class _Design:
    """What kernels are made of: scaled, centred inputs, float64 [n, features], and cohorts, float64 [n, cohorts]."""

    inputs: Floats
    cohorts: Floats

    def kernel(self, name: str, strength: float, seen: _Design) -> Floats:
        """Return the kernel of these records against those the model has ``seen``, float64 [n, seen]."""
        linear = self.inputs @ seen.inputs.T
        cohorts = _COHORT_GAIN**2 * self.cohorts @ seen.cohorts.T
        norms = (seen.inputs**2).sum(axis=1)
        typical = float(np.median(norms))
        if name == "pairs":
            return np.asarray(linear + cohorts + strength * linear**2 / typical)
        if name == "by-cohort":
            return np.asarray(linear + cohorts + strength * linear * (self.cohorts @ seen.cohorts.T))
        if name == "rbf":
            apart = np.maximum((self.inputs**2).sum(axis=1)[:, None] + norms - 2.0 * linear, 0.0)
            return np.asarray(typical * np.exp(-apart / (2.0 * strength * typical)) + cohorts)
        return np.asarray(linear + cohorts)


def _kernel_ridge(name: str, records: Records, config: ModelConfig) -> Predict:
    means = {m: _moments(records, m)[0] for m in config.modalities}

    def design(asked: Records) -> _Design:
        parts = [
            (asked[m].numpy() - centre) * (config.gain(m) / np.sqrt(len(centre))) * _has(asked, m)[:, None]
            for m, centre in means.items()
        ]
        return _Design(inputs=np.concatenate(parts, axis=1), cohorts=_cohorts(asked, config))

    seen = design(records)
    spaces = [(strength, *_coordinates(seen.kernel(name, strength, seen))) for strength in _KERNEL_STRENGTHS[name]]

    def learn(_: _Design, later: Floats) -> Callable[[_Design], Floats]:
        """Return the regression of least leave-one-out error over strengths and penalties."""
        found = [
            (RidgeCV(alphas=_KERNEL_ALPHAS).fit(inputs, later), strength, axes) for strength, inputs, axes in spaces
        ]
        model, strength, axes = max(found, key=lambda each: float(each[0].best_score_))
        return lambda asked: np.asarray(model.predict(asked.kernel(name, strength, seen) @ axes))

    return _per_threshold(records, config, design, learn)


def _coordinates(kernel: Floats) -> tuple[Floats, Floats]:
    """Return inputs whose products are a kernel float64 [n, n], and what turns further rows of it into such inputs."""
    values, vectors = np.linalg.eigh(kernel)
    kept = values > _LEAST * 1e-6 * values.max()
    root = np.sqrt(values[kept])
    return vectors[:, kept] * root, vectors[:, kept] / root


def _boosting(records: Records, config: ModelConfig) -> Predict:
    model = HistGradientBoostingClassifier(
        max_iter=100, learning_rate=0.08, max_leaf_nodes=8, max_features=0.1, l2_regularization=1.0, random_state=0
    )
    model.fit(_with_gaps(records, config), records["label"].numpy())

    def predict(asked: Records) -> Floats:
        found = np.zeros((len(asked["label"]), config.classes))
        found[:, model.classes_] = model.predict_proba(_with_gaps(asked, config))
        return found

    return predict


def _moments(records: Records, modality: str) -> tuple[Floats, Floats]:
    """Return centre and scale of every feature over the records that have ``modality``; a constant one has scale 1."""
    held = records[modality].numpy()[_has(records, modality)].astype(np.float64)
    if not len(held):
        return np.zeros(held.shape[1]), np.ones(held.shape[1])
    spread = held.std(axis=0)
    return held.mean(axis=0), np.where(spread > 1e-9, spread, 1.0)


def _standardised(
    records: Records, config: ModelConfig, scaling: Mapping[str, tuple[Floats, Floats]], cohort_gain: float
) -> Floats:
    parts: list[Floats] = [cohort_gain * _cohorts(records, config)]
    for modality, (centre, scale) in scaling.items():
        values = (records[modality].numpy() - centre) / scale
        parts.append(values * _has(records, modality)[:, None])
    return np.concatenate(parts, axis=1)


def _with_gaps(records: Records, config: ModelConfig) -> Floats:
    parts: Sequence[Floats] = [
        np.where(_has(records, m)[:, None], records[m].numpy().astype(np.float64), np.nan) for m in config.modalities
    ]
    return np.concatenate([_cohorts(records, config), *parts], axis=1)


def _cohorts(records: Records, config: ModelConfig) -> Floats:
    return np.eye(len(config.cohorts))[records["cohort"].numpy()]


def _has(records: Records, modality: str) -> NDArray[np.bool_]:
    return np.asarray(has(records, modality)[:, 0].numpy() > 0)


def _classes(later: Floats) -> Floats:
    """Return class probabilities [n, classes] from those of "later than class k" [n, classes - 1]."""
    falling = np.minimum.accumulate(np.clip(later, _LEAST, 1.0 - _LEAST), axis=1)
    edges = np.concatenate([np.ones((len(later), 1)), falling, np.zeros((len(later), 1))], axis=1)
    return np.asarray(edges[:, :-1] - edges[:, 1:], np.float64)
