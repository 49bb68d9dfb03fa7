"""The alert rules and the dashboard: promtool tests them where it is installed, and they ask only for our figures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from datasites.node.web.folder_figures import LINES

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "monitoring"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
BOARD = json.loads((FOLDER / "dashboard.json").read_text())
PROMTOOL = shutil.which("promtool")


def asked() -> dict[str, str]:
    panels = {panel["title"]: target["expr"] for panel in BOARD["panels"] for target in panel["targets"]}
    return {**{rule["alert"]: rule["expr"] for rule in RULES}, **panels}


@pytest.mark.parametrize("name", sorted(asked()))
def test_only_figures_that_tessera_gives_are_asked_for(name: str) -> None:
    given = (ROOT / "docs" / "operations.md").read_text()
    for figure in re.findall(r"\btessera_[a-z_]+", asked()[name]):
        assert figure.removesuffix("_bucket") in given or figure in given, figure


def test_every_kind_of_trouble_has_an_alert() -> None:
    names = {rule["alert"] for rule in RULES}
    assert names >= {
        "TesseraNoContact",
        "TesseraWorkerFailed",
        "TesseraCertificateEnds",
        "TesseraDiskFull",
        "TesseraBudgetNearlySpent",
        "TesseraRoundStalled",
    }
    assert all(rule["annotations"].keys() == {"summary", "action"} for rule in RULES)
    assert set(LINES) >= {"disk", "certificate"}


def test_panels_have_names_and_places_of_their_own() -> None:
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in BOARD["panels"]]
    assert len(set(places)) == len(places) == len({panel["title"] for panel in BOARD["panels"]})


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (apt install prometheus)")
def test_promtool_accepts_the_rules_and_they_fire_when_they_should(tmp_path: Path) -> None:
    for source in (FOLDER / "alerts.yml", Path(__file__).parent / "alerts.test.yml"):
        shutil.copy(source, tmp_path)
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run([str(PROMTOOL), *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
