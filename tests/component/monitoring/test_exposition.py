"""The alerts begin from what a role gives when it is new, not from a series that nobody ever sends."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from support.orchestrator_service import new_service
from support.pilot_study import proposal
from support.review_desk import PASSWORD, desk, new_context, new_desk, now

from datasites.node.credentials.tls import ensure_authority, ensure_server_certificate
from datasites.node.home import Config, Home
from datasites.portal.app import create_portal
from datasites.study.signing import seal
from orchestrator.api.metrics import install
from orchestrator.api.server import create_app
from orchestrator.rounds.checkpoints import study_runs

__all__ = ["desk", "new_context", "new_desk", "new_service", "now"]
FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "monitoring"
PROMTOOL = shutil.which("promtool")
TESTS = yaml.safe_load((Path(__file__).parent / "alerts.test.yml").read_text())["tests"]
Series = dict[str, float]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of a role that has looked after itself once."""
    tls = tmp_path / "tls"
    path = ensure_server_certificate(ensure_authority(tls, name="n"), tls, names=["localhost"])
    config = Config(name="n", institution="N", role="orchestrator", orchestrator_url="", tls_certificate=str(path))
    folder = Home.create(tmp_path / "home", config).folder
    (folder / "health.json").write_text(json.dumps({"at": 12.5, "problems": []}))
    return folder


@pytest.fixture
def portal(desk: Any, new_context: Callable[..., Any], home: Path) -> Iterator[Callable[[], Series]]:
    context = new_context(desk)
    with TestClient(create_portal(type(context)(**{**vars(context), "folder": home}))) as client:
        body = {"name": "anna", "password": PASSWORD, "scopes": ["read"]}
        token = client.post("/api/tokens", json=body).json()["token"]
        yield lambda: given(client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).text)


@pytest.fixture
def orchestrator(new_service: Callable[..., Any], home: Path, tmp_path: Path) -> Iterator[Callable[[], Series]]:
    """An orchestrator of one study that has just begun to run."""
    service = new_service("dr-lang", "notary", "alba")
    pilot = proposal(orchestrator=service.roster.orchestrator)
    service.store.add_study(pilot.study, seal(service.identity, "proposal", pilot))
    study_runs(service.store, service.journal, pilot.study)
    app = create_app(service, mailbox_folder=tmp_path / "mailbox")
    install(app, service, home)
    client = TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 5000))
    yield lambda: given(client.get("/metrics").text)


def given(text: str) -> Series:
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith("tessera_")]
    return {named(name): float(value) for name, _, value in lines}


def named(series: str) -> str:
    """Return a series without what Prometheus adds, its labels in order."""
    name, _, labels = series.partition("{")
    found = sorted(re.findall(r'(\w+)="([^"]*)"', labels))
    return name + str([(label, value) for label, value in found if label not in ("job", "instance")])


def test_the_rules_are_tested_on_series_that_a_new_role_gives(
    portal: Callable[[], Series], orchestrator: Callable[[], Series]
) -> None:
    of_role = {"p": portal(), "o": orchestrator()}
    for case in TESTS:
        for series in (str(each["series"]) for each in case["input_series"]):
            instance = re.search(r'instance="(\w)"', series)
            assert instance is not None, series
            assert series.startswith("up{") or named(series) in of_role[instance.group(1)], series


@pytest.mark.parametrize("kind", ["worker-failed", "worker-stopped"])
def test_a_hospital_that_never_failed_says_so(portal: Callable[[], Series], kind: str) -> None:
    assert portal()[f"tessera_journal_entries_total[('kind', '{kind}')]"] == 0


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (apt install prometheus)")
@pytest.mark.parametrize(
    "kinds", [("worker-failed",), ("worker-stopped",), ("worker-stopped", "worker-failed")], ids="+".join
)
def test_the_first_failure_of_a_hospital_raises_one_alert(
    portal: Callable[[], Series], desk: Any, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    before = portal()
    for kind in kinds:
        desk.journal.append(kind, {"study": "pilot", "round": 1})
    expected = {
        "exp_labels": {"job": "tessera-portal", "instance": "p", "severity": "warning"},
        "exp_annotations": annotations("TesseraWorkerFailed", {"$labels.instance": "p"}),
    }
    case = {
        "interval": "1m",
        "input_series": [
            {"series": as_written(name), "values": f"{before.get(name, '_')}x20 {value}x30"}
            for name, value in portal().items()
            if name.startswith("tessera_journal_entries_total")
        ],
        "alert_rule_test": [
            {"eval_time": "20m", "alertname": "TesseraWorkerFailed"},
            {"eval_time": "22m", "alertname": "TesseraWorkerFailed", "exp_alerts": [expected]},
            {"eval_time": "50m", "alertname": "TesseraWorkerFailed"},
        ],
    }
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    written = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "case.yml").write_text(yaml.safe_dump(written))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", "case.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def annotations(alert: str, said: Mapping[str, str]) -> dict[str, str]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    rule = next(rule for group in groups for rule in group["rules"] if rule["alert"] == alert)
    found = dict(rule["annotations"])
    for name, value in said.items():
        found = {key: text.replace("{{ " + name + " }}", value) for key, text in found.items()}
    return found


def as_written(name: str) -> str:
    labels = re.findall(r"\('(\w+)', '([^']*)'\)", name)
    inside = ",".join(f'{label}="{value}"' for label, value in [*labels, ("job", "tessera-portal"), ("instance", "p")])
    return f"{name.partition('[')[0]}{{{inside}}}"
