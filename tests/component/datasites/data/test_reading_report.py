"""The reading report in every language: no sentence of it stays English, and axe finds nothing to complain about."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.hospital_tables import heart_rows, write_table
from support.pseudo_language import made_up, texts_in, unmarked

from datasites.data.guard.judging import warnings_of
from datasites.data.missing import Changes
from datasites.data.reading.hospital import read_hospital
from datasites.data.reading.mapping import LocalMapping
from datasites.data.reading.report import ReadingReport
from datasites.data.reading.schema_files import read_schema_document
from datasites.data.reading.writing import page_of, write_report
from datasites.data.versions import check_spelling
from datasites.language import LANGUAGES, speaking
from datasites.study.signing import dump

__all__ = ["made_up"]
LONG = "普通の列_مستشفى_🏥_" + "Universitätsklinikum" * 4


def tables(folder: Path) -> Path:
    """Write tables in which nearly everything is wrong that can be."""
    folder.mkdir()
    rows = [row | {"oldpeak": "3.1" if row["disease"] == "1" else "0.2", "trestbps": "130"} for row in heart_rows(80)]
    rows[1] |= {"chol": "5.2 mmol/L", "sex": "w"}
    rows[2] |= {"chol": "5.2", "sex": "angina"}
    rows[3] |= {"chol": "many", "thalach": "15 furlongs"}
    rows[4] |= {"disease": "", "age": "1,5,2"}
    outcome = [{k: r[k] for k in ("patient_id", "disease")} for r in rows]
    outcome += [outcome[5] | {"disease": "0" if outcome[5]["disease"] == "1" else "1"}, outcome[6] | {"disease": "?"}]
    outcome.append({"patient_id": "h 0 0007", "disease": "1"})
    write_table(folder / "outcome.csv", outcome, separator=";")
    inputs = [{k: v for k, v in r.items() if k not in ("disease", "ca")} | {LONG: "1"} for r in rows]
    write_table(folder / "inputs.csv", [r | {"patient_id": r["patient_id"].lower()} for r in inputs], separator=";")
    (folder / "notes.docx").write_bytes(b"none")
    (folder / "old.csv").write_bytes("Name;Größe\nx;1\n".encode("cp1252"))
    return folder


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> tuple[ReadingReport, ReadingReport]:
    """A report of tables with every fault, and one of tables in order, as version 2."""
    folder = tmp_path_factory.mktemp("tables")
    schema = read_schema_document(Path("heart"))
    data, bad = read_hospital([tables(folder / "bad")], schema, "disease", mapping=LocalMapping(refuse_above=0.0))
    spelled = check_spelling(folder, data.patients)
    bad = replace(bad, problems=(*bad.problems, *spelled))
    rows = [r | {"oldpeak": "3.1" if r["disease"] == "1" else "0.2", "trestbps": "130"} for r in heart_rows(80)]
    rows[3] |= {"chol": "5.2 mmol/L", "sex": "w", "disease": "", "oldpeak": "many"}
    data, good = read_hospital([write_table(folder / "all.csv", rows, separator=";")], schema, "disease")
    warned = tuple(warnings_of(schema, schema.outcome("disease"), data))
    changes = Changes(since=1, added=2, changed=1, withdrawn=3, same=70)
    return bad, replace(good, warnings=warned, changes=changes)


def test_no_sentence_of_it_stays_english(reports, made_up):
    schema = read_schema_document(Path("heart"))
    labels = {item.label for item in (*schema.outcomes, *schema.modalities, *schema.inclusion)}
    for report in reports:
        assert report.problems or report.warnings
        rules = [m.values["rule"].values for c in report.columns for m in c.mapped if "rule" in m.values]
        known = {c.variable for c in report.columns} | {c.column for c in report.columns} | labels
        known |= {
            text for key in ("tables", "modalities", "outcomes", "cohorts") for text in texts_in(dump(report)[key])
        }
        known |= {s.spelling for c in report.columns for s in c.strange} | {
            LONG,
            LONG[:40],
            "patient_id",
            "notes.docx",
            "old.csv",
        }
        known |= {str(values[key]) for values in rules for key in ("spelling", "levels") if key in values}
        known |= {"heart", "disease", "mmol/L", "mg/dL", "furlongs", "female", "male", "w", "patient", "Windows-1252"}
        known |= {"csv", "tsv", "txt", "tab", "parquet", "feather", "arrow", "xlsx", "gz", "records", "UTF-8", "ca"}
        with speaking(made_up):
            assert list(unmarked(page_of(report).decode(), known - {r.hint for r in report.tables})) == []


def test_it_is_written_in_every_language_and_its_facts_in_english(tmp_path, reports):
    page, facts = write_report(tmp_path / "reading", reports[1])
    stem = page.name.removesuffix(".html")
    assert sorted(p.name for p in page.parent.iterdir()) == sorted(
        [f"{stem}.html", f"{stem}.de.html", f"{stem}.fr.html", f"{stem}.json"]
    )
    german, french = (page.with_name(f"{stem}.{code}.html").read_text() for code in ("de", "fr"))
    assert '<html lang="de">' in german and "79 Patienten sind im Datensatz." in german
    assert "ohne einen Wert für" in german and "umgerechnet von mmol/L in mg/dL: 1 Zelle" in german
    assert '<html lang="fr">' in french and "Par rapport à la version 1" in french
    assert any("nearly tells" in line for line in json.loads(facts.read_text())["warnings"])


@pytest.mark.browser
def test_axe_finds_no_violation_and_a_phone_is_wide_enough(browser, axe, shoot, tmp_path, reports):
    found, wide = {}, {}
    for number, (report, width) in enumerate(zip(reports, (360, 1200), strict=True)):
        page, _ = write_report(tmp_path / str(number), report)
        tab = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        for code in LANGUAGES if number == 0 else ("de",):
            tab.goto((page if code == "en" else page.with_name(page.name.replace(".html", f".{code}.html"))).as_uri())
            name = f"reading-{number}-{code}"
            found[name], wide[name] = axe(tab), tab.evaluate("document.documentElement.scrollWidth") - width
            shoot(tab, name)
    assert {name: problems for name, problems in found.items() if problems} == {}
    assert {name: pixels for name, pixels in wide.items() if pixels > 0} == {}
