"""The benchmark of a round runs both kinds that it compares: ours, and the same messages in the clear."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.benchmarks import BENCHMARKS

pytestmark = pytest.mark.slow


def test_a_round_is_measured_beside_one_in_the_clear() -> None:
    small = ("--sites", "3", "--no-training", "--rounds", "3", "--studies", "1", "--json")
    command = [sys.executable, str(BENCHMARKS / "round.py"), *small]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rounds"] == 2
    assert found["plain_seconds"] > 0
    assert found["encrypted_seconds"] > 0
    assert found["ratio"] == pytest.approx(found["encrypted_seconds"] / found["plain_seconds"], rel=0.05)
