"""Calibration on patients of one's own: what is fitted, what is refused, and that it is in what is saved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import tessera
from tessera.facts import Calibration
from tessera.trained.calibration import FEWEST, calibrated, fit

CLINICAL = ["age", "sex", "race", "prior_malignancy", "x_grade", "x_ecog"]


@pytest.fixture(scope="module")
def model() -> tessera.Model:
    study = tessera.Study("calibrated", epsilon=8, rounds=2)
    return study.simulate(sites=3, patients=200, progress=False, jobs=1).model


@pytest.fixture(scope="module")
def patients():
    from datasites.data.synthetic import generate

    cohort = generate(seed=3).cohorts["BRCA"]
    frames = {**cohort.modalities, "clinical": cohort.clinical[CLINICAL]}
    chosen = cohort.clinical.index[:200]
    return {name: frame.loc[frame.index.intersection(chosen)] for name, frame in frames.items()}


def outcome(model: tessera.Model, frames, *, flip: float, seed: int = 0) -> pd.Series:
    """Classes drawn at other chances than the model says: ``flip`` of them at random."""
    draw = np.random.default_rng(seed)
    chances = model.predict_proba(frames, cohort="BRCA").to_numpy()
    names = [model.classes[draw.choice(len(row), p=row / row.sum())] for row in chances]
    names = [model.classes[draw.integers(2)] if draw.random() < flip else name for name in names]
    return pd.Series(names, index=model.predict_proba(frames, cohort="BRCA").index)


def test_an_overconfident_model_is_flattened_and_the_card_says_on_whom(model, patients, tmp_path):
    labels = outcome(model, patients, flip=0.8)
    better = model.recalibrated(patients, labels, cohort="BRCA", where="Example Hospital")
    found = better.facts.calibration
    assert found is not None and found.slope < 0.8 and found.error_after < found.error_before
    assert found.patients == len(labels) and not found.confined
    better.save(tmp_path)
    again = tessera.load(tmp_path)
    pd.testing.assert_frame_equal(
        again.predict_proba(patients, cohort="BRCA"), better.predict_proba(patients, cohort="BRCA")
    )
    assert not np.allclose(again.predict_proba(patients, cohort="BRCA"), model.predict_proba(patients, cohort="BRCA"))
    assert "200 patients of Example Hospital" in (tmp_path / "model_card.md").read_text()
    plain = again.with_calibration(None)
    pd.testing.assert_frame_equal(
        plain.predict_proba(patients, cohort="BRCA"), model.predict_proba(patients, cohort="BRCA")
    )


def test_onnx_gives_calibrated_probabilities(model, patients, tmp_path):
    pytest.importorskip("onnxruntime")
    better = model.recalibrated(patients, outcome(model, patients, flip=0.8), cohort="BRCA", where="Example Hospital")
    better.save(tmp_path, onnx=True)  # compares the two to 1e-5 itself
    assert (tmp_path / "model.onnx").exists()


def test_what_cannot_be_calibrated_is_refused_in_one_line(model, patients):
    labels = outcome(model, patients, flip=0.0)
    few = {"clinical": patients["clinical"].iloc[: FEWEST - 1]}
    with pytest.raises(tessera.InvalidInput, match="at least 30 patients"):
        model.recalibrated(few, labels, cohort="BRCA", where="Example Hospital")
    with pytest.raises(tessera.InvalidInput, match="two classes"):
        model.recalibrated(patients, labels.map(lambda _: model.classes[0]), cohort="BRCA", where="Example Hospital")
    with pytest.raises(tessera.InvalidInput, match="a class out of"):
        model.recalibrated(patients, labels.replace(model.classes[0], "?"), cohort="BRCA", where="Example Hospital")
    with pytest.raises(tessera.InvalidInput, match="slope above 0"):
        Calibration(slope=-1, shifts=(0.0,), patients=50, where="x", error_before=0, error_after=0)
    with pytest.raises(tessera.InvalidInput, match="2 outputs"):
        Calibration(slope=1, shifts=(0.0, 0.0), patients=50, where="x", error_before=0, error_after=0).apply(
            torch.zeros(3, 1)
        )


def test_a_calibrated_model_is_left_as_it_is():
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 1, generator=draw)
    label = (torch.rand(4000, 1, generator=draw) < torch.sigmoid(logits)).long().flatten()
    found = fit(logits, label, ordered=True)
    assert found.slope == pytest.approx(1, abs=0.1) and float(found.shift.abs().max()) < 0.1


def test_a_calibration_is_of_these_very_outputs(model):
    config = replace(model.facts.config)
    logits, label = torch.tensor([[3.0], [-3.0]] * 40), torch.tensor([1, 0, 0, 1] * 20)
    found = calibrated(logits, label, config, where="x", confined=True)
    assert found.slope < 0.3 and found.confined and found.error_before > 0.4 > found.error_after
