"""``tessera simulate``: many seeds and methods, one JSON object, the same numbers however many processes."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.simulation.runs import SimulationRequest, summary
from privacy.errors import InvalidInput, Refused

SMALL = ("simulate", "--patients", "300", "--rounds", "2", "--epsilon", "inf", "--json")


def run(*arguments: str):
    found = CliRunner().invoke(app, [*SMALL, *arguments])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout.splitlines()[-1])


def test_every_method_is_one_option_away_and_scored_on_the_same_patients():
    methods = ("fedavg", "dgb+pcw", "pooled", "upper-bound", "local")
    report = run("--jobs", "1", *(a for m in methods for a in ("--method", m)))
    assert set(report["methods"]) == set(methods)
    assert all(0.5 < entry["auroc"]["mean"] <= 1 for entry in report["methods"].values())
    runs = {r["method"]: r for r in report["runs"]}
    assert runs["fedavg"]["cases"] == runs["pooled"]["cases"] == runs["upper-bound"]["cases"]
    assert len(runs["fedavg"]["curve"]) == 2 and len(runs["fedavg"]["model_hash"]) == 64
    assert report["metrics"] == "exact on synthetic patients"


def test_processes_side_by_side_give_the_models_of_one_after_the_other():
    one, two = (run("--seeds", "2", "--jobs", jobs)["runs"] for jobs in ("1", "2"))
    assert [r["model_hash"] for r in one] == [r["model_hash"] for r in two]
    assert one[0]["model_hash"] != one[1]["model_hash"]


def test_flipped_labels_are_worse_than_right_ones():
    right, flipped = (run(*extra)["runs"][0] for extra in ((), ("--corrupt", "flip:brca-1,lusc-1,lihc-1")))
    assert flipped["auroc"] < right["auroc"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--method", "magic"), "--method out of"),
        (("--noise", "loud"), "--noise out of"),
        (("--model", "convolutional"), "--data with BRCA"),
        (("--fusion", "combination", "--model", "mlp"), "no model to score"),
        (("--fusion", "tokens"), "mlp or convolutional"),
        (("--engine", "cloud"), "--engine local or ray"),
        (("--corrupt", "flip:nobody", "--jobs", "1"), "--corrupt flip"),
    ],
)
def test_a_wish_that_makes_no_sense_is_named(options, problem):
    with pytest.raises(InvalidInput, match=problem):
        run(*options)


def test_proximity_under_shared_noise_is_refused():
    with pytest.raises(Refused, match="share of the noise"):
        run("--epsilon", "8", "--noise", "shared", "--method", "pcw", "--jobs", "1")


def test_the_interval_is_students_over_seeds():
    scores = dict.fromkeys(("balanced_accuracy", "cross_entropy", "calibration_error"), 0.5)
    runs = [{"method": "fedavg", "auroc": value, **scores} for value in (0.6, 0.7, 0.8)]
    found = summary(runs)["fedavg"]
    assert found["auroc"] == {"mean": 0.7, "half_width": 0.2484}
    assert found["cross_entropy"] == {"mean": 0.5, "half_width": 0.0}


def test_a_request_says_what_a_study_would_be_asked_for():
    request = SimulationRequest(
        data=None,
        federation="tri-modal",
        sites=None,
        task="ordinal",
        methods=("fedadam",),
        architecture="mlp",
        rounds=3,
        epsilon=2.0,
        delta=1e-5,
        noise="shared",
        fusion="tokens",
    )
    settings = request.settings("fedadam", 7)
    assert (settings.aggregation, settings.seed, settings.task) == ("fedadam", 7, "ordinal")
    assert (settings.epsilon, settings.delta, settings.noise, settings.fusion) == (2.0, 1e-5, "shared", "tokens")
