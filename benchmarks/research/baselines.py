"""What scikit-learn makes of the pooled training patients: the yardstick beside the federated methods.

A baseline sees what the hospitals hold together: the same training patients with the same modalities masked. Its inputs
are those of our models, unscaled: the modalities side by side and the cohort one-hot. It needs no federation and no
privacy, so nothing in the protocol may use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import RidgeCV

from models.batch import has
from models.config import ModelConfig
from orchestrator.simulation.sites import Records

Floats = NDArray[np.float64]
Predict = Callable[[Records], Floats]
"""Class probabilities of records, float64 [n, classes]."""

BASELINES = ("ridge", "hgb")
_ALPHAS = np.logspace(1.0, 6.0, 21)
_LEAST = 1e-3


def fit(name: str, records: Records, config: ModelConfig) -> Predict:
    """Train one of :data:`BASELINES` on pooled records and return how it predicts.

    ``ridge`` standardises each feature over the training patients who have its modality and chooses its penalty by
    leave-one-out error (scikit-learn's ``RidgeCV``), one regression on "later than class k" per threshold. ``hgb`` is
    scikit-learn's gradient boosting over histograms, which takes absent modalities as missing values.

    Args:
        name: one of :data:`BASELINES`.
        records: the training patients of all sites together.
        config: says which modalities, cohorts and classes there are.
    """
    return _ridge(records, config) if name == "ridge" else _boosting(records, config)


def _ridge(records: Records, config: ModelConfig) -> Predict:
    scaling = {m: _moments(records, m) for m in config.modalities}
    inputs, label = _standardised(records, config, scaling), records["label"].numpy()
    thresholds = range(config.classes - 1)
    models = [_regression(inputs, (label > k).astype(float)) for k in thresholds]

    def predict(asked: Records) -> Floats:
        design = _standardised(asked, config, scaling)
        return _classes(np.stack([model(design) for model in models], axis=1))

    return predict


def _regression(inputs: Floats, later: Floats) -> Callable[[Floats], Floats]:
    if later.min() == later.max():  # nobody on one side: nothing to learn
        return lambda asked: np.full(len(asked), later[0])
    model = RidgeCV(alphas=_ALPHAS).fit(inputs, later)
    return lambda asked: np.asarray(model.predict(asked), np.float64)


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


def _standardised(records: Records, config: ModelConfig, scaling: Mapping[str, tuple[Floats, Floats]]) -> Floats:
    parts: list[Floats] = [_cohorts(records, config)]
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
