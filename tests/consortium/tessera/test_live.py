"""Every line of the scientist's ten, against three hospitals with people who approve."""

from __future__ import annotations

import threading
from typing import Any

import pandas as pd
import pytest
from support.live_consortium import FILING, LiveConsortium

import tessera
from datasites.data.synthetic import generate
from orchestrator.studies.evaluation import evaluate_model

ASKED: dict[str, Any] = {"filing": FILING, "purpose": "Whether it works.", "investigator": "Dr. Ada Example"}
CLINICAL = ["age", "sex", "race", "prior_malignancy", "x_grade", "x_ecog"]


@pytest.fixture(scope="module")
def hub(three: LiveConsortium) -> tessera.Hub:
    return tessera.connect(three.home.folder, person="Ada")


@pytest.fixture(scope="module")
def run(three: LiveConsortium, hub: tessera.Hub) -> tessera.Run:
    """A finished study, whose test patients are those that no hospital got."""
    study = tessera.Study("first", epsilon=4, rounds=2, evaluation=0.5, evaluation_by=("site", "pattern"))
    made = study.propose(hub, sites=list(three.sites), options={"helpers": 0}, progress=False, **ASKED)
    made.test = three.folder / "dealt" / "test"
    assert made.state == "waiting" and not made.reviews["approved"].any()
    three.approve(three.hash_of("first"))
    return made.wait(callbacks=[Heard()], progress=False, timeout_seconds=300)


class Heard:
    """A callback that writes down what it is told."""

    told: list[Any] = []  # noqa: RUF012  the test reads it

    def begin(self, run: tessera.Run) -> None:
        self.told.append("begin")

    def round(self, run: tessera.Run, number: int, values: Any) -> None:
        self.told.append((number, dict(values)))

    def end(self, run: tessera.Run, metrics: Any) -> None:
        self.told.append(dict(metrics))


def test_hospitals_and_what_they_publish_are_listed(hub, three):
    sites = hub.sites()
    assert list(sites.index) == list(three.sites) and set(sites["predicts"]) == {"early-late"}
    assert (sites["patients"] > 100).all() and three.sites[0] in hub._repr_html_() and "Ada" in repr(hub)
    found = hub.dataset("brca-1")
    assert found.schema.features["clinical"] and found.name == "brca-1-staging" and "early-late" in repr(found)
    mock = found.mock()
    assert len(mock) == 48 and all(case.startswith("MOCK-") for case in mock.index)
    assert {"cohort", "label", *found.schema.features["mrna"]} <= set(mock)
    assert list(found.mock("mrna")) == list(found.schema.features["mrna"])
    assert hub.dataset("brca-1-staging").site == "brca-1"
    with pytest.raises(tessera.InvalidInput, match="expected a hospital out of"):
        hub.dataset("nobody")


def test_a_study_is_followed_to_its_end(run, three):
    assert run.state == "finished" and run.reviews["approved"].all()
    assert "anna" in " ".join(run.reviews["by"]).lower()
    assert list(run.by_site().index) == list(three.sites) and set(run.by_site()["rounds"]) == {2}
    assert run.proposal.filing.principal_investigator == "Dr. Ada Example"
    assert run.proposal.purpose == "Whether it works."
    begin, first, second, end = Heard.told
    assert begin == "begin" and (first[0], second[0]) == (1, 2) and first[1]["sites"] == 3
    assert second[1]["step_norm"] > 0 and end["auroc"] == run.metrics["auroc"] > 0.5
    assert repr(run) == "Run('first', finished, 3 of 3 approved, 2 of 2 rounds)" and "finished" in run._repr_html_()
    assert list(run.thread.columns) == ["at", "who", "kind", "text"]
    assert list(run.by_modality().index) == ["mrna", "image", "clinical"]
    assert (run.by_modality()["auroc"] > 0.3).all() and run.plot()._repr_png_()


def test_the_model_predicts_as_the_orchestrator_scores(run, three, tmp_path):
    model = run.model
    expected = evaluate_model(run.proposal, model.parameters, run.test)
    assert model.facts.metrics["auroc"] == pytest.approx(expected["auroc"], abs=1e-12)
    assert model.facts.reading == "tables" and model.facts.origin.proposal_hash == run.proposal.proposal_hash
    assert "worst case over the whole study" in model.facts.privacy.statement
    assert model.facts.privacy.epsilon == pytest.approx(4, rel=0.01)
    model.save(tmp_path / "out", onnx=True)
    cohort = generate(seed=0).cohorts["LUSC"]
    frames = {**cohort.modalities, "clinical": cohort.clinical[CLINICAL]}
    found = tessera.load(tmp_path / "out").predict_proba(frames, cohort="LUSC")
    pd.testing.assert_frame_equal(found, model.predict_proba(frames, cohort="LUSC"))
    assert model.explain(frames, cohort="LUSC").exact


