"""The benchmark of devices skips with one line without a GPU, and runs where it is told to."""

from __future__ import annotations

import json

import pytest
import torch
from support.benchmarks import run_script


def run(*words: str) -> str:
    done = run_script("device.py", *words)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line():
    assert run().splitlines() == ["skipped: no CUDA device here; --device cpu runs it on the processor"]


def test_it_measures_both_steps_in_one_run():
    found = json.loads(run("--device", "cpu", "--parameters", "60000", "--records", "64", "--turns", "2", "--json"))
    assert 40_000 < found["parameters"] < 80_000 and set(found["milliseconds"]) == {"plain", "private", "clipped"}
    assert found["ratio"] > 0 and found["device"] == "cpu"
