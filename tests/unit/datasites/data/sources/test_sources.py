"""Databases, OMOP, FHIR and AnnData: every record becomes a row, or is counted; units travel with their values."""

from __future__ import annotations

import gzip
import json
import sqlite3
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from datasites.data.sources.extraction import READING, extracting, table_name
from datasites.data.sources.omop import MEASUREMENTS, UNITS
from datasites.hospital.cli import app
from privacy.errors import InvalidInput, TesseraError

RUN = CliRunner()


def extract(kind: str, source: Path, out: Path, *more: object):
    return RUN.invoke(app, ["extract", kind, str(source), "--out", str(out), "--json", *map(str, more)])


def read(out: Path, table: str) -> list[dict[str, str]]:
    return pd.read_parquet(out / f"{table}.parquet").to_dict("records")


def query(tmp_path: Path, text: str) -> Path:
    base = sqlite3.connect(tmp_path / "hunter2.sqlite")
    base.execute("CREATE TABLE IF NOT EXISTS labs (pid TEXT, albumin REAL, n INTEGER, born TEXT, note BLOB)")
    rows = [("007", 3.9, 9007199254740993, "1950-01-02", None), ("NA", None, 1, "", b"x")]
    base.executemany("INSERT INTO labs VALUES (?, ?, ?, ?, ?)", rows)
    base.commit()
    base.close()
    (tmp_path / "q.sql").write_text(text)
    return tmp_path / "q.sql"


def test_a_query_becomes_a_table_of_texts_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_SQL_URL", f"sqlite:///{tmp_path / 'hunter2.sqlite'}")
    done = extract("sql", query(tmp_path, "SELECT pid, albumin, n, born FROM labs;"), tmp_path / "out")
    assert done.exit_code == 0, done.exception
    assert read(tmp_path / "out", "query") == [
        {"pid": "007", "albumin": "3.9", "n": "9007199254740993", "born": "1950-01-02"},
        {"pid": "NA", "albumin": "", "n": "1", "born": ""},
    ]
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0


CONCEPTS = {
    "3004249": "Systolic blood pressure",
    "3012888": "Diastolic blood pressure",
    "3027018": "Heart rate",
    "3036277": "Body height",
    "3025315": "Body weight",
    "3038553": "Body mass index (BMI) [Ratio]",
    "3027114": "Cholesterol [Mass/volume] in Serum or Plasma",
    "3016723": "Creatinine [Mass/volume] in Serum or Plasma",
    "3024561": "Albumin [Mass/volume] in Serum or Plasma",
    "3024128": "Bilirubin.total [Mass/volume] in Serum or Plasma",
    "3000963": "Hemoglobin [Mass/volume] in Blood",
}
"""Names of OMOP's concepts, as the concept-level checks of OHDSI's DataQualityDashboard give them."""

UNIT_CONCEPTS = {
    "8713": ("gram per deciliter", "g/dL"),
    "8636": ("gram per liter", "g/L"),
    "8840": ("milligram per deciliter", "mg/dL"),
    "8753": ("millimole per liter", "mmol/L"),
    "8749": ("micromole per liter", "umol/L"),
    "8848": ("thousand per microliter", "10^3/uL"),
    "9444": ("billion per liter", "10^9/L"),
    "8876": ("millimeter mercury column", "mmHg"),
    "8582": ("centimeter", "cm"),
    "9529": ("kilogram", "kg"),
    "8554": ("percent", "%"),
    "8645": ("unit per liter", "U/L"),
    "9531": ("kilogram per square meter", "kg/m2"),
    "8541": ("per minute", "/min"),
}


