"""The benchmark prints the one JSON object that people compare runs with."""

from __future__ import annotations

import json

from support.benchmarks import run_script


def test_the_benchmark_prints_ours_and_the_baseline_side_by_side() -> None:
    run = run_script("encryption.py", "--parameters", "30000", "--sites", "3", "--json")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    names = {"client_seconds", "server_seconds", "decrypt_seconds", "bytes"}
    assert set(result) == {"ours", "baseline", "ratio", "max_error", "exact"}
    assert all(set(result[part]) == names for part in ("ours", "baseline", "ratio"))
    assert result["exact"] is True
    assert result["max_error"] < 2 / 512
    assert result["ratio"]["bytes"] > 10
