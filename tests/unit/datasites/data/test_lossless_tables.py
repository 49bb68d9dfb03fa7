"""Tables as people bring them to `federation deal`: each value is read, refused or told of; none is lost in silence."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasites.data.ingest import READING, ingest
from datasites.data.reading.mapping import ColumnRule, LocalMapping
from datasites.data.tcga.leakage import leaks
from datasites.data.tcga.preprocessing import clinical_features, clinical_inputs
from datasites.data.tcga.stages import stage_word
from datasites.data.tcga.tables import read_symbols, read_table, read_tables
from privacy.errors import InvalidInput

ROMAN = ("I", "II", "III", "IV")


def cohort(folder: Path, *, cases: int = 60, name: str = "BRCA", **columns: list[str]) -> Path:
    """Write one cohort: three source sites, two genes, three image features."""
    draw = random.Random(7)  # noqa: S311 - made-up values
    place = folder / name
    place.mkdir(parents=True)
    first = 0 if name == "BRCA" else 5000  # no patient is in two cohorts
    ids = [f"TCGA-{('AA', 'BB', 'CC')[i % 3]}-{first + i:04d}" for i in range(cases)]
    table = {"case_id": ids, "tss": [c[5:7] for c in ids], "stage": [ROMAN[i % 4] for i in range(cases)]}
    pd.DataFrame(table | columns).to_csv(place / "clinical.csv", index=False)
    for stem, names in (("mrna", ("TP53", "T")), ("image_features", ("AREA..X", "DENSITY..X", "TOTAL..X"))):
        values = {n: [f"{draw.gauss(0, 1):.5f}" for _ in ids] for n in names}
        pd.DataFrame({"case_id": ids} | values).to_csv(place / f"{stem}.csv", index=False)
    return folder


def change(path: Path, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    edit(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def deal(folder: Path, out: Path, federation: str = "upper-bound"):
    return ingest(folder, out, federation=federation, task="early-late", seed=1, minimum_cases=5)


@pytest.mark.parametrize(
    ("spelling", "hint"),
    [
        (lambda i: f"{i}-01A", "agree in their first 3 parts"),
        (lambda i: f"{i}-01A-11R-A123-07", "agree in their first 3 parts"),
        (str.lower, "without capitals"),
        (lambda i: i.replace("-", "."), "without capitals"),
        (lambda i: i.replace("-", "_"), "without capitals"),
        (lambda i: f"X{i}", "check the ids"),
    ],
    ids=["sample", "aliquot", "small", "dots", "underlines", "prefix"],
)
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_ids_that_do_not_join_are_refused_with_their_number_and_look(tmp_path, spelling, hint, share):
    folder = cohort(tmp_path / "t")
    few = int(60 * share)
    change(
        folder / "BRCA" / "mrna.csv",
        lambda t: t.assign(case_id=[spelling(c) if i < few else c for i, c in enumerate(t["case_id"])]),
    )
    if hint == "check the ids" and share < 1:
        assert "6" in " ".join(read_tables(folder).notes)
        return
    with pytest.raises(InvalidInput, match=hint) as refusal:
        deal(folder, tmp_path / "out")
    assert f"{60 - few} of its 60 ids are cases" in str(refusal.value)
    assert "TCGA" not in str(refusal.value)  # how ids look, never an id
    assert not (tmp_path / "out").exists()


def test_blanks_around_an_id_do_not_part_a_patient_from_her_values(tmp_path):
    folder = cohort(tmp_path / "t")
    change(folder / "BRCA" / "mrna.csv", lambda t: t.assign(case_id=" " + t["case_id"] + "\u00a0"))
    assert len(read_tables(folder).cohorts["BRCA"].modalities["mrna"]) == 60


@pytest.mark.parametrize("kind", ["int", "float", "text"])
def test_ids_that_are_whole_numbers_join_however_a_file_stores_them(tmp_path, kind):
    folder = cohort(tmp_path / "t", tss=["A", "B", "C"] * 20)
    for name in ("clinical", "mrna", "image_features"):
        change(folder / "BRCA" / f"{name}.csv", lambda t: t.assign(case_id=[str(1000 + i) for i in range(len(t))]))
    table = pd.read_csv(folder / "BRCA" / "mrna.csv")
    table["case_id"] = table["case_id"].astype({"int": "int64", "float": "float64", "text": str}[kind])
    table.to_parquet(folder / "BRCA" / "mrna.parquet", index=False)
    (folder / "BRCA" / "mrna.csv").unlink()
    assert len(read_tables(folder).cohorts["BRCA"].modalities["mrna"]) == 60
    change(folder / "BRCA" / "image_features.csv", lambda t: t.assign(case_id=t["case_id"] + ".0"))
    with pytest.raises(InvalidInput, match="60 instead of 0 would agree"):
        read_tables(folder)


@pytest.mark.parametrize("code", ["NA", "None", "nan", "NULL", "N/A", "01", "1e5"])
def test_a_code_of_a_source_site_is_a_text_whatever_it_spells(tmp_path, code):
    if "/" in code:
        with pytest.raises(InvalidInput, match="site's name"):
            deal(cohort(tmp_path / "t", tss=[code, "BB", "CC"] * 20), tmp_path / "out", "tissue-source-sites")
        return
    plan = deal(cohort(tmp_path / "t", tss=[code, "BB", "CC"] * 20), tmp_path / "out", "tissue-source-sites")
    assert {site.name for site in plan.sites} == {"brca-bb", "brca-cc", f"brca-{code.lower()}"}


@pytest.mark.parametrize(
    "code", ["x/../../../../escaped", "../../escaped", "/tmp/escaped", "a\\b", "a\x00b", ".", ".."]
)
def test_a_cell_never_becomes_a_path(tmp_path, code):
    folder = cohort(tmp_path / "t")
    rows = ["case_id,tss,stage", *(f"TCGA-AA-{i:04d},{(code, 'BB', 'CC')[i % 3]},{ROMAN[i % 4]}" for i in range(60))]
    (folder / "BRCA" / "clinical.csv").write_text("\n".join(rows))
    for name in ("mrna", "image_features"):
        change(folder / "BRCA" / f"{name}.csv", lambda t: t.assign(case_id=[f"TCGA-AA-{i:04d}" for i in range(60)]))
    before = set(tmp_path.rglob("*"))
    if code in (".", ".."):  # behind the cohort's name and a dash they are no path
        deal(folder, tmp_path / "here" / "out", "tissue-source-sites")
        assert all((tmp_path / "here" / "out") in p.parents for p in tmp_path.rglob("schema.json"))
        return
    with pytest.raises(InvalidInput) as refusal:
        deal(folder, tmp_path / "here" / "out", "tissue-source-sites")
    assert "\n" not in str(refusal.value)
    assert set(tmp_path.rglob("*")) - before <= {tmp_path / "here"}


def test_source_sites_of_one_institution_are_one_and_too_few_institutions_are_refused(tmp_path):
    codes, names = ["AA", "BB", "CC", "DD"] * 15, ["One", "Two", "Three", "one "] * 15
    plan = deal(cohort(tmp_path / "t", tss=codes, site_name=names), tmp_path / "out", "tissue-source-sites")
    assert sorted(site.institution for site in plan.sites) == ["One", "Three", "Two"]
    assert sum(len(site.cases) for site in plan.sites if site.institution == "One") > 15
    names = ["One", "Two", "Two", "One"] * 15
    with pytest.raises(InvalidInput, match="2 sites"):
        deal(cohort(tmp_path / "u", tss=codes, site_name=names), tmp_path / "no", "tissue-source-sites")


def test_a_split_by_site_that_holds_nothing_out_is_refused(tmp_path):
    from datasites.data.federations import build

    tables = read_tables(cohort(tmp_path / "t"))
    with pytest.raises(InvalidInput, match="no case can be held out"):
        build("upper-bound", tables, task="early-late", seed=1, split="site-held-out", test_fraction=0.1)


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        *[("IIA", "II"), ("Stage 1", "I"), ("2", "II"), ("2.0", "II"), ("ii", "II"), ("IIIC1", "III"), ("iv", "IV")],
        *[("Stage IIIA1(ii)", "III"), ("STAGE  IVB", "IV"), ("stage-3b", "III"), ("\u2161", "II"), ("IB2", "I")],
        *[("Pathologic Stage IIA", "II"), ("Stage IS", "I"), (" 4 ", "IV"), ("stage: ii", "II"), (3.0, "III")],
        *[("Stage X", ""), ("Stage 0", ""), ("Not Reported", ""), ("", ""), (None, ""), (float("nan"), "")],
        *[("I/II NOS", ""), ("Tis", ""), ("[Discrepancy]", ""), ("'--", "")],
        *[("0", None), ("5", None), ("12", None), ("late", None), ("p1", None), ("T2", None), ("2,5", None)],
        *[("2.5", None), ("IVX", None), ("VI", None), ("IIII", None), ("I-II", None), ("stage", None)],
    ],
    ids=str,
)
def test_the_words_of_a_stage(text, stage):
    assert stage_word(text) == stage


def test_stages_in_any_spelling_are_labels_and_unknown_words_are_shown(tmp_path):
    words = ["IIA", "Stage 1", "iiic1", "4"] * 15
    tables = read_tables(cohort(tmp_path / "t", stage=words))
    assert tables.cohorts["BRCA"].clinical["stage"].value_counts().to_dict() == dict.fromkeys(ROMAN, 15)
    one = read_tables(cohort(tmp_path / "u", stage=["early-ish", "Stage X", *words[2:]]))
    assert any("'early-ish' (1)" in note for note in one.notes)
    assert any("'Stage X' (1)" in note for note in one.notes)
    with pytest.raises(InvalidInput, match=r"15 of 60 stages were not understood: '0' \(15\)"):
        read_tables(cohort(tmp_path / "v", stage=["0", "1", "2", "3"] * 15))  # perhaps a count from 0


def encoded(column: str, *cells: object) -> list[str]:
    """Return what each cell is read as: the names of the inputs that are not 0."""
    table = pd.DataFrame({column: list(cells)}, dtype=object)
    names = clinical_features([column])
    return ["+".join(names[i].split(":")[1] for i in np.flatnonzero(row)) for row in clinical_inputs(table, [column])]


@pytest.mark.parametrize(
    ("column", "cells", "meant"),
    [
        ("x_child_pugh", ["Class A", "Child-Pugh A", "Class B", "c", "A6", "Cirrhosis", "Class"], "a a b c a - -"),
        ("prior_malignancy", ["Not Reported", "no", "Yes", "Not done", "none known"], "- no yes - -"),
        ("neoadjuvant", ["Not done", "No", "yes, radiation prior to resection", "nope"], "- no yes -"),
        ("ethnicity", ["Not Reported", "not hispanic or latino", "Hispanic or Latino"], "- not hispanic"),
        ("x_tobacco_history", ["10", "20", "1", "Lifelong Non-Smoker", "2 packs"], "- - never never -"),
        ("sex", ["M", "F", "female", "Male", "fluid", "Mixed"], "male female female male - -"),
        ("x_grade", ["1", "3", "G2", "grade 4", "GX", "11"], "g1 g3 g2 g4 - -"),
        ("x_her2_ihc", ["3+", "0", "2+", "Negative", "30"], "positive negative equivocal negative -"),
        ("x_adjacent_inflammation", ["None", "none", None, "", "Mild"], "none none - - mild"),
        ("x_subdivision", ["left upper outer quadrant", "r-middle", "lefty"], "left+upper+outer right+middle -"),
        ("x_risk_factor", ["non-alcoholic fatty liver disease", "Alcohol consumption"], "fatty-liver alcohol"),
        ("race", ["White", "whitehall", "Black or African American", "Asian"], "white - black asian"),
        ("x_fibrosis_ishak", ["0", "2", "6 - Established Cirrhosis", "60"], "none portal cirrhosis -"),
        ("histology", ["Infiltrating Ductal Carcinoma", "Infiltrating duct carcinoma, NOS", "x"], "ductal ductal -"),
        ("ajcc_edition", ["7th", "70th", "8"], "7th - 8th"),
    ],
)  # fmt: skip
def test_words_count_whole(column, cells, meant):
    assert encoded(column, *cells) == [word.replace("-", "missing") if word == "-" else word for word in meant.split()]


def test_numbers_with_a_comma_another_unit_or_of_another_kind(tmp_path):
    table = pd.DataFrame({"x_albumin": ["3,9", "4,25", "39 g/L", "5"]})
    values = clinical_inputs(table, ["x_albumin"])[:, 0] * 0.7 + 4
    assert values == pytest.approx([3.9, 4.25, 3.9, 5], abs=1e-5)
    for column, cell, unit in (("x_platelets", "210000", "/uL"), ("age", "21900", "days"), ("x_height_cm", "1.7", "m")):
        with pytest.raises(InvalidInput, match=f"as {unit} it would fit"):
            read_tables(cohort(tmp_path / column, **{column: [cell] * 60}))
        own = LocalMapping(columns={column: ColumnRule(unit=unit)})
        read = read_tables(tmp_path / column, mapping=own).cohorts["BRCA"].clinical[column]
        assert read.notna().all()


def test_a_few_strange_words_are_told_of_many_are_refused_and_a_mapping_says_what_they_mean(tmp_path):
    few = cohort(tmp_path / "t", sex=["?", "weiblich", *["male"] * 58])
    assert any("'weiblich' (1)" in note for note in read_tables(few).notes)
    many = cohort(tmp_path / "u", sex=["weiblich"] * 20 + ["male"] * 40)
    with pytest.raises(InvalidInput, match=r"20 of 60 values were not understood: 'weiblich' \(20\)"):
        deal(many, tmp_path / "out")
    own = LocalMapping(columns={"sex": ColumnRule(words={"weiblich": "female"})})
    assert (read_tables(many, mapping=own).cohorts["BRCA"].clinical["sex"] == "female").sum() == 20
    deal(few, tmp_path / "out")
    assert "weiblich" in (tmp_path / "out" / READING).read_text()


@pytest.mark.parametrize(
    ("values", "look"),
    [
        (lambda n: np.arange(n) * 7 % 5000, "counts"),
        (lambda n: np.linspace(0, 9000, n) + 0.5, "TPM"),
        (lambda n: np.linspace(0, 18, n) + 0.01, "logarithms"),
        (lambda n: np.full(n, np.nan), "empty"),
    ],
    ids=["counts", "tpm", "log-tpm", "empty"],
)
def test_expression_that_is_no_z_score_is_refused_with_what_it_looks_like(tmp_path, values, look):
    folder = cohort(tmp_path / "t")
    path = folder / "BRCA" / "mrna.csv"
    change(path, lambda t: t.assign(TP53=values(60), T=values(60)))
    with pytest.raises(InvalidInput, match=look):
        read_tables(folder)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "ajcc_pathologic_t",
            "AJCC Pathologic T",
            "diagnoses.ajcc_pathologic_n",
            "PATH_M_STAGE",
            "pT",
            "pn",
            "figo_stage",
        ),
        *("OS_MONTHS", "days_to_death", "vital_status", "ajccPathologicStage", "tumor_stage", "lymph_nodes_positive"),
        *("TNM", "Overall.Survival", "leak_x", "stage_idx", "has_mrna", "AJCC_CLINICAL_T", "PFI.time", "margin_status"),
        *("Metastasis", "DFS_STATUS", "uicc_stage", "T Stage", "n-stage"),
    ],
)
def test_a_column_that_defines_the_outcome_is_no_input_under_any_usual_name(tmp_path, name):
    assert leaks(name)
    folder = cohort(tmp_path / "t")
    change(folder / "BRCA" / "image_features.csv", lambda t: t.rename(columns={"TOTAL..X": name}))
    with pytest.raises(InvalidInput, match="defines or leaks the stage"):
        deal(folder, tmp_path / "out")


@pytest.mark.parametrize("gene", ["STAG2", "PTN", "OS9", "T", "MARK1", "FIGNL1", "TNMD", "NPM1"])
def test_a_gene_is_no_stage(gene):
    assert not leaks(gene, genes=True)


def test_an_input_that_tells_the_stage_under_a_name_of_nothing_is_warned_of(tmp_path):
    folder = cohort(tmp_path / "t", cases=120)
    late = [int(i % 4 > 1) for i in range(120)]
    change(
        folder / "BRCA" / "image_features.csv",
        lambda t: t.assign(**{"DENSITY..X": [str(v + i / 400) for i, v in enumerate(late)]}),
    )
    deal(folder, tmp_path / "out")
    found = json.loads((tmp_path / "out" / READING).read_text())["warnings"]
    assert any("'DENSITY..X' alone nearly tells the stage" in line for line in found)
    assert not any("AREA" in line for line in found)


def test_encoders_are_never_cut_to_what_they_share(tmp_path):
    folder = cohort(tmp_path / "t")
    cohort(folder, name="LUSC")
    path = folder / "LUSC" / "image_features.csv"
    change(path, lambda t: t.rename(columns={"AREA..X": "AREA..Y", "TOTAL..X": "TOTAL..Y"}))
    with pytest.raises(InvalidInput, match=r"share 1 columns only \(BRCA 3, LUSC 3\): BRCA would lose 2 of 3"):
        deal(folder, tmp_path / "out")


@pytest.mark.parametrize("form", ["gz", "tsv", "semicolons", "latin", "marked"])
def test_a_table_is_read_in_whichever_form_it_comes(tmp_path, form):
    folder = cohort(tmp_path / "t", site_name=["Köln", "Two", "Three"] * 20)
    path = folder / "BRCA" / "clinical.csv"
    text = path.read_text()
    path.unlink()
    name, data = {
        "gz": ("clinical.csv.gz", gzip.compress(text.encode())),
        "tsv": ("clinical.tsv", text.replace(",", "\t").encode()),
        "semicolons": ("clinical.csv", text.replace(",", ";").encode()),
        "latin": ("clinical.csv", text.encode("cp1252")),
        "marked": ("clinical.csv", b"\xef\xbb\xbf" + text.encode()),
    }[form]
    (folder / "BRCA" / name).write_bytes(data)
    read = read_tables(folder).cohorts["BRCA"].clinical
    assert (len(read), set(read["site_name"])) == (60, {"Köln", "Two", "Three"})


def test_two_tables_for_one_thing_and_a_web_page_for_a_table_are_refused_by_name(tmp_path):
    folder = cohort(tmp_path / "t")
    packed = folder / "BRCA" / "mrna.csv.gz"
    packed.write_bytes(gzip.compress((folder / "BRCA" / "mrna.csv").read_bytes()))
    with pytest.raises(InvalidInput, match=r"holds mrna.csv and mrna.csv.gz"):
        read_tables(folder)
    packed.unlink()
    for head, words in ((b"<html>proxy", "HTML page"), (b"version https://git-lfs.x\n", "Git LFS"), (b"", "nothing")):
        (folder / "BRCA" / "mrna.csv").write_bytes(head)
        with pytest.raises(InvalidInput, match=rf"mrna.csv.*{words}"):
            read_tables(folder)


@pytest.mark.parametrize(
    "text", ["\ufeffTP53\nT\n", "TP53\r\nT\r\n", "TP53\nT\nTP53\n\n", "TP53, T", "# genes\nTP53\nT", '"TP53"\n"T"']
)
def test_a_list_of_genes_is_read_with_marks_repeats_and_blank_lines(tmp_path, text):
    path = tmp_path / "genes.txt"
    path.write_text(text)
    assert read_symbols(path) == ["TP53", "T"]
    folder = cohort(tmp_path / "t")
    (folder / "genes_common.txt").write_text(text + "\nNOSUCH\n")
    tables = read_tables(folder)
    assert tables.genes == ("TP53", "T")
    assert any("1 of its 3 genes" in note for note in tables.notes)
    (folder / "genes_common.txt").write_text("NOSUCH\n")
    assert any("none of its 1 genes is measured" in note for note in read_tables(folder).notes)
    with pytest.raises(InvalidInput, match="could not read"):
        read_symbols(tmp_path / "absent.txt")


def test_an_id_stands_once_however_it_is_spelled(tmp_path):
    folder = cohort(tmp_path / "t")
    path = folder / "BRCA" / "mrna.csv"
    change(path, lambda t: pd.concat([t, t.iloc[:1].assign(case_id="tcga aa 0000")]))
    with pytest.raises(InvalidInput, match="every case once"):
        read_table(path)
