"""A model that is used: the orchestrator's own scores from raw tables, frames in any shape, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import tessera
from datasites.data.ingest import ingest
from datasites.data.synthetic import SyntheticShape, generate
from orchestrator.cli.main import app
from orchestrator.simulation.runs import SimulationRequest, study_of
from orchestrator.studies.evaluation import evaluate, evaluate_model
from tessera.trained.model import Model

MEASURED = ("age", "sex", "race", "prior_malignancy", "x_grade", "x_ecog")


@pytest.fixture(scope="module", params=["linear", "mlp", "mlp-auxiliary"])
def simulation(request) -> tessera.Simulation:
    study = tessera.Study("pfs", model=request.param, outcome="ordinal", epsilon=4, rounds=2)
    return study.simulate(sites=3, patients=120, progress=False)


@pytest.fixture(scope="module")
def linear() -> Model:
    return tessera.Study("pfs", epsilon=4, rounds=2).simulate(sites=3, patients=120, progress=False).model


@pytest.fixture(scope="module")
def tables():
    return generate(seed=9, shape=SyntheticShape(patients={"BRCA": 30, "LUSC": 20, "LIHC": 20}))


def frames_of(tables, cohort="BRCA") -> dict[str, pd.DataFrame]:
    found = tables.cohorts[cohort]
    return {**found.modalities, "clinical": found.clinical[list(MEASURED)]}


def test_predictions_from_raw_tables_are_the_orchestrators_own_scores(simulation, tables, tmp_path):
    plan = ingest(tables, tmp_path / "dealt", federation="upper-bound", task="ordinal", seed=0, test_fraction=0.4)
    model = simulation.model
    request = SimulationRequest(
        data=None, federation="tri-modal", sites=3, task="ordinal", methods=("fedavg",), rounds=2, epsilon=4.0,
        architecture=model.facts.config.architecture, delta=1e-4, noise="shared", synthetic_patients=120,
    )  # fmt: skip
    proposal = study_of(request, "fedavg", 0).proposal
    expected = evaluate_model(proposal, model.parameters, tmp_path / "dealt" / "test")
    parts, labels, cohorts = [], [], []
    for place, name in enumerate(model.facts.cohorts):
        table = tables.cohorts[name].clinical.loc[[c for c in plan.test if c in tables.cohorts[name].clinical.index]]
        frames = {m: f.loc[f.index.intersection(table.index)] for m, f in frames_of(tables, name).items()}
        found = model.predict_proba(frames, cohort=name).loc[table.index]
        parts.append(found.to_numpy())
        labels += np.minimum(table["stage_idx"], 2).tolist()
        cohorts += [place] * len(table)
    scored = evaluate(np.concatenate(parts), np.array(labels), np.array(cohorts), model.facts.cohorts)
    assert scored.cases == expected["test_patients"] and scored.auroc == pytest.approx(expected["auroc"], abs=1e-12)
    assert scored.cross_entropy == pytest.approx(expected["cross_entropy"], rel=1e-6)


def test_a_saved_model_is_the_same_model(simulation, tables, tmp_path):
    model, frames = simulation.model, frames_of(tables)
    model.save(tmp_path)
    again = tessera.load(tmp_path)
    assert again.facts == model.facts and repr(again) == repr(model)
    pd.testing.assert_frame_equal(
        again.predict_proba(frames, cohort="BRCA"), model.predict_proba(frames, cohort="BRCA")
    )
    written = {"model.safetensors", "model_card.json", "model_card.md", "schema.json"}
    assert {path.name for path in tmp_path.iterdir()} == written


def test_onnx_gives_the_same_probabilities(simulation, tables, tmp_path):
    import onnxruntime

    from tessera.trained.frames import read_frames

    model, frames = simulation.model, frames_of(tables)
    model.save(tmp_path, onnx=True)
    _, batch = read_frames(frames, model.facts, "BRCA")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    given = {entry.name: batch[entry.name] for entry in session.get_inputs()}
    found = session.run(None, given)[0]
    assert np.abs(found - model.predict_proba(frames, cohort="BRCA").to_numpy()).max() <= 1e-5


def test_contributions_add_up_to_the_log_odds(simulation, tables):
    found = simulation.model.explain(frames_of(tables), cohort="BRCA")
    assert found.exact == (simulation.study.model == "linear")
    assert found.residual.abs().max() < (1e-5 if found.exact else 0.02)
    assert list(found.by_modality) == ["mrna", "image", "clinical"] and len(found.by_feature) == 30
    odds = np.log(1 / simulation.model.predict_proba(frames_of(tables), cohort="BRCA")["I"] - 1)
    assert np.allclose(odds[found.log_odds.index], found.log_odds, atol=1e-4)
    assert found.plot()._repr_png_() and "inputs" in found._repr_html_()
    with pytest.raises(tessera.InvalidInput, match="a threshold from 0 to 1"):
        simulation.model.explain(frames_of(tables), cohort="BRCA", threshold=2)


def test_columns_may_be_in_any_order_and_modalities_missing(linear, tables):
    frames = frames_of(tables)
    expected = linear.predict_proba(frames, cohort="BRCA")
    shuffled = {m: f.sample(frac=1, axis=1, random_state=0).sample(frac=1, random_state=1) for m, f in frames.items()}
    found = linear.predict_proba(shuffled, cohort="BRCA")
    pd.testing.assert_frame_equal(found.loc[expected.index], expected)
    one = linear.predict_proba({"clinical": frames["clinical"]}, cohort="BRCA")
    nowhere = frames["clinical"].index.difference(frames["mrna"].index.union(frames["image"].index))
    pd.testing.assert_frame_equal(one.loc[nowhere], expected.loc[nowhere])
    assert not np.allclose(one.loc[expected.index], expected)


def test_one_table_with_all_columns_is_the_same(linear, tables):
    frames = frames_of(tables)
    whole = pd.concat(frames.values(), axis=1).rename_axis("case_id").reset_index().assign(cohort="BRCA")
    expected = linear.predict_proba(frames, cohort="BRCA")
    found = linear.predict_proba(whole)
    assert list(found.index) == list(whole["case_id"])
    pd.testing.assert_frame_equal(found.loc[expected.index], expected)


def test_cohorts_may_be_given_by_patient(linear, tables):
    frames = frames_of(tables)
    said = dict.fromkeys(frames["clinical"].index, "LUSC")
    found = linear.predict_proba(frames, cohort=said)
    pd.testing.assert_frame_equal(found, linear.predict_proba(frames, cohort=pd.Series(said)))
    pd.testing.assert_frame_equal(found, linear.predict_proba(frames, cohort="LUSC"))


def strange(frames, **changes):
    return {m: changes.get(m, lambda f: f)(f) for m, f in frames.items()}


@pytest.mark.parametrize(
    ("change", "cohort", "expected"),
    [
        ({"clinical": lambda f: f.assign(stage="I")}, "BRCA", "none of the model's inputs: 'stage'"),
        ({"mrna": lambda f: f.drop(columns="GENE001")}, "BRCA", "1 of the model's 200 columns are missing: 'GENE001'"),
        ({"mrna": lambda f: pd.concat([f, f.iloc[:2]])}, "BRCA", "every patient once, with an id; 2 rows"),
        ({"mrna": lambda f: f.assign(GENE001="high")}, "BRCA", "expected numbers"),
        ({"mrna": lambda f: f.assign(GENE001=np.inf)}, "BRCA", "expected finite numbers"),
        ({}, None, "expected a cohort out of BRCA, LUSC, LIHC"),
        ({}, "SKCM", "got 'SKCM'"),
        (
            {"image": lambda f: f.iloc[:0], "mrna": lambda f: f.iloc[:0], "clinical": lambda f: f * np.nan},
            "BRCA",
            "none",
        ),
    ],
    ids=["stranger", "missing", "twice", "words", "infinite", "no-cohort", "another-cohort", "empty"],
)
def test_what_does_not_fit_is_refused_and_no_value_is_shown(linear, tables, change, cohort, expected):
    frames = frames_of(tables)
    frames["clinical"] = frames["clinical"][["age"]]
    with pytest.raises(tessera.InvalidInput, match=expected) as refused:
        linear.predict_proba(strange(frames, **change), cohort=cohort)
    assert "SYNT" not in str(refused.value) and "high" not in str(refused.value)


def test_an_unknown_modality_is_refused(linear, tables):
    with pytest.raises(tessera.InvalidInput, match="tables of clinical, image, mrna"):
        linear.predict_proba({"genes": frames_of(tables)["mrna"]}, cohort="BRCA")


def test_a_cell_outside_the_range_is_told(linear, tables):
    frames = frames_of(tables)
    with pytest.warns(UserWarning, match="2 cells of 'age'"):
        linear.predict_proba({"clinical": frames["clinical"].assign(age=[700, 0] + [60] * 28)}, cohort="BRCA")


@pytest.mark.parametrize("name", ["model.safetensors", "model_card.json"])
def test_a_changed_file_is_noticed(linear, tmp_path, name):
    linear.save(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[-8 if name == "model.safetensors" else 1] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(tessera.TesseraError):
        tessera.load(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(tessera.InvalidInput, match="a saved model"):
        tessera.load(tmp_path)


def test_the_card_says_what_a_reader_needs(linear, tmp_path):
    card = (linear.save(tmp_path) / "model_card.md").read_text()
    for said in (
        "I-II, III-IV",
        "public seed, which protects nobody",
        "no medical device",
        linear.facts.origin.model_hash,
    ):
        assert said in card
    assert "research only" in card and "BRCA hospital 1" in card


def test_the_command_predicts_a_table(linear, tables, tmp_path):
    linear.save(tmp_path / "model")
    frames = frames_of(tables)
    for modality, frame in frames.items():
        frame.to_csv(tmp_path / f"{modality}.csv")
    given = [f"{m}={tmp_path / m}.csv" for m in frames]
    out = tmp_path / "found.csv"
    ended = CliRunner().invoke(app, ["predict", str(tmp_path / "model"), *given, "--cohort", "BRCA", "--out", str(out)])
    assert ended.exit_code == 0, ended.output
    found = pd.read_csv(out, index_col="case_id")
    expected = linear.predict_proba(frames, cohort="BRCA")
    pd.testing.assert_frame_equal(found, expected.loc[found.index], rtol=1e-5)
    assert Path(out).stat().st_mode & 0o777 == 0o600
