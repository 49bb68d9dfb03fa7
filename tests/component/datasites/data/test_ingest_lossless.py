"""A hospital's own tables: what does not join, repeats, or tells the outcome is refused or shown to the steward."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.hospital_tables import heart_rows, write_table
from typer.testing import CliRunner

from datasites.data.publishing import Datasets
from datasites.node.home import Config, Home
from datasites.review.policy import Policy
from orchestrator.cli.main import app
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger

RUN = CliRunner()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    config = Config(name="heart-1", institution="Heart", role="datasite", orchestrator_url="http://127.0.0.1:1")
    Home.create(tmp_path / "home", config)
    return tmp_path / "home"


def ingest(home: Path, *arguments: object):
    return RUN.invoke(
        app, ["datasite", "ingest", *map(str, arguments), "--schema", "heart", "--home", str(home), "--json"]
    )


def halves(rows: list[dict[str, str]], folder: Path, spelled) -> Path:
    """Write the outcome in one table and everything else in another, whose ids are spelled in their own way."""
    folder.mkdir()
    write_table(folder / "outcome.csv", [{k: r[k] for k in ("patient_id", "disease")} for r in rows])
    rest = [{k: v for k, v in r.items() if k != "disease"} for r in rows]
    write_table(folder / "rest.csv", [r | {"patient_id": spelled(i, r["patient_id"])} for i, r in enumerate(rest)])
    return folder


@pytest.mark.parametrize(
    ("spelled", "hint"),
    [
        (lambda _, p: f"{p}-01A", "agree in their first 3 parts"),
        (lambda _, p: p.lower(), "without capitals"),
        (lambda i, p: p.replace("-", "") if i < 3 else p, "without capitals"),
        (lambda _, p: f"x{p}", "check the ids"),
        (lambda _, p: f"{p}\u200b", "expected a name|without capitals|characters"),
    ],
    ids=["suffix", "small", "three without dashes", "prefix", "unseen"],
)
def test_ids_that_do_not_join_write_no_dataset(tmp_path, home, spelled, hint):
    done = ingest(home, halves(heart_rows(30), tmp_path / "t", spelled))
    assert done.exit_code != 0
    assert re.search(hint, str(done.exception)), done.exception
    assert "H-0-" not in str(done.exception)
    assert not list(home.rglob("schema.json"))


@pytest.mark.parametrize("twin", ["h-0-0003", "H 0 0003", "H-0-0003", "H0.0003"])
def test_forty_two_rows_of_forty_patients_are_never_forty_two_patients(tmp_path, home, twin):
    rows = heart_rows(40)
    rows += [rows[3] | {"patient_id": twin}, rows[5] | {"patient_id": "h-0-0005", "age": "44"}]
    done = ingest(home, write_table(tmp_path / "all.csv", rows))
    assert done.exit_code != 0
    assert "one patient" in str(done.exception) or "one row per patient" in str(done.exception)
    assert not list(home.rglob("records.parquet"))


def test_an_input_that_tells_the_outcome_is_shown_to_the_steward_alone(tmp_path, home):
    rows = heart_rows(80)
    rows = [row | {"oldpeak": "3.1" if row["disease"] == "1" else "0.2"} for row in rows]
    rows = [row | {"ward": "A"} for row in rows]
    done = ingest(home, write_table(tmp_path / "all.csv", rows))
    assert done.exit_code == 0, done.exception
    facts = json.loads(done.stdout.splitlines()[-1])
    report = json.loads(Path(facts["facts"]).read_text())
    assert any("'oldpeak' alone nearly tells" in line for line in report["warnings"])
    assert len(report["warnings"]) == 1
    assert "'oldpeak' alone nearly tells" in Path(facts["report"]).read_text().replace("&#39;", "'")
    assert any("1 column is not in the schema and was not read: ward" in note for note in report["notes"])
    for path in (home / "datasets").rglob("*"):
        assert path.is_dir() or b"nearly tells" not in path.read_bytes()  # what is published says nothing of it


def test_inputs_that_hardly_differ_are_shown(tmp_path, home):
    rows = [row | {"trestbps": "130"} for row in heart_rows(40)]
    done = ingest(home, write_table(tmp_path / "all.csv", rows))
    assert "trestbps hardly differ" in done.output


@pytest.mark.parametrize("name", ["../../escaped", "x/y", "", "a\nb", ".hidden"])
def test_a_datasets_name_is_no_path(tmp_path, home, name):
    done = ingest(home, write_table(tmp_path / "all.csv", heart_rows(30)), "--name", name or " ")
    assert done.exit_code != 0
    assert not list(tmp_path.rglob("records.parquet"))


def test_a_new_version_shows_who_came_changed_and_went_and_budgets_stay_with_patients(tmp_path, home):
    rows = heart_rows(40)
    assert ingest(home, write_table(tmp_path / "one.csv", rows)).exit_code == 0
    later = [row | {"age": "77"} if row["patient_id"].endswith("0004") else row for row in rows[3:]]
    later += [row | {"patient_id": row["patient_id"].replace("H-0", "H-9")} for row in rows[:2]]
    done = ingest(home, write_table(tmp_path / "two.csv", later))
    assert done.exit_code == 0, done.exception
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["changes"] == {"since": 1, "added": 2, "changed": 1, "withdrawn": 3, "same": 36}
    assert "Compared with version 1" in Path(facts["report"]).read_text()
    place = Home(folder=home)
    journal, ledger = (
        kind(tmp_path / name, place.identity()) for kind, name in ((Journal, "j.sqlite"), (Ledger, "l.sqlite"))
    )
    datasets = Datasets(home=place, ledger=ledger, journal=journal, policy=Policy())
    lines = set()
    for version in ("v1", "v2"):
        folder = home / "datasets" / "heart-1-heart" / version
        datasets.publish(folder)
        lines.add(ledger.population_of("heart-1-heart", int(version[1:])))
    assert len(lines) == 1
    ledger.close()
    journal.close()


@pytest.mark.parametrize(
    "spelled", [str.lower, lambda p: f"{p}-01", lambda p: p.replace("-", "")], ids=["small", "suffix", "bare"]
)
@pytest.mark.parametrize(("name", "turned"), [("heart-1-heart", False), ("renamed", False), ("x", True)])
def test_patients_under_another_spelling_get_no_fresh_budget(tmp_path, home, spelled, name, turned):
    rows = heart_rows(40)
    again = [
        row | {"patient_id": spelled(row["patient_id"]) if i < 5 else row["patient_id"]} for i, row in enumerate(rows)
    ]
    first, second = (again, rows) if turned else (rows, again)
    assert ingest(home, write_table(tmp_path / "one.csv", first)).exit_code == 0
    done = ingest(home, write_table(tmp_path / "two.csv", second), "--name", name)
    assert done.exit_code != 0
    assert "privacy budget follows the id" in str(done.exception)
    assert len(list((home / "datasets").rglob("schema.json"))) == 1
