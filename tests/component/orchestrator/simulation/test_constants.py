"""Constants from public tables, from the command that makes them to a simulated study that begins with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datasites.data.ingest import ingest
from datasites.data.synthetic import DEFAULT_SHAPE, generate
from orchestrator.cli.main import app
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.runs import SimulationRequest, study_of
from privacy.errors import InvalidInput


@pytest.fixture(scope="module")
def constants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make constants of two synthetic hospitals, in the place of public patients."""
    folder = tmp_path_factory.mktemp("public")
    tables = generate(seed=7, shape=replace(DEFAULT_SHAPE, patients=dict.fromkeys(DEFAULT_SHAPE.patients, 100)))
    ingest(tables, folder / "dealt", federation="tri-modal", task="early-late", seed=7, sites=3)
    datasets = sorted(path.parent for path in (folder / "dealt").rglob("private"))
    out = folder / "constants.json"
    command = ["constants", "make", str(out), *map(str, datasets[:3]), "--source", "made-up patients", "--json"]
    made = CliRunner().invoke(app, command)
    assert made.exit_code == 0, made.output
    facts = json.loads(made.stdout)
    assert facts["weights"] and facts["task"] == "early-late" and len(facts["tables"]) >= 6
    shown = CliRunner().invoke(app, ["constants", "show", str(out), "--json"])
    assert json.loads(shown.stdout) == facts
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, InvalidInput)
    return out


def request(constants: Path | None, epsilon: float) -> SimulationRequest:
    return SimulationRequest(
        data=None, federation="tri-modal", sites=3, task="early-late", methods=("fedavg",), architecture="linear",
        rounds=None, epsilon=epsilon, delta=1e-4, noise="shared", synthetic_patients=300, constants=constants,
    )  # fmt: skip


def test_a_study_at_epsilon_one_begins_with_them_and_trains_from_the_first_round(constants: Path) -> None:
    study = study_of(request(constants, 1.0), "fedavg", 0)
    stated = study.proposal.constants
    assert stated is not None and stated.source == "made-up patients" and study.proposal.model.public_centres
    first = next(iter(run_study(study.proposal, study.model, Shard(study.proposal, study.sites))))
    assert first.model != study.model


def test_a_study_at_epsilon_eight_releases_its_own_means(constants: Path) -> None:
    proposal = study_of(request(constants, 8.0), "fedavg", 0).proposal
    assert proposal.constants is None and proposal.model.centred and not proposal.model.public_centres


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "."], "expected --source"),
        (["--source", "x"], "expected dataset folders"),
        (["--source", "x", "nowhere"], "expected a dataset schema"),
    ],
    ids=["no-source", "no-tables", "no-dataset"],
)
def test_half_a_command_says_what_is_missing(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["constants", "make", str(tmp_path / "c.json"), *arguments])
    assert isinstance(done.exception, InvalidInput) and words in str(done.exception)
    assert not (tmp_path / "c.json").exists()
