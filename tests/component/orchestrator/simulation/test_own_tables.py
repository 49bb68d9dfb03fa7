"""``tessera simulate`` on any folder of tables by a schema, with own networks and own rules."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import tessera
from datasites.data.made_up import write_tables
from datasites.data.reading.schema_files import read_schema_document
from orchestrator.cli.main import app
from orchestrator.simulation.schema_tables import table_patients
from privacy.errors import InvalidInput

HEART = read_schema_document(Path("heart"))
NETWORK = """
import torch
from torch import nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.names = list(config.features)
        self.layer = nn.Linear(sum(config.features.values()), config.outputs)

    def forward(self, batch):
        return self.layer(torch.cat([batch[name] for name in self.names], dim=1))


def build_model(config, *, seed):
    torch.manual_seed(seed)
    return Net(config)


def record_loss(model, batch):
    return F.binary_cross_entropy_with_logits(model(batch)[:, 0], batch["label"].float(), reduction="none")
"""
RULE = """
from tessera import ServerStep


class Half(ServerStep):
    def step(self, model, mean_update, state):
        return model + 0.5 * mean_update


def server_step():
    return Half()
"""


def hospitals(folder: Path, count: int = 3, patients: int = 60) -> Path:
    """A folder of tables for each hospital; the second has no stress tests, and ids repeat between hospitals."""
    every = tuple(modality.name for modality in HEART.modalities)
    for number in range(1, count + 1):
        held = every[:-1] if number == 2 else every
        made = write_tables(
            folder / f"clinic-{number}", HEART, "disease", patients=patients, seed=0, site=number, modalities=held
        )
        for table in made.glob("*.csv"):
            found = pd.read_csv(table, dtype=str)
            found["patient_id"] = found["patient_id"].str[-5:]
            found.to_csv(table, index=False)
    return folder


def run(*words: str) -> dict:
    found = CliRunner().invoke(
        app, ["simulate", "--schema", "heart", "--noise", "local", "--jobs", "1", "--json", *words]
    )
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def test_a_folder_for_each_hospital_keeps_hospitals_and_a_quarter_is_held_out(tmp_path):
    everyone, plan = table_patients(Path("heart"), None, hospitals(tmp_path / "all"), None, "tri-modal", 0)
    assert [site.name for site in plan.sites] == ["clinic-1", "clinic-2", "clinic-3"]
    assert plan.sites[1].modalities == ("history", "laboratory") and len(everyone.rows) == 180
    assert len(plan.test) == 45 and not {case for site in plan.sites for case in site.cases} & set(plan.test)
    again = table_patients(Path("heart"), None, tmp_path / "all", None, "tri-modal", 1)[1]
    assert set(again.test) != set(plan.test)


def test_tables_of_everybody_are_dealt(tmp_path):
    (tmp_path / "one").mkdir()
    for table in hospitals(tmp_path / "all", count=1, patients=90).glob("clinic-1/*.csv"):
        table.rename(tmp_path / "one" / table.name)
    report = run("--data", str(tmp_path / "one"), "--sites", "3", "--rounds", "2", "--epsilon", "inf")
    assert report["runs"][0]["sites"] == 3 and 0.4 < report["runs"][0]["auroc"] <= 1.0
    assert "public data" in report["metrics"]


def test_any_folder_takes_an_own_network_and_an_own_rule_and_keeps_models_and_curves(tmp_path, warm_here):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "plan.py").write_text(NETWORK)
    (tmp_path / "rule.py").write_text(RULE)
    data = str(hospitals(tmp_path / "all"))
    own = [
        "--plan",
        str(tmp_path / "net"),
        "--server-step",
        str(tmp_path / "rule.py"),
        "--keep",
        str(tmp_path / "kept"),
    ]
    report = run("--data", data, *own, "--grid", "epsilon=4,8", "--rounds", "2")
    assert [line["cell"]["epsilon"] for line in report["grid"]] == [4.0, 8.0]
    assert report["on_private_data"]["studies"] == 2 and report["on_private_data"]["epsilon"] > 8
    assert {path.suffix for path in (tmp_path / "kept").iterdir()} >= {".json", ".safetensors"}
    plain = run("--data", data, "--plan", str(tmp_path / "net"), "--grid", "epsilon=4,8", "--rounds", "2")
    assert report["runs"][0]["model_hash"] != plain["runs"][0]["model_hash"]


def test_the_package_and_the_command_simulate_the_same(tmp_path):
    data = hospitals(tmp_path / "all")
    told = run("--data", str(data), "--rounds", "2", "--epsilon", "4")["runs"][0]
    study = tessera.Study("s", schema="heart", outcome="disease", noise="local", rounds=2, epsilon=4)
    sim = study.simulate(data, jobs=1, progress=False)
    assert sim.runs[0]["model_hash"] == told["model_hash"] and sim.metrics["auroc"] == told["auroc"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda folder: folder / "gone", "expected a folder of tables"),
        (lambda folder: hospitals(folder / "two", count=2), "expected at least 3 folders of hospitals, found 2"),
        (lambda folder: (folder / "empty").mkdir(parents=True) or folder / "empty", "expected"),
    ],
    ids=["missing", "two-hospitals", "no-tables"],
)
def test_a_folder_that_cannot_be_read_gets_one_line(tmp_path, made, said):
    with pytest.raises(InvalidInput, match=said):
        table_patients(Path("heart"), None, made(tmp_path), None, "tri-modal", 0)
    words = ["simulate", "--schema", "heart", "--data", str(made(tmp_path / "again")), "--json"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code != 0 and "Traceback" not in found.output
