"""A plan of one's own is tried on the scientist's side: what holds is sent, what hospitals would refuse is not."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from models.config import ModelConfig
from orchestrator.cli.main import app
from orchestrator.studies.proposing.own_code import initial_of, read_plan, try_plan
from privacy.errors import InvalidInput, Refused

pytestmark = pytest.mark.usefixtures("warm_here")

CONFIG = ModelConfig(architecture="mlp", features={"mrna": 5, "clinical": 3}, cohorts=("A", "B"), classes=2)
GOOD = """
import torch
from torch import nn
from torch.nn import functional

class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.{layer}
        self.last = nn.Linear(6, 1)
    def forward(self, batch):
        return self.last(torch.relu(self.inner(batch["mrna"] + 0 * batch["presence"][:, :1])){extra})

def build_model(config, *, seed):
    torch.manual_seed(seed)
    return Net(config)

def record_loss(model, batch):
    return functional.binary_cross_entropy_with_logits(model(batch)[:, 0], batch["label"].float(), reduction="none")
"""


def plan(layer: str = "inner = nn.Linear(5, 6)", extra: str = "") -> dict[str, bytes]:
    return {"plan.py": GOOD.replace("{layer}", layer).replace("{extra}", extra).encode()}


def test_a_plan_that_can_be_clipped_passes_and_gives_its_model():
    tried = try_plan(plan(), CONFIG)
    assert tried.problem == "" and all(held for _, held in tried.checks)
    assert [(layer.name, layer.type, layer.reason) for layer in tried.layers] == [
        ("inner", "Linear", ""), ("last", "Linear", "")
    ]  # fmt: skip
    assert tried.parameters == 36 + 7 and try_plan(plan(), CONFIG).model == tried.model
    assert try_plan(plan(), CONFIG, seed=1).model != tried.model


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (plan(layer="inner = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6))"), "batch normalisation"),
        (plan(layer="inner = nn.Bilinear(5, 5, 6)"), "only Linear"),
        (plan(extra=" - self.last.weight.mean() * 0 + batch['mrna'].mean()"), "same alone and among others"),
        ({"plan.py": b"raise RuntimeError('no')"}, "failed on made-up records: RuntimeError: no"),
        ({"plan.py": b"x = 1"}, "expected plan.py to define build_model"),
    ],
    ids=["batch-norm", "wrong-call", "mixes-records", "raises", "empty"],
)
def test_what_hospitals_would_refuse_is_said_here(files, problem):
    with pytest.raises((InvalidInput, Refused), match=problem):
        tried = try_plan(files, CONFIG)
        raise Refused(tried.problem)


def test_the_command_says_what_a_reviewer_sees(tmp_path):
    for name, data in plan().items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "more.py").write_text("import socket\n")
    options = ("--feature", "mrna=5", "--feature", "clinical=3", "--json")
    ended = CliRunner().invoke(app, ["plan", "check", str(tmp_path), *options])
    assert ended.exit_code == 0, ended.output
    report = json.loads(ended.stdout.splitlines()[-1])
    assert {f["name"] for f in report["files"]} == {"plan.py", "more.py"} and report["leaves"]["values"] == 43
    assert [f["file"] for f in report["findings"] if f["severity"] == "high"] == ["more.py"]


def test_a_folder_that_is_no_plan_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"expected plan.py"):
        read_plan(tmp_path)
    (tmp_path / "plan.py").write_text("x = 1\n")
    (tmp_path / "proposal.json").write_text("{}")
    with pytest.raises(InvalidInput, match="take it out"):
        read_plan(tmp_path)
    assert callable(initial_of)