def test_a_study_begins_with_another_ones_model(run, three, hub):
    more = tessera.Study("first", epsilon=1, rounds=1).extend(run, options={"helpers": 0}, progress=False)
    assert more.name == "first-more" and more.proposal.chain.study == run.proposal.proposal_hash
    assert more.proposal.chain.model_hash == run.status()["checkpoints"][-1]["model_hash"]
    assert more.proposal.mechanism.epsilon() == pytest.approx(1, rel=0.01)
    three.approve(three.hash_of("first-more"))
    more.wait(progress=False, timeout_seconds=300)
    assert more.state == "finished"
    assert "began with" not in run.model.facts.origin.study and more.model.facts.origin.began_with
    assert list(hub.studies().index)[:1] == ["first"] and hub.run("first-more").state == "finished"


def test_one_model_is_evaluated_at_every_hospital_and_those_that_allow_it_are_named(run, three):
    allows = three.sites[0]
    kept = run.evaluation
    assert {"auroc", "brier", "calibration_slope"} <= {name for name, _ in kept.index}
    assert (kept["low"] <= kept["value"]).all() and (kept["value"] <= kept["high"]).all()
    study = tessera.Study("first", epsilon=4, rounds=2, evaluation=0.5)
    asked = study.evaluate(run, epsilon=2, by=("site", "pattern"), options={"helpers": 0}, progress=False)
    assert asked.proposal.chain.model_hash == run.status()["checkpoints"][-1]["model_hash"]
    assert [p.name for p in asked.proposal.participants if p.evaluated_alone] == [allows]
    three.approve(three.hash_of("first-evaluated"))
    found = asked.wait(progress=False, timeout_seconds=300).evaluation
    places = {where for name, where in found.index if name == "auroc"}
    assert {f"site {allows}", "pattern mrna+image+clinical", "BRCA"} <= places
    assert not any(f"site {other}" in places for other in three.sites[1:])
    assert asked.rounds.loc[1, "sites"] == 3 and asked.rounds.loc[1, "step_norm"] > 0


def test_waiting_can_be_interrupted_and_taken_up_again(three, hub):
    study = tessera.Study("later", epsilon=0.5, rounds=1, noise="local")
    made = study.propose(hub, options={"helpers": 0, "min_sites": 3}, progress=False, **ASKED)
    with pytest.raises(tessera.TesseraError, match="still waiting"):
        made.wait(progress=False, timeout_seconds=1)
    threading.Thread(target=three.approve, args=(three.hash_of("later"),)).start()
    assert hub.run("later").wait(progress=False, timeout_seconds=300).state == "finished"


def test_what_hospitals_have_to_read_is_asked_for_by_name(hub, monkeypatch):
    monkeypatch.delenv("TESSERA_FILING", raising=False)
    with pytest.raises(tessera.InvalidInput, match=r"cannot be proposed without: .*legal_basis.*ethics_vote"):
        tessera.Study("unfiled").propose(hub, purpose="Why not.", investigator="Dr. Ada", progress=False)


def test_another_identity_is_refused_before_anything_is_asked(three, tmp_path):
    home = three.homes.keyholder.folder
    with pytest.raises(tessera.InvalidInput, match="folder of an orchestrator or a scientist"):
        tessera.connect(home)
    before = (home / "config.json").read_bytes()
    with pytest.raises(tessera.Refused, match="nor that of a scientist in the roster"):
        tessera.connect(url="http://127.0.0.1:9", identity=home)
    assert (home / "config.json").read_bytes() == before
    with pytest.raises(tessera.InvalidInput, match="expected connect"):
        tessera.connect()


def test_statistics_are_asked_approved_counted_and_shown(three, hub):
    asked = hub.analytics(epsilon=0.5, name="ages", options={"helpers": 0}, progress=False, **ASKED)
    run = asked.together(asked.questions.counts("cohort", "sex"), asked.questions.histogram("age", bins=5))
    assert run.state == "waiting" and run.proposal.model.counting is not None and not run.reviews["approved"].any()
    assert run.proposal.purpose == "Whether it works." and run.proposal.mechanism.epsilon() == pytest.approx(
        0.5, rel=0.01
    )
    three.approve(three.hash_of("ages"))
    counts, ages = run.wait(progress=False, timeout_seconds=300).answers
    dealt = sum(hub.sites()["patients"])
    by_cohort = counts.table.loc["cohort", "patients"]
    assert by_cohort.sum() == pytest.approx(dealt, abs=6 * 3 * counts.noise + 60)  # that count is noised as well
    assert len(ages.table) == 6 and hub.run("ages").answer.title == counts.title
