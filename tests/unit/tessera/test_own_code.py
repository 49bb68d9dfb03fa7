"""A network and a loss of one's own: as a tree of source, in a simulation, and what cannot be sent."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import tessera
from models.batch import has
from tessera.own_code import tree_of

GAMMA, HIDDEN = 2.0, 8
HANDLE = sys.stderr
SMALL = {"sites": 3, "patients": 120, "progress": False}


config = found = HANDLE
"""Names of the caller's own, which are other things inside the network."""


def squashed(values):
    return torch.tanh(values)


class Small(nn.Module):
    """A little network over whatever is present."""

    def __init__(self, config):
        super().__init__()
        self.order = config.modalities
        self.inner = nn.ModuleDict({m: nn.Linear(config.features[m], HIDDEN) for m in self.order})
        self.outer = nn.Linear(HIDDEN, config.classes - 1)

    def forward(self, batch):
        found = [squashed(self.inner[m](batch[m] / math.sqrt(batch[m].shape[1]))) * has(batch, m) for m in self.order]
        return self.outer(torch.stack(found).sum(dim=0))


def focal(logits, label):
    later = (label[:, None] > torch.arange(logits.shape[1])).to(logits.dtype)
    cost = F.binary_cross_entropy_with_logits(logits, later, reduction="none")
    return ((1 - torch.exp(-cost)) ** GAMMA * cost).sum(dim=1)


def penalised(model, batch):
    return focal(model(batch), batch["label"])


def telling(logits, label):
    print("seen", file=HANDLE)
    return focal(logits, label)


def test_the_tree_holds_all_that_is_named_and_nothing_else():
    source = tree_of(Small, focal)["plan.py"].decode()
    for said in ("class Small(nn.Module)", "def squashed", "GAMMA = 2.0", "HIDDEN = 8", "from torch import nn"):
        assert said in source.replace("import torch.nn as nn", "from torch import nn")
    assert "from models.batch import has" in source and "import torch.nn.functional as F" in source
    assert "HANDLE" not in source and "pytest" not in source and "return Small(config)" in source
    assert 'return focal(model(batch), batch["label"])' in source
    assert "return penalised(model, batch)" in tree_of(Small, penalised)["plan.py"].decode()


def test_something_that_cannot_be_sent_is_named():
    with pytest.raises(tessera.InvalidInput, match="uses 'HANDLE'"):
        tree_of(Small, telling)
    with pytest.raises(tessera.InvalidInput, match="source can be read"):
        tree_of(type("Made", (nn.Module,), {}), focal)
    with pytest.raises(tessera.InvalidInput, match="name of its own"):
        tree_of(lambda config: Small(config), focal)
    with pytest.raises(tessera.InvalidInput, match="network of your own beside a loss"):
        tessera.Study("own", loss=focal)


@pytest.fixture(scope="module")
def simulation() -> tessera.Simulation:
    return tessera.Study("own", model=Small, loss=focal, epsilon=8, rounds=2, outcome="ordinal").simulate(**SMALL)


def test_it_is_simulated_and_its_model_is_kept_with_its_code(simulation, tmp_path):
    assert len(simulation.curves[0]) == 2 and 0 < simulation.metrics["auroc"] < 1
    assert repr(simulation.study) == ("Study('own', outcome='ordinal', model=Small, loss=focal, rounds=2)")
    model = simulation.model
    assert repr(model).startswith("Model(own network, ordinal")
    model.save(tmp_path, onnx=True)
    assert (tmp_path / "code" / "plan.py").read_bytes() == model.code["plan.py"]
    with pytest.raises(tessera.Refused, match="run_code=True"):
        tessera.load(tmp_path)
    frame = pd.DataFrame({"age": [50, 61]}, index=["a", "b"])
    expected = model.predict_proba({"clinical": frame}, cohort="BRCA")
    assert tessera.load(tmp_path, run_code=True).predict_proba({"clinical": frame}, cohort="BRCA").equals(expected)
    assert model.explain({"clinical": frame}, cohort="BRCA").residual.abs().max() < 0.01
    (tmp_path / "code" / "plan.py").write_text("raise SystemExit\n")
    with pytest.raises(tessera.TesseraError, match="code of the network"):
        tessera.load(tmp_path, run_code=True)


def test_a_folder_with_a_plan_gives_the_same_model(simulation, tmp_path):
    (tmp_path / "plan.py").write_bytes(simulation.study.code()["plan.py"])
    again = simulation.study.replace(model=Path(tmp_path), loss=None).simulate(**SMALL)
    assert again.runs[0]["model_hash"] == simulation.runs[0]["model_hash"]
