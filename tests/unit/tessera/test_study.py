"""A study described in Python: what it refuses, how it shows itself, and the same numbers as `tessera simulate`."""

from __future__ import annotations

import math

import pytest

import tessera
from orchestrator.simulation.runs import SimulationRequest, run_one, summary

SMALL = {"sites": 3, "patients": 120, "progress": False}


@pytest.fixture(scope="module")
def simulation() -> tessera.Simulation:
    return tessera.Study("pfs", epsilon=4, rounds=2).simulate(**SMALL)


def test_a_simulation_gives_the_very_numbers_of_the_command(simulation):
    request = SimulationRequest(
        data=None, federation="tri-modal", sites=3, task="early-late", methods=("fedavg",), architecture="linear",
        rounds=2, epsilon=4.0, delta=1e-4, noise="shared", synthetic_patients=120,
    )  # fmt: skip
    expected = run_one(request, "fedavg", 0)
    run = dict(simulation.runs[0])
    assert {n: v for n, v in run.items() if n != "seconds"} == {n: v for n, v in expected.items() if n != "seconds"}
    assert {n: round(v, 4) for n, v in simulation.metrics.items()} == {
        n: v["mean"] for n, v in summary([expected])["fedavg"].items()
    }
    assert simulation.metrics["auroc"] == pytest.approx(sum(run["auroc_by_cohort"].values()) / 3)


def test_a_result_shows_itself(simulation):
    assert repr(simulation).startswith("Simulation('pfs', 1 seed, AUROC 0.")
    assert "<td>auroc</td>" in simulation._repr_html_() and "epsilon 4 at delta 0.0001" in simulation._repr_html_()
    assert list(simulation.by_cohort().index) == ["BRCA", "LUSC", "LIHC"]
    assert simulation.curves == [simulation.runs[0]["curve"]] and len(simulation.curves[0]) == 2


def test_a_picture_is_shown_and_saved(simulation, tmp_path):
    picture = simulation.plot()
    assert picture.save(tmp_path / "curve.svg").read_text().lstrip().startswith("<?xml")
    assert picture._repr_png_().startswith(b"\x89PNG")


def test_without_rounds_the_schedule_of_live_studies_is_taken(tmp_path):
    found = tessera.Study("pfs", epsilon=2).simulate(**SMALL, keep=tmp_path)
    assert len(found.curves[0]) == 6  # orchestrator/studies/proposing/schedule.py: the linear model under shared noise


def test_a_finished_seed_is_not_run_again(tmp_path, monkeypatch):
    study = tessera.Study("pfs", rounds=1)
    first = study.simulate(**SMALL, keep=tmp_path)
    ran = []
    monkeypatch.setattr("tessera.running.Job.run", lambda job, _: ran.append(job.seed))
    assert study.simulate(**SMALL, keep=tmp_path).metrics == first.metrics and ran == []
    study.replace(epsilon=2).simulate(**SMALL, keep=tmp_path)  # another study: its seed runs
    assert ran == [0]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("model", "cubic", "expected a model out of linear"),
        ("epsilon", 0, "expected epsilon above 0"),
        ("epsilon", math.nan, "expected epsilon above 0"),
        ("noise", "loud", "expected noise out of local, shared"),
        ("rounds", 0, "expected 1 to 1000 rounds"),
        ("evaluation", 2.0, "from 0 to 1"),
        ("aggregation", "best", "expected --aggregation out of"),
        ("fusion", "tokens", "expected the model mlp"),
    ],
)
def test_a_value_that_no_study_can_have_is_refused(field, value, expected):
    with pytest.raises(tessera.InvalidInput, match=expected):
        tessera.Study("pfs", **{field: value})


def test_an_unknown_field_is_named():
    with pytest.raises(tessera.InvalidInput, match="no field 'eps'"):
        tessera.Study("pfs").replace(eps=1)


def test_a_study_shows_what_was_chosen():
    study = tessera.Study("pfs", epsilon=4, noise="local")
    assert repr(study) == "Study('pfs', model='linear', epsilon=4, noise='local')"
    assert "<script>" not in tessera.Study("pfs", outcome="<script>")._repr_html_()
    assert tessera.Study("pfs", epsilon=math.inf).privacy == "no privacy"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"sites": 2}, "at least 3 sites"), ({"seeds": 0}, "at least one seed"), ({"data": "nowhere"}, "cohort tables")],
    ids=["sites", "seeds", "data"],
)
def test_a_simulation_that_cannot_be_is_refused_in_one_line(given, expected):
    with pytest.raises(tessera.InvalidInput, match=expected):
        tessera.Study("pfs", rounds=1).simulate(**{**SMALL, **given})


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(AttributeError, match=r"it has .*Study"):
        _ = tessera.study_of
    assert "Study" in dir(tessera)


def test_the_first_seeds_model_comes_along(simulation):
    assert simulation.model.facts.origin.model_hash == simulation.runs[0]["model_hash"]
    assert simulation.model.facts.metrics["auroc"] == simulation.metrics["auroc"]


@pytest.mark.parametrize(("name", "score"), [("heart", "auroc"), ("toy", "auroc")])
def test_a_schema_that_comes_along_is_simulated_by_its_name(name, score):
    study = tessera.Study("by-schema", schema=name, epsilon=8, rounds=3)
    sim = study.simulate(sites=4, patients=160, progress=False, jobs=1)
    assert 0.4 < sim.metrics[score] <= 1 and sim.model.facts.reading == "schema"
    assert sim.model.facts.schema is not None and sim.model.columns.keys() == sim.model.facts.features.keys()
    with pytest.raises(tessera.InvalidInput):
        tessera.Study("by-schema", schema="nowhere.toml")


def test_a_study_by_schema_survives_the_way_to_another_process(tmp_path):
    from orchestrator.simulation.runs import SimulationRequest
    from tessera.running import Job

    request = tessera.Study("by-schema", schema="heart")._request(
        data=None, sites=4, federation="tri-modal", synthetic_patients=100, split="stratified", alpha=0.5
    )
    job = Job(request=request, seed=1, key="k", folder=tmp_path)
    assert isinstance(request, SimulationRequest) and Job.decode(job.encode()) == job
