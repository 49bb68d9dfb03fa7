"""A model of numbers, survival or classes without an order is used like any other: predicted, explained, exported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tessera
from datasites.data.synthetic import SyntheticShape, generate
from models.build import build_model
from models.config import Target
from models.parameters import to_bytes
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput
from tessera.trained.card import card_of
from tessera.trained.export import to_onnx
from tessera.trained.model import Model

KINDS = {
    "survival": (0, Target(kind="survival", unit="months", edges=(6.0, 24.0)), ("until 6", "until 24")),
    "count": (0, Target(kind="count", high=40.0, typical=3.0), ("nodes",)),
    "categorical": (3, Target(kind="categorical"), ("a", "b", "c")),
}


@pytest.fixture(scope="module")
def staging() -> Model:
    return tessera.Study("pfs", epsilon=4, rounds=2).simulate(sites=3, patients=120, progress=False).model


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_another_outcome_predicts_explains_and_exports(staging: Model, kind: str) -> None:
    classes, target, names = KINDS[kind]
    config = replace(staging.facts.config, classes=classes, predicts=target)
    network = build_model(config, seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(1))
    data = to_bytes(network)
    origin = replace(staging.facts.origin, model_hash=sha256_hex(data))
    model = Model(replace(staging.facts, config=config, classes=names, task="what follows", origin=origin), data)
    tables = generate(seed=9, shape=SyntheticShape(patients={"BRCA": 30, "LUSC": 20, "LIHC": 20})).cohorts["BRCA"]
    clinical = tables.clinical[["age", "sex", "race", "prior_malignancy", "x_grade", "x_ecog"]]
    frames = {**tables.modalities, "clinical": clinical}
    found = model.predict(frames, cohort="BRCA")
    assert list(found.columns) == list(names)
    values = found.to_numpy()
    if kind == "survival":
        assert (np.diff(values, axis=1) <= 0).all()
    elif kind == "count":
        assert ((values >= 0) & (values <= 40)).all()
        with pytest.raises(InvalidInput, match="predict"):
            model.predict_proba(frames, cohort="BRCA")
    else:
        assert np.allclose(values.sum(axis=1), 1.0)
    told = model.explain(frames, cohort="BRCA", threshold=config.outputs - 1)
    added = told.by_feature.sum(axis=1) + told.bias
    assert np.allclose(added, told.log_odds, atol=1e-4)
    assert to_onnx(model)
    assert "what follows (" in card_of(model.facts)
