"""Each rule finds its case at its line, and an honest plan stays quiet."""

import pytest

from datasites.review.findings import find, find_in_source

HONEST = '''"""A linear model."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.layer = nn.Linear(features, 1)

    def forward(self, batch):
        return self.layer(batch["mrna"]).sum(dim=1)


def build_model(config, *, seed):
    return Model(config.features["mrna"])


def record_loss(model, batch):
    return nn.functional.softplus(model(batch))
'''


def test_an_honest_plan_has_no_finding():
    assert find_in_source("plan.py", HONEST) == ()


@pytest.mark.parametrize(
    ("code", "rule", "severity"),
    [
        ("import socket", "network", "high"),
        ("from urllib.request import urlopen", "network", "high"),
        ("import subprocess as s", "processes", "high"),
        ("x = open('a')", "files", "high"),
        ("import torch\ntorch.save(1, 'f')", "files", "high"),
        ("import torch as t\nt.load('f')", "unpickling", "high"),
        ("import pickle", "unpickling", "high"),
        ("eval('1')", "dynamic-code", "high"),
        ("import ctypes", "native-code", "high"),
        ("import torch\ntorch.nn.functional.linear = None", "monkey-patching", "high"),
        ("import torch.nn as nn\nnn.Module.forward = None", "monkey-patching", "high"),
        ("setattr(a, b, c)", "monkey-patching", "high"),
        ("getattr(a, b)", "reflection", "high"),
        ("x.__class__.__subclasses__()", "reflection", "high"),
        ("import sys", "reflection", "high"),
        ("from privacy import dp_sgd", "own-code", "high"),
        ("y = x - x.mean(0)", "mixes-records", "high"),
        ("y = x.std(dim=0)", "mixes-records", "high"),
        ("from torch import nn\nl = nn.BatchNorm1d(3)", "layer", "high"),
        ("def forward(self, x):\n    self.seen = x", "state", "high"),
        ("def f():\n    global seen", "state", "medium"),
        ("p.register_hook(f)", "hooks", "high"),
        ("print(x)", "output", "medium"),
        ("import time", "clock", "medium"),
        ("import torch\ntorch.manual_seed(1)", "randomness", "medium"),
        ("from torch import *", "star-import", "low"),
        (f"x = '{'A' * 300}'", "hidden-content", "medium"),
        ("def broken(:", "unreadable", "high"),
    ],
)
def test_each_rule_finds_its_case(code, rule, severity):
    found = [f for f in find_in_source("plan.py", code) if f.rule == rule]
    assert found
    assert found[0].severity == severity
    assert found[0].line == code.count("\n") + 1 or rule in {"unreadable", "unpickling"}


def test_files_that_nobody_can_read_are_findings(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "big.py").write_text("x = 1\n" * 60_000)
    (tmp_path / "run.sh").write_text("true")
    (tmp_path / "plan.py").write_text("print(1)\nimport socket\n")
    found = find(tmp_path, ["weights.bin", "big.py", "run.sh", "plan.py"])
    assert {f.rule for f in found} == {"binary", "size", "script", "output", "network"}
    assert [f.severity for f in found] == sorted((f.severity for f in found), key=["high", "medium", "low"].index)
