"""``tessera datasite ingest --schema``: from a hospital's CSV to a dataset, or to one clear refusal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.hospital_tables import heart_rows, write_table
from typer.testing import CliRunner

from datasites.data.dataset import load, read_schema
from datasites.node.home import Config, Home
from orchestrator.cli.main import app

RUN = CliRunner()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    config = Config(
        name="heart-1", institution="Heart Hospital", role="datasite", orchestrator_url="http://127.0.0.1:1"
    )
    Home.create(tmp_path / "home", config)
    return tmp_path / "home"


def ingest(home: Path, *arguments: object):
    command = ["datasite", "ingest", *map(str, arguments), "--schema", "heart", "--home", str(home), "--json"]
    return RUN.invoke(app, command)


def test_one_csv_becomes_a_dataset_that_trains_with_its_schema_and_its_report(tmp_path: Path, home: Path) -> None:
    rows = heart_rows(60)
    rows[3] |= {"chol": "5.2 mmol/L", "sex": "w", "oldpeak": "n/a"}
    del rows[4]["disease"]
    rows[4]["disease"] = ""
    done = ingest(home, write_table(tmp_path / "all.csv", rows, separator=";"))
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout.splitlines()[-1])
    assert (facts["patients"], facts["seen"], facts["refused"]) == (59, 60, 0)
    assert facts["left_out"] == {"without a value of narrowing of a coronary vessel by half or more": 1}
    folder = home / "datasets" / "heart-1-heart" / "v1"
    schema = read_schema(folder)
    assert (schema.task, schema.classes) == ("disease", 2)
    assert schema.modalities == ("history", "laboratory", "stress-test")
    batch = load(folder / "private", schema)
    assert batch["presence"].tolist() == [[1, 1, 1]] * 59
    chol = schema.features["laboratory"].index("chol:value")
    assert batch["laboratory"][3, chol] == pytest.approx((5.2 * 38.67 - 240) / 50, abs=1e-5)
    assert batch["history"][3, schema.features["history"].index("sex:female")] == 1
    missing = schema.features["stress-test"].index("oldpeak:missing")
    assert batch["stress-test"][:, missing].sum() == 1
    page = Path(facts["report"]).read_text()
    assert "What was read from your tables" in page
    assert "H-0-" not in page  # no patient
    mock = load(folder / "mock", schema)
    sexes = [schema.features["history"].index(f"sex:{level}") for level in ("female", "male")]
    assert (mock["history"][:, sexes].sum(axis=1) == 1).all()
    again = ingest(home, tmp_path / "all.csv")
    assert json.loads(again.stdout.splitlines()[-1])["version"] == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cp": "angina pectoris"}, "'angina pectoris': no word of the schema"),
        ({"chol": "5.2"}, "as mmol/L it would fit"),
        ({"disease": "maybe"}, "column 'disease'"),
    ],
)
def test_a_column_that_is_not_understood_writes_no_dataset_and_says_what_it_holds(
    tmp_path: Path, home: Path, change: dict[str, str], words: str
) -> None:
    rows = [row | change for row in heart_rows(40)[:20]] + heart_rows(40)[20:]
    done = ingest(home, write_table(tmp_path / "all.csv", rows))
    assert done.exit_code != 0
    assert words in str(done.exception)
    assert not (home / "datasets").exists() or not list((home / "datasets").rglob("schema.json"))
    assert list((home / "reading").glob("*.html"))


def test_tables_that_do_not_join_are_refused_with_what_would_help(tmp_path: Path, home: Path) -> None:
    rows = heart_rows(30)
    folder = tmp_path / "tables"
    folder.mkdir()
    keep = ("patient_id", "age", "sex", "cp", "trestbps", "disease")
    write_table(folder / "history.csv", [{k: row[k] for k in keep} for row in rows])
    other = [k for k in rows[0] if k not in keep[1:]]
    late = [{k: row[k] for k in other} | {"patient_id": row["patient_id"] + "-01A"} for row in rows]
    write_table(folder / "later.csv", late)
    done = ingest(home, folder)
    assert done.exit_code != 0
    assert "0 of its 30 ids are patients of the study" in str(done.exception)
    assert "30 instead of 0 would agree in their first 3 parts" in str(done.exception)


def test_a_mapping_finds_local_names_words_units_and_dates(tmp_path: Path, home: Path) -> None:
    rows = heart_rows(30)
    local = []
    for row in rows:
        born = 2020 - int(row["age"])
        kept = {k: v for k, v in row.items() if k not in ("age", "sex", "patient_id", "chol")}
        local.append(
            {"PatNr": row["patient_id"], "geb": f"{born}-01-01", "am": "2020-01-01", "Geschl": "mw"[row["sex"] == "0"]}
            | {"Chol": f"{int(row['chol']) / 38.67:.4f}".replace(".", ",")}
            | kept
        )
    write_table(tmp_path / "kis.csv", local, separator=";")
    (tmp_path / "mapping.toml").write_text(
        '[tables.kis]\nfile = "kis.csv"\npatient = "PatNr"\ndecimal = ","\n'
        '[columns.age]\ntable = "kis"\nfrom = "geb"\nuntil = "am"\n'
        '[columns."history.sex"]\ntable = "kis"\ncolumn = "Geschl"\nwords = {w = "female", m = "male"}\n'
        '[columns.chol]\ntable = "kis"\ncolumn = "Chol"\nunit = "mmol/L"\n'
        '[columns.oldpeak]\ntable = "kis"\ndecimal = "."\n'
    )
    done = ingest(home, tmp_path, "--mapping", tmp_path / "mapping.toml")
    assert done.exit_code == 0, done.exception
    folder = home / "datasets" / "heart-1-heart" / "v1"
    schema = read_schema(folder)
    batch = load(folder / "private", schema)
    ages = batch["history"][:, schema.features["history"].index("age:value")] * 10 + 55
    assert np.allclose(ages, [int(row["age"]) for row in rows], atol=0.01)


def test_public_tables_are_still_dealt_and_half_a_command_is_refused(tmp_path: Path, home: Path) -> None:
    done = RUN.invoke(app, ["datasite", "ingest", str(tmp_path)])
    assert done.exit_code != 0
    assert "tessera federation deal" in str(done.exception)


def test_hospitals_agree_on_a_schema_and_who_has_not_is_named(tmp_path: Path, home: Path) -> None:
    from datasites.node.roster import Roster
    from datasites.study.proposal import Party
    from privacy.identity import Identity

    def party(name: str, number: int) -> Party:
        return Party(name=name, institution=name, public_key=Identity.from_seed(bytes([number]) * 32).public_key)

    me = Home(folder=home).party()
    Roster(
        orchestrator=party("o", 1), keyholder=party("k", 2), sites=(me, party("heart-2", 3), party("heart-3", 4))
    ).save(tmp_path / "roster.json")
    signed = tmp_path / "signed.json"
    assert RUN.invoke(app, ["schema", "agree", "heart", "--home", str(home), "--out", str(signed)]).exit_code == 0
    asked = ["schema", "agreed", "heart", str(signed), "--roster", str(tmp_path / "roster.json")]
    done = RUN.invoke(app, [*asked, "--json"])
    assert done.exit_code == 1
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["signed"], found["waiting"]) == (["heart-1"], ["heart-2", "heart-3"])
    text = signed.read_text().replace("Heart Hospital", "Other Hospital")
    signed.write_text(text)
    done = RUN.invoke(app, asked)
    assert type(done.exception).__name__ == "Tampered"


def test_a_draft_names_columns_and_frequent_words_and_no_number(tmp_path: Path) -> None:
    rows = heart_rows(60) + [row | {"patient_id": row["patient_id"] + "x", "cp": "rare words"} for row in heart_rows(1)]
    write_table(tmp_path / "all.csv", rows)
    out = tmp_path / "draft.toml"
    done = RUN.invoke(app, ["schema", "init", str(tmp_path / "all.csv"), "--out", str(out), "--name", "mine"])
    assert done.exit_code == 0, done.exception
    text = out.read_text()
    assert 'name = "trestbps", unit = "", low = 0, high = 0' in text
    assert "rare words" not in text
    assert "H-0" not in text
    refused = RUN.invoke(app, ["schema", "check", str(out)])
    assert "low below high" in str(refused.exception)