def test_every_concept_that_is_read_without_a_list_is_one_that_was_looked_up():
    for concept, name in MEASUREMENTS.items():
        words = name.replace("haemoglobin", "hemoglobin").split("-")
        assert all(word in CONCEPTS[concept].casefold() for word in words), (concept, name)
    assert dict(UNITS) == {concept: unit for concept, (_, unit) in UNIT_CONCEPTS.items()}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DELETE FROM labs", "one SELECT"),
        ("SELECT pid, pid FROM labs", "each once"),
        ("SELECT note FROM labs", "got bytes"),
        ("SELECT nothing FROM nowhere", "does not answer"),
        ("SELECT pid FROM labs WHERE pid = 'nobody'", "no record"),
    ],
)
def test_a_query_that_cannot_be_used_leaves_nothing_and_shows_no_password(tmp_path, monkeypatch, text, words):
    monkeypatch.setenv("TESSERA_SQL_URL", f"sqlite:///{tmp_path / 'hunter2.sqlite'}")
    done = extract("sql", query(tmp_path, text), tmp_path / "out")
    assert isinstance(done.exception, InvalidInput | TesseraError)
    assert words in str(done.exception)
    assert "hunter2" not in str(done.exception) + done.output
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == []
    monkeypatch.delenv("TESSERA_SQL_URL")
    assert "TESSERA_SQL_URL" in str(extract("sql", tmp_path / "q.sql", tmp_path / "out").exception)


def bulk(folder: Path, *observations: dict, packed: bool = False) -> Path:
    folder.mkdir()
    patients = [
        {"resourceType": "Patient", "id": f"p{i}", "gender": "female", "birthDate": f"1950-01-0{i + 1}"}
        for i in range(2)
    ]
    text = "\n".join(
        map(json.dumps, [*patients, patients[0], {"resourceType": "Patient"}, {"resourceType": "Encounter"}])
    )
    (folder / "Patient.ndjson").write_text(text + "\n\n")
    body = "\n".join(map(json.dumps, observations)).encode()
    path = folder / ("Observation.0.ndjson.gz" if packed else "Observation.0.ndjson")
    path.write_bytes(gzip.compress(body) if packed else body)
    return folder


def observation(value: dict, *, patient: str = "Patient/p0", code: str = "2160-0", status: str = "final") -> dict:
    coding = {"coding": [{"system": "http://loinc.org", "code": code, "display": f"Test {code}"}]}
    return {"resourceType": "Observation", "status": status, "code": coding, "subject": {"reference": patient}} | {
        "effectiveDateTime": "2024-05-31T10:00:00Z", **value
    }  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_fhir_patients_and_observations_become_tables_and_the_rest_is_counted(tmp_path, packed):
    folder = bulk(
        tmp_path / "bulk",
        observation({"valueQuantity": {"value": 88.4, "unit": "umol/L"}}),
        observation(
            {"valueQuantity": {"value": 5, "comparator": "<", "code": "mg/dL"}}, patient="https://x/Patient/p1"
        ),
        observation({"valueCodeableConcept": {"coding": [{"code": "G2", "display": "Grade 2"}]}}, code="grade"),
        observation({"valueBoolean": True}, code="../../x", patient="urn:uuid:p1"),
        observation({"component": [{"code": {"coding": [{"code": "8480-6"}]}, "valueQuantity": {"value": 120}}]}),
        observation({"valueQuantity": {"value": 1}}, status="entered-in-error"),
        observation({"valueQuantity": {"value": 1}}, patient="Group/1"),
        observation({}),
        observation({"valueRatio": {}}),
        packed=packed,
    )
    done = extract("fhir", folder, tmp_path / "out")
    assert done.exit_code == 0, done.exception
    assert read(tmp_path / "out", "patient")[1] == {"patient_id": "p1", "gender": "female", "birth_date": "1950-01-02"}
    assert [r["test-2160-0"] for r in read(tmp_path / "out", "test-2160-0")] == ["88.4 umol/L", "<5 mg/dL"]
    assert read(tmp_path / "out", "test-grade")[0]["test-grade"] == "Grade 2"
    assert read(tmp_path / "out", "test-x") == [{"patient_id": "p1", "date": "2024-05-31", "test-x": "true"}]
    assert read(tmp_path / "out", "8480-6")[0]["8480-6"] == "120"
    passed = json.loads((tmp_path / "out" / READING).read_text())["passed_over"]
    assert sum(passed.values()) == 7  # twice, without an id, Encounter, in error, of a group, no value, another kind
    (tmp_path / "codes.toml").write_text('"2160-0" = "creatinine"\n')
    asked = extract("fhir", folder, tmp_path / "some", "--codes", tmp_path / "codes.toml")
    assert json.loads(asked.stdout.splitlines()[-1])["rows"] == {"patient": 2, "creatinine": 2}


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("Observation.1.ndjson", b'{"resourceType": "Obs', "line 1: expected a JSON object"),
        ("Observation.1.ndjson", b"<html>log in</html>", "HTML page"),
        ("Observation.1.ndjson", b"[1]", "expected a JSON object"),
        ("Observation.1.ndjson.gz", gzip.compress(b"{}\n" * 999, mtime=0)[:-5], "to its end"),
        ("Observation.1.ndjson.part", b"", "unfinished"),
    ],
)
def test_a_broken_export_is_refused_by_name_and_leaves_nothing(tmp_path, name, body, words):
    (bulk(tmp_path / "bulk") / name).write_bytes(body)
    done = extract("fhir", tmp_path / "bulk", tmp_path / "out")
    assert words in str(done.exception) and name in str(done.exception)
    assert [p.name for p in tmp_path.iterdir()] == ["bulk"]


