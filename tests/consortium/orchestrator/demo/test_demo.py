"""The whole consortium as people start it: processes, approvals, training, reports; and its end, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from orchestrator.cli.main import app

pytestmark = pytest.mark.slow


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_for_end(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def finished(watched):
    return watched.result, watched.stderr, watched.out


def test_the_demo_prints_the_object_that_machines_read(finished):
    result, stderr, _ = finished
    assert "Traceback" not in stderr
    assert result["rounds_completed"] == 2
    assert result["seconds"] > 0
    assert result["uplink_bytes"] > 0
    assert 0.6 < result["metrics"]["auroc"] <= 1  # a known stage signal is found
    assert 0.5 < result["metrics"]["balanced_accuracy"] <= 1
    assert len(result["sites"]) == 3
    for site in result["sites"]:
        assert site["rounds"] == 2
        assert 0 < site["epsilon_spent"] <= site["epsilon_cap"]
        assert 0 < site["delta"] < 1
        assert site["modalities"]
        assert site["patients"] > 0


def test_every_hospital_has_its_privacy_report_and_the_study_its_own(finished):
    result, _, out = finished
    paths = [Path(p) for p in result["reports"]]
    assert all(p.stat().st_size > 1000 for p in paths)
    for site in result["sites"]:
        suffixes = {p.suffix for p in paths if site["name"] in p.parts}
        assert suffixes == {".html", ".pdf", ".json"}
    assert (out / "reports" / "study-report.html").exists()


def test_every_chain_of_the_consortium_verifies(finished):
    result, _, out = finished
    for role in ("orchestrator", "keyholder", *(s["name"] for s in result["sites"])):
        done = CliRunner().invoke(app, ["verify", str(out / role), "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["ok"] is True


def test_what_the_hospitals_hold_is_for_their_owner_only(finished):
    _, _, out = finished
    for path in out.glob("*/identity.pem"):
        assert path.stat().st_mode & 0o077 == 0
    for role in out.iterdir():
        assert role.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(  # SIGINT ends the demo of test_demo_manual.py
    "how", [*(pytest.param(s, marks=pytest.mark.thorough) for s in (signal.SIGINT, signal.SIGTERM)), signal.SIGKILL]
)
def test_no_process_outlives_a_demo_that_is_ended(tmp_path, how):
    process = start("--sites", "3", "--rounds", "500", "--out", str(tmp_path / "out"))
    deadline = time.monotonic() + 300
    while len(family(process.pid)) < 5 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(3)
    children = family(process.pid)
    assert len(children) >= 5
    os.kill(process.pid, how)
    _, stderr = process.communicate(timeout=180)
    assert wait_for_end(children, 120) == []
    assert "Traceback" not in stderr
