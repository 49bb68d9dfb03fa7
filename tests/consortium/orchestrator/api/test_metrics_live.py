"""A consortium in the middle of a study: what operators see of it, and how it ends when it is asked to."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import time
import warnings
from pathlib import Path

import httpx
import psutil
import pytest
from support.timing import within
from support.waiting import LONG_SECONDS
from typer.testing import CliRunner

from datasites.node.home import address
from orchestrator.cli.operate import app
from orchestrator.demo.demo import DemoSettings, run_demo
from orchestrator.demo.processes import warm_start

pytestmark = pytest.mark.slow

GRACE_SECONDS = 10.0


class Enough(Exception):
    pass


class Visit:
    """A demo's progress that goes away with an action of its own once two rounds are finished."""

    def __init__(self, action) -> None:
        self.action = action

    def step(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def rounds(self, done: int, total: int, text: str) -> None:
        if done >= 2:
            self.action()
            raise Enough


def tessera(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout


def look(out: Path) -> dict[str, object]:
    """Ask the running consortium everything an operator asks."""
    seen: dict[str, object] = {}
    seen["orchestrator"] = tessera("status", "--home", str(out / "orchestrator"), "--json")
    site = next(p for p in sorted(out.iterdir()) if (p / "policy.toml").exists())
    seen["site"] = tessera("status", "--home", str(site), "--json")
    seen["table"] = tessera("status", "--home", str(site), "--once")
    seen["doctors"] = {p.name: tessera("doctor", "--home", str(p), "--json") for p in (out / "keyholder", site)}
    url = address(out / "orchestrator")
    seen["metrics"] = httpx.get(f"{url}/metrics", trust_env=False).text
    seen["ready"] = httpx.get(f"{url}/readyz", trust_env=False).status_code
    seen["portal_ready"] = httpx.get(f"{address(site)}/readyz", trust_env=False).status_code
    seen["portal_metrics"] = httpx.get(f"{address(site)}/metrics", trust_env=False).status_code
    return seen


def end_all(out: Path) -> dict[str, float]:
    """Ask every role to end at once, in the middle of a round; return how many seconds each took."""
    roles = {p.parent.name: psutil.Process(json.loads(p.read_bytes())["pid"]) for p in out.glob("*/address.json")}
    workers = {child for process in roles.values() for child in process.children(recursive=True)}
    started = time.monotonic()
    for process in roles.values():
        os.kill(process.pid, signal.SIGTERM)
    took: dict[str, float] = {}
    while len(took) < len(roles) and time.monotonic() - started < LONG_SECONDS:
        for name, process in roles.items():
            if name not in took and (not process.is_running() or process.status() == psutil.STATUS_ZOMBIE):
                took[name] = time.monotonic() - started
        time.sleep(0.05)
    while any(map(alive, workers)) and time.monotonic() - started < LONG_SECONDS:
        time.sleep(0.05)
    took["orphans"] = float(sum(map(alive, workers)))
    return took


def alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_operators_see_a_running_study_and_every_role_ends_when_it_is_asked_to(tmp_path):
    out = tmp_path / "demo"
    seen: dict[str, object] = {}
    took: dict[str, float] = {}

    def visit() -> None:
        seen.update(look(out))
        took.update(end_all(out))

    settings = DemoSettings(
        data=None,
        federation="upper-bound",
        task="early-late",
        rounds=150,
        sites=3,
        out=out,
        manual=False,
        seed=1,
        epsilon=8.0,
        noise="local",
        architecture="linear",
        public_noise=False,
    )
    with pytest.raises(Enough), warm_start() as warm:
        run_demo(settings, Visit(visit), warm=warm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a demo leaves its connection to the end of the process
        gc.collect()

    assert len(took) == 8, f"these ended: {took}"
    assert took.pop("orphans") == 0
    assert all(within(seconds, GRACE_SECONDS) for seconds in took.values()), took
    assert not list(out.glob("*/address.json"))

    code, text = seen["orchestrator"]
    [study] = json.loads(text)["studies"]
    assert (code, study["state"], study["rounds"]) == (0, "running", 150)
    assert study["rounds_completed"] >= 2
    assert all(s["approved"] and s["updates"] + s["dropouts"] == study["rounds_completed"] for s in study["sites"])
    code, text = seen["site"]
    status = json.loads(text)
    assert code == 0
    assert [s["study"] for s in status["studies"]] == [study["study"]]
    assert status["requests"][0]["state"] == "approved"
    [budget] = status["budget"]
    assert 0 < budget["epsilon_spent"] < budget["epsilon_reserved"] <= budget["epsilon_cap"]
    assert "Privacy budget" in seen["table"][1]
    for name, (code, text) in seen["doctors"].items():
        bad = [c for c in json.loads(text)["checks"] if not c["ok"]]
        assert (code, bad) == (0, []), name
    assert "tessera_rounds_total" in seen["metrics"]
    assert study["study"] not in seen["metrics"]
    assert (seen["ready"], seen["portal_ready"], seen["portal_metrics"]) == (200, 200, 401)
