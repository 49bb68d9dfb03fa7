"""A newcomer has one CSV of 300 patients and a data dictionary: three commands from there to a published dataset."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from support.hospital_tables import heart_rows, write_table
from typer.testing import CliRunner

from datasites.data.dataset import read_schema
from datasites.data.publishing import CARD, Card, Datasets
from datasites.data.reading.dictionary import read_levels
from datasites.data.reading.schema_files import read_schema_document
from datasites.node.home import Config, Home
from datasites.review.policy import Policy
from datasites.study.signing import parse
from orchestrator.cli.main import app
from privacy.errors import InvalidInput
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger

DICTIONARY = [
    ("column", "label", "unit", "low", "high", "levels", "role"),
    ("patient_id", "number of the patient", "", "", "", "", "patient"),
    ("age", "age at examination", "years", "18", "110", "", ""),
    ("sex", "sex", "", "", "", "0, female | 1, male", ""),
    ("cp", "chest pain", "", "", "", "1, typical | 2, atypical | 3, non-anginal | 4, none", ""),
    ("trestbps", "resting blood pressure", "mmHg", "60", "260", "", ""),
    ("chol", "cholesterol", "mg/dL", "80", "700", "", ""),
    ("oldpeak", "ST depression", "mm", "-4", "10", "", ""),
    ("thalach", "maximum heart rate", "1/min", "50", "230", "", "never"),
    ("disease", "narrowed vessel", "", "", "", "0, no | 1, yes", "outcome"),
]


def dictionary(folder: Path, rows: list[tuple[str, ...]] = DICTIONARY) -> Path:
    path = folder / "dictionary.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def run(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


def published_by_the_daemon(home: Home) -> Path:
    """Publish as ``tessera datasite run`` does when it starts."""
    identity = home.identity()
    ledger, journal = Ledger(home.folder / "ledger.sqlite", identity), Journal(home.folder / "journal.sqlite", identity)
    (folder,) = home.datasets()
    return Datasets(home=home, ledger=ledger, journal=journal, policy=Policy()).publish(folder)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    config = Config(name="heart-1", institution="Clinic", role="datasite", orchestrator_url="http://127.0.0.1:1")
    Home.create(tmp_path / "home", config)
    return Home(folder=tmp_path / "home")


def test_three_commands_lead_from_a_table_and_its_dictionary_to_a_published_dataset(tmp_path: Path, home: Home) -> None:
    table, schema = write_table(tmp_path / "patients.csv", heart_rows(300)), tmp_path / "study.toml"
    made = run("schema", "init", table, "--dictionary", dictionary(tmp_path), "--name", "chest", "--out", schema)
    assert made.exit_code == 0, made.output
    assert "not in the dictionary, and not read: fbs, restecg, exang, slope" in made.output
    read = run("datasite", "ingest", table, "--schema", schema, "--home", home.folder, "--json")
    assert read.exit_code == 0, read.output
    facts = json.loads(read.stdout.splitlines()[-1])
    assert (facts["patients"], facts["seen"], facts["refused"]) == (300, 300, 0)
    public = published_by_the_daemon(home)
    card = parse(Card, (public / CARD).read_bytes())
    assert card.task == "disease" and abs(card.dataset.patients - 300) < 60
    found = read_schema(public)
    assert found.features["clinical"][:4] == ("age:value", "age:missing", "sex:female", "sex:male")
    document = read_schema_document(schema)
    assert document.never == ("thalach",) and document.patient.column == "patient_id"
    page = Path(facts["report"]).read_text()
    assert "300 patients are in the dataset." in page and "H-0-" not in page


REDCAP = [
    ("Variable / Field Name", "Form Name", "Field Label", "Choices, Calculations, OR Slider Labels",
     "Text Validation Min", "Text Validation Max", "Role"),
    ("age", "demographics", "Age", "", "18", "110", ""),
    ("chol", "lab", "Cholesterol", "", "80", "700", ""),
    ("disease", "lab", "Narrowed vessel", "0, No | 1, Yes", "", "", "outcome"),
]  # fmt: skip


def test_redcaps_dictionary_is_read_by_its_own_headers(tmp_path: Path) -> None:
    table, schema = write_table(tmp_path / "patients.csv", heart_rows(20)), tmp_path / "study.toml"
    made = run("schema", "init", table, "--dictionary", dictionary(tmp_path, REDCAP), "--name", "x", "--out", schema)
    assert made.exit_code == 0, made.output
    assert [m.name for m in read_schema_document(schema).modalities] == ["demographics", "lab"]


def changed(described: str, **values: str) -> list[tuple[str, ...]]:
    head, *rows = DICTIONARY
    other = {"column": described, **values}
    found = [tuple(other.get(k, v) for k, v in zip(head, r, strict=True)) if r[0] == described else r for r in rows]
    return [head, *found]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (changed("chol", low=""), "neither levels nor a range of 'chol'"),
        (changed("chol", low="700", high="80"), "neither levels nor a range of 'chol'"),
        (changed("chol", low="few"), "low of 'chol' is 'few'; expected a number"),
        (changed("disease", role=""), "a row with the role outcome"),
        (changed("sex", role="label"), "has the role 'label'; expected one of"),
        (changed("disease", column="outcome"), "no table has the column 'outcome'"),
        (changed("chol", column="age"), "'age' stands there twice"),
        (changed("sex", levels="0, a | 0, b"), "'0' means both"),
        ([("a", "b"), ("1", "2")], "that names the table's columns"),
    ],
    ids=["no-range", "range", "number", "outcome", "role", "column", "twice", "levels", "header"],
)
def test_a_dictionary_that_says_too_little_is_refused_and_nothing_is_written(
    tmp_path: Path, rows: list[tuple[str, ...]], words: str
) -> None:
    table, out = write_table(tmp_path / "patients.csv", heart_rows(20)), tmp_path / "study.toml"
    made = run("schema", "init", table, "--dictionary", dictionary(tmp_path, rows), "--name", "x", "--out", out)
    assert isinstance(made.exception, InvalidInput) and words in str(made.exception), made.exception
    assert not out.exists()


def test_levels_are_read_as_people_write_them() -> None:
    assert read_levels("0, no | 1, yes") == [("no", ("0",)), ("yes", ("1",))]
    assert read_levels("low|mid|high") == [("low", ()), ("mid", ()), ("high", ())]
    assert read_levels("1=male; 2=female") == [("male", ("1",)), ("female", ("2",))]