def test_omop_measurements_keep_their_unit_and_what_was_not_asked_for_is_counted(tmp_path):
    folder = tmp_path / "cdm"
    folder.mkdir()
    (folder / "PERSON.csv").write_text("person_id,gender_concept_id,year_of_birth\n1,8532,1950\n2,8507,1961\n3,0,\n")
    head = "measurement_id,person_id,measurement_concept_id,measurement_date,value_as_number,unit_concept_id\n"
    rows = ["1,1,3024561,2020-01-02,3.9,8713", "2,2,3024561,2020-01-02,39,8636", "3,3,3024561,2020-01-02,39,99"]
    rows += ["4,1,3024561,2020-01-02,,8713", "5,1,12345,2020-01-02,1,8713"]
    (folder / "measurement.csv").write_text(head + "\n".join(rows))
    (folder / "condition_occurrence.csv").write_text("person_id,condition_concept_id\n1,201826\n2,77\n")
    assert extract("omop", folder, tmp_path / "out").exit_code == 0
    assert [r["sex"] for r in read(tmp_path / "out", "person")] == ["female", "male", ""]
    assert [r["albumin"] for r in read(tmp_path / "out", "albumin")] == ["3.9 g/dL", "39 g/L", "39 unit 99"]
    passed = json.loads((tmp_path / "out" / READING).read_text())["passed_over"]
    assert sum(passed.values()) == 4
    (tmp_path / "codes.toml").write_text('201826 = "diabetes"\n3024561 = "albumin"\n')
    assert extract("omop", folder, tmp_path / "own", "--codes", tmp_path / "codes.toml").exit_code == 0
    assert [r["diabetes"] for r in read(tmp_path / "own", "conditions")] == ["recorded", "not recorded", "not recorded"]
    (folder / "PERSON.csv").write_text("person\n1\n")
    assert "person_id" in str(extract("omop", folder, tmp_path / "no").exception)


def test_omop_bounds_are_no_numbers_and_what_has_no_concept_keeps_its_own_word(tmp_path):
    folder = tmp_path / "cdm"
    folder.mkdir()
    (folder / "person.csv").write_text(
        "person_id,gender_concept_id,year_of_birth,gender_source_value\n1,0,1950,F\n2,8507,1961,x\n3,0,1970,\n"
    )
    head = "person_id,measurement_concept_id,measurement_date,value_as_number,operator_concept_id,unit_concept_id"
    rows = ["1,3016723,2020-01-02,0.2,4171756,8840,mg/dL", "2,3016723,2020-01-02,88,4172703,0,umol/L"]
    rows += ["3,3016723,2020-01-02,2,4172704,,", "1,3016723,2020-01-03,1,,8840,"]
    (folder / "measurement.csv").write_text(f"{head},unit_source_value\n" + "\n".join(rows))
    assert extract("omop", folder, tmp_path / "out").exit_code == 0
    assert [r["sex"] for r in read(tmp_path / "out", "person")] == ["F", "male", ""]
    assert [r["creatinine"] for r in read(tmp_path / "out", "creatinine")] == [
        "<0.2 mg/dL",
        "88 umol/L",
        ">2",
        "1 mg/dL",
    ]


