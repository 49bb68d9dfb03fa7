"""Sweeps over a grid, sites over processes, what is kept, and what a sweep would have cost."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.process_engine import ProcessEngine
from orchestrator.simulation.runs import SimulationRequest, study_of
from orchestrator.simulation.sweep import jobs_of, parse_grid, private_cost
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput

REQUEST = SimulationRequest(
    data=None, federation="tri-modal", sites=3, task="early-late", methods=("fedavg",), architecture="linear",
    rounds=2, epsilon=4.0, delta=1e-4, noise="local", synthetic_patients=180,
)  # fmt: skip


def test_sites_in_processes_give_the_model_of_one_process_bit_for_bit(imported_once):
    study = study_of(REQUEST, "fedavg", 0)
    alone = [done.model for done in run_study(study.proposal, study.model, Shard(study.proposal, study.sites))]
    with ProcessEngine(study, processes=2) as engine:
        apart = [done.model for done in run_study(study.proposal, study.model, engine)]
    assert apart == alone


def test_a_grid_is_every_combination_and_its_report_says_what_it_would_have_cost(tmp_path):
    words = ["simulate", "--patients", "180", "--sites", "3", "--noise", "local", "--jobs", "1", "--json"]
    grid = ["--grid", "epsilon=1,4", "--grid", "rounds=1,2", "--keep", str(tmp_path)]
    found = CliRunner().invoke(app, [*words, *grid])
    report = json.loads(found.stdout)
    assert [line["cell"] for line in report["grid"]] == [
        {"epsilon": e, "rounds": r} for e in (1.0, 4.0) for r in (1, 2)
    ]
    assert [len(run["curve"]) for run in report["runs"]] == [1, 2, 1, 2]
    cost = report["on_private_data"]
    assert cost["studies"] == 4 and 3.9 < cost["largest"] <= 4.0 < cost["epsilon"] < 10.0 and cost["delta"] == 1e-4
    for run in report["runs"]:
        name = f"epsilon-{run['cell']['epsilon']}_rounds-{run['cell']['rounds']}_fedavg_seed-0"
        assert sha256_hex((tmp_path / f"{name}.safetensors").read_bytes()) == run["model_hash"]
        assert json.loads((tmp_path / f"{name}.json").read_text())["curve"] == run["curve"]


def test_seeds_and_baselines_are_no_further_studies_and_no_privacy_is_said():
    def result(method, seed, noise):
        mechanism = {
            "max_grad_norm": 1.0, "noise_multiplier": noise, "sampling_rate": 1.0, "steps_per_round": 1, "rounds": 1,
            "target_delta": 1e-4,
        }  # fmt: skip
        return {"method": method, "seed": seed, "mechanism": mechanism}

    one = private_cost([result("fedavg", 0, 2.0), result("fedavg", 1, 2.0), result("pooled", 0, 2.0)])
    assert one["studies"] == 1 and one["epsilon"] == pytest.approx(one["largest"], rel=1e-6)
    two = private_cost([result("fedavg", 0, 2.0), result("fedprox", 0, 2.0)])
    assert two["studies"] == 2 and two["epsilon"] > two["largest"]
    assert private_cost([result("fedavg", 0, 0.0)])["epsilon"] is None
    assert private_cost([])["studies"] == 0


@pytest.mark.parametrize("text", ["epsilon", "speed=1", "rounds=two", "rounds=", "colour=red", "=1"])
def test_a_grid_that_is_none_is_refused(text):
    with pytest.raises(InvalidInput, match="--grid"):
        parse_grid([text])


def test_a_grid_is_checked_before_anything_runs():
    assert parse_grid([]) == ({},) and parse_grid(["model=mlp"]) == ({"architecture": "mlp"},)
    with pytest.raises(InvalidInput, match="--grid"):
        parse_grid(["rounds=1", "rounds=2"])
    with pytest.raises(InvalidInput, match="at most 500"):
        parse_grid([f"rounds={','.join(map(str, range(1, 502)))}"])
    with pytest.raises(InvalidInput, match="epsilon above 0"):
        jobs_of(REQUEST, parse_grid(["epsilon=4,0"]), [0])
    with pytest.raises(InvalidInput, match="--method out of"):
        jobs_of(REQUEST, parse_grid(["method=fedavg,nothing"]), [0])
