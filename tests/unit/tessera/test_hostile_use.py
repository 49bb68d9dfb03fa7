"""A model in careless or hostile hands: one clear line each, never a traceback, and no value of a patient in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load, save

import tessera
from datasites.data.synthetic import generate

CLINICAL = ["age", "sex", "race", "prior_malignancy", "x_grade", "x_ecog"]
PATIENTS = generate(seed=0).cohorts["LUSC"]
GENES = PATIENTS.modalities["mrna"].iloc[:4]
FRAMES = {**{m: t.iloc[:4] for m, t in PATIENTS.modalities.items()}, "clinical": PATIENTS.clinical[CLINICAL].iloc[:4]}


@pytest.fixture(scope="module")
def model() -> tessera.Model:
    return tessera.Study("h", epsilon=8, rounds=1).simulate(sites=3, patients=120, jobs=1, progress=False).model


@pytest.fixture(scope="module")
def saved(model: tessera.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.save(tmp_path_factory.mktemp("saved"))


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        pytest.param(None, "expected a pandas data frame", id="nothing"),
        pytest.param([1, 2], "expected a pandas data frame", id="list"),
        pytest.param("patients.csv", "got a str", id="path"),
        pytest.param(GENES.to_numpy(), "got a ndarray", id="array"),
        pytest.param({"mrna": GENES.to_numpy()}, "mrna: expected a pandas data frame", id="array-in-mapping"),
        pytest.param({"mrna": GENES.iloc[0]}, "got a Series", id="series"),
        pytest.param({}, "got none", id="no-tables"),
        pytest.param(pd.DataFrame(), "found none", id="empty-frame"),
        pytest.param({"mrna": GENES.iloc[:0]}, "at least one patient", id="no-rows"),
        pytest.param({"genes": GENES}, "got 'genes'", id="unknown-modality"),
        pytest.param({"mrna": GENES.assign(xx=1)}, "none of the model's inputs: 'xx'", id="stranger"),
        pytest.param({"mrna": GENES.iloc[:, 1:]}, "columns are missing", id="column-missing"),
        pytest.param({"mrna": pd.concat([GENES, GENES.iloc[:, :1]], axis=1)}, "every column once", id="column-twice"),
        pytest.param({"mrna": pd.concat([GENES, GENES.iloc[:1]])}, "1 rows are not so", id="patient-twice"),
        pytest.param({"mrna": GENES.set_axis([None, *GENES.index[1:]])}, "1 rows are not so", id="no-id"),
        pytest.param({"mrna": GENES.set_axis([" ", *GENES.index[1:]])}, "1 rows are not so", id="blank-id"),
        pytest.param({"mrna": GENES.set_index([GENES.index, GENES.index])}, "index of 2 levels", id="index-of-two"),
        pytest.param(
            {"mrna": GENES.reset_index(drop=True), "image": FRAMES["image"].set_axis(list("0123"))},
            "text and numbers", id="ids-of-two-kinds",
        ),
        pytest.param({"mrna": GENES.astype(str)}, "expected numbers", id="text"),
        pytest.param(
            {"mrna": GENES.astype(str).apply(lambda c: c.str.replace(".", ",", regex=False))}, "expected numbers",
            id="decimal-commas",
        ),
        pytest.param({"mrna": GENES.astype(complex)}, "expected numbers", id="complex"),
        pytest.param({"mrna": GENES.astype("category")}, "expected numbers", id="categories"),
        pytest.param({"mrna": GENES * np.inf}, "expected finite numbers", id="infinite"),
        pytest.param({"mrna": GENES * np.nan}, "4 have none", id="all-missing"),
    ],
)  # fmt: skip
def test_frames_that_are_none_get_one_line(model: tessera.Model, frames: object, said: str):
    with pytest.raises(tessera.InvalidInput, match=said) as caught:
        model.predict_proba(frames, cohort="LUSC")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and not any(case in str(caught.value) for case in GENES.index)


@pytest.mark.parametrize("cohort", [3, ["LUSC"] * 4, "XX", None, {GENES.index[0]: "LUSC"}], ids=str)
def test_a_cohort_that_is_none_gets_one_line(model: tessera.Model, cohort: object):
    with pytest.raises(tessera.InvalidInput, match="expected a cohort"):
        model.predict_proba(FRAMES, cohort=cohort)  # type: ignore[arg-type]


def test_other_shapes_of_the_same_values_give_the_same_numbers(model: tessera.Model):
    expected = model.predict_proba(FRAMES, cohort="LUSC")
    shuffled = {m: t.iloc[::-1, ::-1] for m, t in FRAMES.items()}
    found = model.predict_proba(shuffled, cohort="LUSC").loc[expected.index]
    pd.testing.assert_frame_equal(found, expected)
    nullable = {**FRAMES, "mrna": GENES.convert_dtypes()}
    pd.testing.assert_frame_equal(model.predict_proba(nullable, cohort="LUSC"), expected)
    one = model.predict_proba({m: t.iloc[:1] for m, t in FRAMES.items()}, cohort="LUSC")
    assert np.abs(one.to_numpy() - expected.iloc[:1].to_numpy()).max() < 1e-6


@pytest.mark.parametrize("threshold", [9, -1, "a", 0.0], ids=str)
def test_an_explanation_of_no_output_gets_one_line(model: tessera.Model, threshold: object):
    with pytest.raises(tessera.InvalidInput, match="expected a threshold from 0 to 0"):
        model.explain(FRAMES, cohort="LUSC", threshold=threshold)  # type: ignore[arg-type]


def test_classes_that_are_no_mapping_get_one_line(model: tessera.Model):
    with pytest.raises(tessera.InvalidInput, match="class of each patient by id"):
        model.recalibrated(FRAMES, [model.classes[0]] * 4, cohort="LUSC", where="x")  # type: ignore[arg-type]


def changed(folder: Path, change: Callable[[dict], None]) -> None:
    card = json.loads((folder / "model_card.json").read_text())
    change(card)
    (folder / "model_card.json").write_text(json.dumps(card))


def unfinite(folder: Path) -> None:
    arrays = load((folder / "model.safetensors").read_bytes())
    data = save({name: values * np.float32(np.nan) for name, values in arrays.items()})
    (folder / "model.safetensors").write_bytes(data)
    changed(folder, lambda card: card["origin"].update(model_hash=hashlib.sha256(data).hexdigest()))


def wrote(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def said_of(change: Callable[[dict], None]) -> Callable[[Path], object]:
    return lambda folder: changed(folder, change)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        pytest.param(wrote("model.safetensors", b"x"), "parameters are not those", id="parameters"),
        pytest.param(lambda f: (f / "model.safetensors").unlink(), "found none", id="no-parameters"),
        pytest.param(wrote("model_card.json", b"{"), "Invalid JSON", id="no-json"),
        pytest.param(wrote("model_card.json", b"[" * 100_000), "Invalid JSON", id="deep-json"),
        pytest.param(wrote("model_card.json", b"null"), "should be an object", id="null"),
        pytest.param(said_of(lambda c: c.update(classes=["a"])), "contradicts itself", id="one-class"),
        pytest.param(said_of(lambda c: c.update(classes=["a", "a"])), "contradicts itself", id="class-twice"),
        pytest.param(said_of(lambda c: c["features"]["mrna"].pop()), "contradicts itself", id="input-missing"),
        pytest.param(
            said_of(lambda c: c["features"]["mrna"].__setitem__(0, c["features"]["mrna"][1])), "contradicts itself",
            id="input-twice",
        ),
        pytest.param(said_of(lambda c: c["config"].update(architecture="mlp")), "do not fit", id="other-network"),
        pytest.param(said_of(lambda c: c.update(code={"../evil.py": "0" * 64})), "brings Python code", id="code"),
        pytest.param(said_of(lambda c: c.update(zz=1)), "zz", id="unknown-field"),
        pytest.param(unfinite, "no finite numbers", id="not-finite"),
    ],
)  # fmt: skip
def test_a_folder_that_was_changed_is_refused(saved: Path, tmp_path: Path, harm: Callable[[Path], object], said: str):
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    harm(tmp_path)
    with pytest.raises(tessera.TesseraError, match=said):
        tessera.load(tmp_path).predict_proba(FRAMES, cohort="LUSC")


@pytest.mark.parametrize("folder", [None, 7, "", "/nowhere"], ids=str)
def test_no_folder_gets_one_line(folder: object):
    with pytest.raises(tessera.InvalidInput, match="expected"):
        tessera.load(folder)  # type: ignore[arg-type]


def test_a_place_that_cannot_be_written_gets_one_line(model: tessera.Model, saved: Path):
    with pytest.raises(tessera.InvalidInput, match="expected a folder that can be written"):
        model.save(saved / "model_card.md")


def test_another_studys_patients_are_refused(model: tessera.Model):
    with pytest.raises(tessera.InvalidInput, match="expected tables of clinical, image, mrna"):
        model.predict_proba({"history": pd.DataFrame({"age": ["61,5"]}, index=["p"])})
