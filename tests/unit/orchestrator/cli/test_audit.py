"""``tessera audit-privacy``: the real step passes, each fault is an exit code of 1, and the report shows the result."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datasites.hospital.reports import _audit
from datasites.node.home import Config, Home
from orchestrator.cli.audit import app
from privacy.errors import InvalidInput
from privacy.ledger.journal import Journal


def run(*arguments: str):
    return CliRunner().invoke(app, [*arguments, "--canaries", "400", "--json"])


def test_the_real_step_passes_and_its_result_reaches_the_report(tmp_path: Path) -> None:
    home = Home.create(tmp_path, Config(name="alba", institution="Alba", role="datasite", orchestrator_url="http://x"))
    result = run("--home", str(tmp_path))
    found = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 0
    assert 0 <= found["lower"] <= found["claimed"]
    assert found["flagged"] is False
    journal = Journal(home.folder / "journal.sqlite", None)
    (entry,) = journal.entries(kind="privacy-audit")
    journal.close()
    line = _audit(entry)
    assert (line.lower_bound, line.claimed.value, line.flagged) == (found["lower"], found["claimed"], False)
    assert "no patient is read" in line.data


@pytest.mark.parametrize("fault", ["noise", "clip", "loss"])
def test_a_fault_is_exit_code_one(fault: str) -> None:
    result = run("--break", fault)
    found = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 1
    assert found["lower"] > found["claimed"]
    assert found["broken"] == fault


@pytest.mark.parametrize("arguments", [("--break", "luck"), ("--study", "pilot")])
def test_what_cannot_be_audited_is_bad_input(arguments: tuple[str, ...]) -> None:
    assert isinstance(run(*arguments).exception, InvalidInput)
