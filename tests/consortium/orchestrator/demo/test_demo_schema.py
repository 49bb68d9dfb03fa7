"""A consortium of a schema with seven odd modalities that predicts survival, from made-up tables to its reports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.outcome_schemas import SEVEN

pytestmark = pytest.mark.slow
_SECONDS = 400


def test_seven_odd_modalities_train_evaluate_and_report_survival(tmp_path: Path) -> None:
    (tmp_path / "seven.toml").write_text(SEVEN, encoding="utf-8")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "orchestrator.cli.main", "demo", "--schema", str(tmp_path / "seven.toml")]
    command += ["--outcome", "os", "--sites", "3", "--rounds", "2", "--out", str(out), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert [len(site["modalities"]) for site in result["sites"]] == [7, 7, 7]
    assert result["metrics"]["concordance"] > 0.55
    assert set(result["metrics"]["brier"]) == {"6", "24", "48"}
    names = [figure["name"] for figure in result["dp_evaluation"]["figures"]]
    assert names == ["concordance", "brier", "brier", "brier"]
    page = next(Path(path) for path in result["reports"] if path.endswith("study-report.html")).read_text()
    assert "os (survival)" in page
    assert "Brier score at 24 months" in page