def test_fhir_codes_of_one_name_are_two_tables_and_a_replaced_patient_is_counted(tmp_path):
    quantity = {"valueQuantity": {"value": 5, "unit": "mmol/L"}}
    one, two = (
        observation(quantity, code="2345-7"),
        observation(quantity, code="2350-7", patient="Patient/p1/_history/3"),
    )
    for each in (one, two):
        each["code"]["coding"][0]["display"] = "Glucose"
    folder = bulk(tmp_path / "bulk", one, two, one)
    old = {
        "resourceType": "Patient",
        "id": "p9",
        "link": [{"other": {"reference": "Patient/p0"}, "type": "replaced-by"}],
    }
    (folder / "More.ndjson.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps(old).encode()))
    assert extract("fhir", folder, tmp_path / "out").exit_code == 0
    assert [r["patient_id"] for r in read(tmp_path / "out", "glucose")] == ["p0", "p0"]
    assert [r["glucose-2350-7"] for r in read(tmp_path / "out", "glucose-2350-7")] == ["5 mmol/L"]
    assert {r["patient_id"] for r in read(tmp_path / "out", "patient")} == {"p0", "p1"}
    passed = json.loads((tmp_path / "out" / READING).read_text())["passed_over"]
    assert passed["Patient that another record replaces"] == 1


@pytest.mark.parametrize("sparse", [False, True])
def test_an_h5ad_file_gives_its_matrix_and_its_observations(tmp_path, sparse):
    values = np.array([[0, 1.5, 0], [2, 0, 0.25]], dtype=np.float32)
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        obs, var = file.create_group("obs"), file.create_group("var")
        obs.attrs["_index"], var.attrs["_index"] = "index", "_index"
        obs["index"], var["_index"] = ["P1", "P2"], ["TP53", "NA", "T"]
        obs["age"] = [61.0, np.nan]
        stage = obs.create_group("stage")
        stage["codes"], stage["categories"] = np.array([1, -1], dtype=np.int8), ["I", "II"]
        obs.create_group("odd")
        if sparse:
            matrix = file.create_group("X")
            matrix.attrs["encoding-type"] = "csr_matrix"
            matrix["data"], matrix["indices"], matrix["indptr"] = values[values != 0], [1, 0, 2], [0, 1, 3]
        else:
            file["X"] = values
    done = extract("h5ad", tmp_path / "a.h5ad", tmp_path / "out")
    assert done.exit_code == 0, done.exception
    assert read(tmp_path / "out", "x") == [
        {"obs_id": "P1", "TP53": "0", "NA": "1.5", "T": "0"},
        {"obs_id": "P2", "TP53": "2", "NA": "0", "T": "0.25"},
    ]
    assert read(tmp_path / "out", "obs") == [
        {"obs_id": "P1", "age": "61", "stage": "II"},
        {"obs_id": "P2", "age": "", "stage": ""},
    ]
    (tmp_path / "b.h5ad").write_bytes(b"<html>no</html>")
    assert "HTML page" in str(extract("h5ad", tmp_path / "b.h5ad", tmp_path / "no").exception)


def test_a_code_never_becomes_a_path_and_a_folder_is_never_overwritten(tmp_path):
    assert table_name("../../Etc/Passwd\0") == "etc-passwd"
    assert table_name("///") == "other"
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInput, match="exists"), extracting(tmp_path / "out"):
        pass
