"""The benchmark of many hospitals counts what it says: every hospital in every sum, and all the processor time."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys

import psutil
import pytest
from support.benchmarks import BENCHMARKS

pytestmark = pytest.mark.slow


def test_a_row_has_what_is_claimed_of_many_hospitals() -> None:
    small = ("--sites", "4", "--parameters", "200", "--rounds", "2", "--json")
    command = [sys.executable, str(BENCHMARKS / "scale.py"), *small]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    [row] = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert (row["sites"], row["in_sum"], row["rounds"]) == (4, 4, 2)
    assert row["orchestrator_cpu_seconds_per_round"] > 0
    assert 0 < row["health_p99_seconds"] < 60
    assert row["peak_mb"] > 0
    assert 0 < row["kept_mb_site_500_rounds"] < 200


def test_the_processor_time_of_a_child_that_has_ended_is_counted() -> None:
    spend = "import time; s = time.process_time()\nwhile time.process_time() < s + 0.3: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spend!r}]); print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        counted = runpy.run_path(str(BENCHMARKS / "scale.py"))["processor_seconds"]
        assert counted(psutil.Process(process.pid)) >= 0.29
    finally:
        process.communicate("\n")
