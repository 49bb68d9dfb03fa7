"""The chaos harness and the upload benchmark, in small: the same processes and the same checks."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from support.benchmarks import BENCHMARKS

pytestmark = pytest.mark.slow


def run(script: str, *arguments: str) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, str(BENCHMARKS / script), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=580)
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr[-3000:]


@pytest.mark.parametrize(("kills", "rounds"), [(2, 2), pytest.param(5, 4, marks=pytest.mark.thorough)])
def test_nothing_is_lost_however_often_roles_are_killed_stopped_and_cut_off(kills: int, rounds: int) -> None:
    code, found, errors = run("chaos.py", "--kills", str(kills), "--seed", "7", "--rounds", str(rounds))
    assert found, errors
    expected = {
        "kills": kills,
        "lost_updates": 0,
        "double_charges": 0,
        "lost_charges": 0,
        "wrong_sums": 0,
        "orphans": 0,
        "chain_ok": True,
        "final_model_equals_reference": True,
    }
    assert {name: found[name] for name in expected} == expected, found
    assert found["rounds_completed"] == rounds * found["studies"]
    assert (found["refusals"], found["pauses"], found["problems"]) == ([], [], [])
    assert code == 0


def test_fifty_hospitals_upload_at_once_without_an_error_and_the_sum_is_exact() -> None:
    arguments = ("--sites", "50", "--few", "5", "--rounds", "1", "--parameters", "20000")
    code, found, errors = run("uploads.py", *arguments)
    assert found, errors
    assert (found["errors"], found["wrong_sums"], found["uploads"], found["rounds_complete"]) == (0, 0, 50, 1)
    assert found["orchestrator_peak_mb"] < 1.3 * found["few_peak_mb"], found
    assert code == 0
