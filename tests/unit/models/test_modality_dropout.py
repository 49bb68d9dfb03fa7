"""Modality dropout and learned missing tokens of the single fusion head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.batch import drop_modalities
from models.build import build_model, record_loss
from models.config import InvalidModel, ModelConfig

CONFIG = ModelConfig(
    architecture="mlp",
    features={"mrna": 6, "image": 4, "clinical": 3},
    cohorts=("LUSC",),
    classes=2,
    missing_tokens=True,
    modality_dropout=0.5,
)


def batch(records=400, seed=0):
    draw = torch.Generator().manual_seed(seed)
    made = {m: torch.randn(records, n, generator=draw) for m, n in CONFIG.features.items()}
    presence = torch.ones(records, 3)
    presence[::4, 1] = 0
    presence[::8, 2] = 0
    return {
        **made,
        "presence": presence,
        "cohort": torch.zeros(records, dtype=torch.int64),
        "label": torch.randint(0, 2, (records,), generator=draw),
    }


def test_each_modality_goes_as_often_as_asked_and_no_record_loses_its_last_one():
    given = batch(4000)
    torch.manual_seed(1)
    kept = drop_modalities(given, 0.3)["presence"]
    assert (kept <= given["presence"]).all()
    assert (kept.amax(dim=1) == 1).all()
    full = given["presence"].sum(dim=1) == 3
    assert float(kept[full, 0].mean()) == pytest.approx(0.7, abs=0.05)


def test_dropout_acts_in_training_only():
    model = build_model(CONFIG, seed=1)
    assert not model.training
    given = batch()
    assert torch.equal(record_loss(model, given), record_loss(model, given))
    model.train()
    first, second = record_loss(model, given), record_loss(model, given)
    assert (first != second).any()
    model.eval()
    assert torch.equal(record_loss(model, given), record_loss(model, given))


def test_what_a_record_loses_does_not_depend_on_the_values_of_others():
    model = build_model(CONFIG, seed=1).train()
    given = batch()
    other = {**given, "mrna": torch.cat([given["mrna"][:1], torch.randn(399, 6)])}
    torch.manual_seed(3)
    one = record_loss(model, given)[0]
    torch.manual_seed(3)
    two = record_loss(model, other)[0]
    assert torch.equal(one, two)


def test_a_dropped_modality_looks_like_an_absent_one_token_included():
    model = build_model(CONFIG, seed=1)
    with torch.no_grad():
        model.tokens["image"].weight.fill_(0.7)
    given = batch()
    without = {**given, "presence": given["presence"] * torch.tensor([1.0, 0.0, 1.0])}
    zeroed = {**without, "image": torch.zeros_like(given["image"])}
    assert torch.allclose(model(without), model(zeroed))
    assert not torch.allclose(model(without), model(given))


def test_a_dropout_of_one_is_no_model():
    with pytest.raises(InvalidModel, match="dropout"):
        build_model(replace(CONFIG, modality_dropout=1.0), seed=0)
