"""``tessera simulate`` in several processes."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from orchestrator.cli.main import app

SMALL = ("simulate", "--patients", "300", "--rounds", "2", "--epsilon", "inf", "--json")


def run(*arguments: str):
    found = CliRunner().invoke(app, [*SMALL, *arguments])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout.splitlines()[-1])


def test_processes_side_by_side_give_the_models_of_one_after_the_other(imported_once):
    one, two = (run("--seeds", "2", "--jobs", jobs)["runs"] for jobs in ("1", "2"))
    assert [r["model_hash"] for r in one] == [r["model_hash"] for r in two]
    assert one[0]["model_hash"] != one[1]["model_hash"]
