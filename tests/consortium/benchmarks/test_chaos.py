"""The chaos harness and the upload benchmark, in small: the same processes and the same checks."""

from __future__ import annotations

import json
import re
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


EXPECTED_REFUSALS = re.compile(
    "was started anew|holds nothing of round|expected the pad sums of|no seed opens with the key|declare the list void"
)
"""With helpers, who was started anew in the midst of a round says so; docs/survival.md names what that costs."""


@pytest.mark.parametrize(
    ("kills", "rounds", "helpers"),
    [(2, 2, 2), pytest.param(5, 4, 0, marks=pytest.mark.thorough), pytest.param(5, 4, 2, marks=pytest.mark.thorough)],
)
def test_nothing_is_lost_however_often_roles_are_killed_stopped_and_cut_off(
    kills: int, rounds: int, helpers: int
) -> None:
    settings = {"kills": kills, "seed": 7, "rounds": rounds, "helpers": helpers}
    code, found, errors = run("chaos.py", *(text for name, n in settings.items() for text in (f"--{name}", str(n))))
    assert found, errors
    expected = {
        "kills": kills,
        "lost_updates": 0,
        "double_charges": 0,
        "lost_charges": 0,
        "wrong_sums": 0,
        "second_answers": 0,
        "orphans": 0,
        "chain_ok": True,
    }
    assert {name: found[name] for name in expected} == expected, found
    assert found["final_model_equals_reference"] is (True if found["rounds_compared"] else None)
    assert found["rounds_completed"] + found["rounds_lost"] == rounds * found["studies"]
    assert found["problems"] == []
    if helpers:
        assert [refusal for refusal in found["refusals"] if not EXPECTED_REFUSALS.search(refusal)] == []
        assert len(found["pauses"]) <= found["rounds_lost"]
    else:
        assert (found["refusals"], found["pauses"], found["rounds_lost"]) == ([], [], 0)
    assert found["charged_in_lost_rounds"] <= found["rounds_lost"] * 3
    assert code == (0 if found["rounds_completed"] else 1)


def test_fifty_hospitals_upload_at_once_without_an_error_and_the_sum_is_exact() -> None:
    arguments = ("--sites", "50", "--few", "5", "--rounds", "1", "--parameters", "20000")
    code, found, errors = run("uploads.py", *arguments)
    assert found, errors
    assert (found["errors"], found["wrong_sums"], found["uploads"], found["rounds_complete"]) == (0, 0, 50, 1)
    assert found["orchestrator_peak_mb"] < 1.3 * found["few_peak_mb"], found
    assert code == 0
