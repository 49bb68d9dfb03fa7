"""What is missing in a dataset is counted exactly for its own people, and nothing of it is published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.hospital_tables import heart_rows, write_table
from typer.testing import CliRunner

from datasites.data.glance import TERMS, glance, read_terms
from datasites.data.missing import MISSING, Changes, read_missing
from datasites.data.publishing import CARD, Datasets
from datasites.data.reading.hospital import read_hospital
from datasites.data.reading.schema_files import read_schema_document
from datasites.data.reading.writing import write_hospital
from datasites.node.home import Config, Home
from datasites.review.policy import Policy
from datasites.study.schema.document import Criterion
from orchestrator.cli.main import app
from privacy.errors import InvalidInput
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger


@pytest.fixture
def home(tmp_path: Path) -> Path:
    config = Config(name="heart-1", institution="Heart", role="datasite", orchestrator_url="http://127.0.0.1:1")
    Home.create(tmp_path / "home", config)
    return tmp_path / "home"


def ingest(home: Path, table: Path) -> None:
    command = ["datasite", "ingest", str(table), "--schema", "heart", "--home", str(home), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.exception


def gappy_rows() -> list[dict[str, str]]:
    """Forty patients: three without a cholesterol, two without a stress test, one without an outcome."""
    rows = heart_rows(40)
    for row in rows[:3]:
        row["chol"] = "n/a"
    for row in rows[5:7]:
        row |= {"thalach": "", "exang": "", "oldpeak": "", "slope": ""}
        row |= {name: "" for name in ("ca", "thal") if name in row}
    rows[9] |= {"disease": "", "chol": ""}  # left out: she counts nowhere
    return rows


def test_it_is_counted_over_the_patients_of_the_dataset_and_kept_from_everybody_else(tmp_path, home):
    ingest(home, write_table(tmp_path / "one.csv", gappy_rows()))
    ingest(home, write_table(tmp_path / "two.csv", gappy_rows()[2:]))
    folder = home / "datasets" / "heart-1-heart" / "v1"
    found = {m.modality: m for m in glance(folder, 41).missing.modalities}
    assert (found["history"].patients, found["history"].of) == (39, 39)
    assert dict(found["laboratory"].variables)["chol"] == 3
    assert (found["stress-test"].patients, found["stress-test"].of) == (37, 39)
    second = glance(folder.with_name("v2"), 41).missing
    assert second.changes == Changes(since=1, added=0, changed=0, withdrawn=2, same=37)
    place = Home(folder=home)
    with_key = place.identity()
    journal, ledger = Journal(tmp_path / "j.sqlite", with_key), Ledger(tmp_path / "l.sqlite", with_key)
    published = Datasets(home=place, ledger=ledger, journal=journal, policy=Policy()).publish(folder)
    journal.close()
    ledger.close()
    names = {path.name for path in published.iterdir()}
    assert CARD in names and MISSING not in names
    assert all(b"withdrawn" not in path.read_bytes() for path in published.iterdir())


def test_a_dataset_of_before_is_counted_in_its_private_part(tmp_path, home):
    ingest(home, write_table(tmp_path / "one.csv", gappy_rows()))
    folder = home / "datasets" / "heart-1-heart" / "v1"
    written = read_missing(folder)
    (folder / MISSING).unlink()
    counted = glance(folder, 41).missing
    assert counted == written


@pytest.mark.parametrize("text", ["", "[]", '{"modalities": {"x": {}}, "changes": null}', '{"modalities": 3}'])
def test_a_file_that_makes_no_sense_is_refused(tmp_path, home, text):
    ingest(home, write_table(tmp_path / "one.csv", gappy_rows()))
    folder = home / "datasets" / "heart-1-heart" / "v1"
    (folder / MISSING).write_text(text)
    with pytest.raises(InvalidInput, match=r"missing\.json"):
        glance(folder, 41)


def test_what_the_owner_does_not_say_the_studys_schema_says(tmp_path):
    criterion = Criterion(column="age", label="grown up", low=18)
    schema = replace(read_schema_document(Path("heart")), data_use=("DUO:0000006",), inclusion=())
    data, _ = read_hospital([write_table(tmp_path / "one.csv", gappy_rows())], schema, "disease")
    named = {"name": "x", "version": 1, "institution": "Heart", "cohort": "chest-pain"}
    write_hospital(tmp_path / "v1", replace(schema, inclusion=(criterion,)), "disease", data, **named)
    assert read_terms(tmp_path / "v1").inclusion == "grown up"
    assert read_terms(tmp_path / "v1").data_use == ("DUO:0000006",)
    (tmp_path / "v1" / TERMS).write_text('data_use = ["DUO:0000042"]\nperiod = "2020"')
    said = read_terms(tmp_path / "v1")
    assert (said.data_use, said.inclusion, said.period) == (("DUO:0000042",), "grown up", "2020")
