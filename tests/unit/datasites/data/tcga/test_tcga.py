"""Tables, leakage, preprocessing, federations, ingest: on synthetic tables, and on the real ones where present."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.tables import write_tables

from datasites.data.dataset import load, read_schema
from datasites.data.federations import FEDERATIONS, build
from datasites.data.ingest import ingest, variables_of
from datasites.data.synthetic import SyntheticShape, generate
from datasites.data.tcga.preprocessing import clinical_features, clinical_inputs, image_inputs, mrna_inputs
from datasites.data.tcga.tables import labels, read_tables, refuse_leakage
from privacy.errors import InvalidInput

SHAPE = SyntheticShape(patients={"BRCA": 120, "LUSC": 96, "LIHC": 84}, genes=12, image_features=10, factors=3)
REAL = Path(os.environ.get("TESSERA_TCGA", Path(__file__).parents[6] / "shared" / "data" / "tcga"))
real_tables = pytest.mark.skipif(not REAL.is_dir(), reason="needs the TCGA tables (TESSERA_TCGA)")


@pytest.fixture(scope="module")
def tables():
    return generate(seed=3, shape=SHAPE)


@pytest.fixture
def folder(tables, tmp_path):
    write_tables(tables, tmp_path / "tables")
    return tmp_path / "tables"


def test_synthetic_tables_written_and_read_again_are_the_same(tables, folder):
    read = read_tables(folder)
    assert read.genes == tables.genes
    for name, cohort in tables.cohorts.items():
        pd.testing.assert_frame_equal(read.cohorts[name].modalities["image"], cohort.modalities["image"])
        assert labels(read.cohorts[name].clinical, "ordinal") == labels(cohort.clinical, "ordinal")


def test_the_seed_alone_decides_the_synthetic_tables(tables):
    again, other = generate(seed=3, shape=SHAPE), generate(seed=4, shape=SHAPE)
    pd.testing.assert_frame_equal(again.cohorts["LUSC"].clinical, tables.cohorts["LUSC"].clinical)
    assert not other.cohorts["LUSC"].modalities["mrna"].equals(tables.cohorts["LUSC"].modalities["mrna"])


@pytest.mark.parametrize("name", FEDERATIONS)
@pytest.mark.parametrize("task", ["I-II", "early-late", "ordinal"])
def test_no_case_is_at_two_sites_or_both_trained_and_tested_on(tables, name, task):
    federation = build(name, tables, task=task, seed=1, minimum_cases=8)
    placed = [case for site in federation.sites for case in site.cases] + list(federation.test)
    assert len(placed) == len(set(placed))
    labelled = sum(len(labels(c.clinical, task)) for c in tables.cohorts.values())
    assert len(federation.test) == pytest.approx(labelled / 4, abs=6)
    assert federation.test == build("tri-modal", tables, task=task, seed=1).test


def test_the_test_quarter_is_stratified_by_stage(tables):
    federation = build("tri-modal", tables, task="early-late", seed=1)
    for cohort in tables.cohorts.values():
        label = labels(cohort.clinical, "early-late")
        late = [case for case in label if label[case] == 1]
        assert sum(case in set(federation.test) for case in late) == round(len(late) / 4)


def test_the_site_held_out_split_keeps_every_tissue_source_site_on_one_side(tables):
    federation = build("tri-modal", tables, task="early-late", seed=1, split="site-held-out")
    source = {case: str(c.clinical.loc[case, "tss"]) for c in tables.cohorts.values() for case in c.clinical.index}
    trained = {source[case] for site in federation.sites for case in site.cases}
    tested = {source[case] for case in federation.test}
    assert tested and not trained & tested
    real = build("tissue-source-sites", tables, task="early-late", seed=1, split="site-held-out", minimum_cases=2)
    codes = {site.name.rpartition("-")[2].upper() for site in real.sites}
    assert codes and not codes & {source[case] for case in real.test}
    with pytest.raises(InvalidInput, match="unknown split"):
        build("tri-modal", tables, task="early-late", seed=1, split="random")


def test_the_tri_modal_preset_is_the_papers(tables):
    sites = build("tri-modal", tables, task="I-II", seed=0).sites
    letters = {"mrna": "M", "image": "I", "clinical": "C"}
    assert ["".join(letters[m] for m in s.modalities) for s in sites] == [
        "MIC", "MI", "M", "MIC", "IC", "I", "MIC", "MC", "C",
    ]  # fmt: skip


def test_a_modality_that_few_hospitals_would_hold_is_dealt_to_all_of_its_cohort(tables):
    """The patterns are made for three cohorts with all modalities: here one alone has images."""
    first = next(iter(tables.cohorts.values()))
    without = {name: replace(c, modalities={"mrna": c.modalities["mrna"]}) for name, c in tables.cohorts.items()}
    sparse = replace(tables, cohorts={**without, first.name: first})
    for name in ("tri-modal", "bi-modal"):
        assert build(name, tables, task="early-late", seed=0).holders("image") >= 3
        dealt = build(name, sparse, task="early-late", seed=0)
        assert dealt.holders("image") == 3
        assert dealt.holders("clinical") == (0 if name == "bi-modal" else 6)


def test_the_presets_over_tcga_give_nobody_more_than_their_patterns_say(tables):
    """BRCA and LUSC have images, LIHC has none: no modality has fewer than three holders, and nothing is added."""
    named = {name: tables.cohorts[name] for name in ("BRCA", "LUSC", "LIHC")}
    liver = replace(named["LIHC"], modalities={"mrna": named["LIHC"].modalities["mrna"]})
    sites = build("tri-modal", replace(tables, cohorts={**named, "LIHC": liver}), task="early-late", seed=0).sites
    letters = {"mrna": "M", "image": "I", "clinical": "C"}
    assert ["".join(letters[m] for m in s.modalities) for s in sites] == [
        "MIC", "MI", "M", "MIC", "IC", "I", "MC", "MC", "C",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_fewer_sites_still_share_every_case_and_hold_each_modality_three_times(tables, count):
    federation = build("tri-modal", tables, task="early-late", seed=0, sites=count)
    assert len(federation.sites) == count
    assert min(federation.holders(m) for m in ("mrna", "image", "clinical")) >= 3
    first_three = build("tri-modal", tables, task="early-late", seed=0, sites=3)
    assert first_three.test == federation.test


def test_cea_is_an_input_where_a_cohort_has_it_and_changes_no_other_vector(tables, folder, tmp_path):
    usual = variables_of(read_tables(folder))
    assert "x_cea" not in usual and {"histology", "x_grade"} <= set(usual)
    path = folder / "LIHC" / "clinical.csv"
    clinical = pd.read_csv(path, dtype=str)
    clinical["x_cea"] = ["2.5", "2.5 ug/L", "n/a", *["120"] * (len(clinical) - 3)]
    clinical.to_csv(path, index=False)
    read = read_tables(folder)
    assert variables_of(read) == (*usual, "x_cea")
    assert clinical_features(variables_of(read))[:-2] == clinical_features(usual)
    rows = clinical_inputs(read.cohorts["LIHC"].clinical.loc[clinical["case_id"]], ["x_cea"])
    np.testing.assert_allclose(rows[0, 0], (np.log1p(2.5) - 1.2) / 1.0, rtol=1e-5)
    assert rows[1, 0] == rows[0, 0] and list(rows[:3, 1]) == [0.0, 0.0, 1.0]
    assert not clinical_inputs(read.cohorts["BRCA"].clinical, ["x_cea"]).any()
    ingest(folder, tmp_path / "out", federation="upper-bound", task="early-late", seed=1)
    assert read_schema(tmp_path / "out" / "test").features["clinical"][-2:] == tuple(clinical_features(["x_cea"]))


def test_the_same_seed_gives_the_same_federation_and_another_seed_another(tables):
    one = build("dirichlet", tables, task="I-II", seed=5)
    assert one == build("dirichlet", tables, task="I-II", seed=5)
    assert one.test != build("dirichlet", tables, task="I-II", seed=6).test


@pytest.mark.parametrize(
    ("name", "more", "says"),
    [
        ("quadri-modal", {}, "unknown federation"),
        ("tri-modal", {"sites": 2}, "at least 3 sites"),
        ("tri-modal", {"sites": 10}, "at most 9"),
        ("tri-modal", {"task": "grade"}, "unknown task"),
        ("tri-modal", {"test_fraction": 1.0}, "test fraction"),
        ("tissue-source-sites", {"minimum_cases": 5000}, "give 0 sites"),
        ("dirichlet", {"sites": 250}, "no labelled cases"),
    ],
)
def test_impossible_federations_are_refused_with_one_clear_line(tables, name, more, says):
    with pytest.raises(InvalidInput, match=says) as refusal:
        build(name, tables, **{"task": "I-II", "seed": 0, **more})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("column", ["leak_t", "stage_idx", "has_mrna", "Stage"])
def test_columns_that_leak_the_stage_are_refused_everywhere(column):
    with pytest.raises(InvalidInput, match="leak"):
        refuse_leakage([column], where="x")
    with pytest.raises(InvalidInput, match="leak"):
        clinical_features(["age", column])
    table = pd.DataFrame({column: [1.0]})
    with pytest.raises(InvalidInput, match="leak"):
        mrna_inputs(table, [column], where="x")


def test_clinical_variables_are_encoded_by_public_constants():
    table = pd.DataFrame(
        {
            "age": [60.0, 84.0, np.nan],
            "sex": ["male", "Female", None],
            "x_risk_factor": ["alcohol; hepatitis b", "", "?"],
        }
    )
    columns = ["age", "sex", "x_risk_factor", "x_grade"]
    values = pd.DataFrame(clinical_inputs(table, columns), columns=clinical_features(columns))
    assert values["age:value"].tolist() == [0.0, 2.0, 0.0]
    assert values["age:missing"].tolist() == [0.0, 0.0, 1.0]
    assert values["sex:male"].tolist() == [1.0, 0.0, 0.0]
    assert values[["x_risk_factor:alcohol", "x_risk_factor:hepatitis-b"]].to_numpy()[0].tolist() == [1.0, 1.0]
    assert values["x_risk_factor:missing"].tolist() == [0.0, 1.0, 1.0]
    assert not values.filter(like="x_grade").to_numpy().any()  # a column this cohort lacks


def test_a_records_inputs_do_not_depend_on_other_records(tables):
    cohort = tables.cohorts["BRCA"]
    image, mrna = cohort.modalities["image"], cohort.modalities["mrna"]
    for table, inputs in ((image, image_inputs), (mrna, mrna_inputs)):
        names = list(table.columns)
        together, alone = inputs(table, names, where="x")[7], inputs(table.iloc[[7]], names, where="x")[0]
        np.testing.assert_array_equal(together, alone)


def test_rows_are_joined_by_case_id_and_not_by_order(folder, tmp_path):
    first = tmp_path / "first"
    ingest(folder, first, federation="tri-modal", task="early-late", seed=2)
    path = folder / "BRCA" / "mrna.parquet"
    pd.read_parquet(path).iloc[::-1].to_parquet(path, index=False)
    shuffled = folder / "BRCA" / "clinical.csv"
    pd.read_csv(shuffled, dtype=str).sample(frac=1, random_state=0).to_csv(shuffled, index=False)
    second = tmp_path / "second"
    ingest(folder, second, federation="tri-modal", task="early-late", seed=2)
    for part in ("sites/brca-1/private", "test/private"):
        schema = read_schema((first / part).parent)
        a, b = load(first / part, schema), load(second / part, schema)
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def break_tables(folder, kind):
    path = folder / "BRCA" / "mrna.parquet"
    table = pd.read_parquet(path)
    if kind == "no case_id":
        table = table.rename(columns={"case_id": "patient"})
    elif kind == "non-numeric gene":
        table["GENE003"] = "high"
    elif kind == "duplicate cases":
        table = pd.concat([table, table.iloc[:2]])
    elif kind == "missing clinical":
        shutil.rmtree(folder)
        folder.mkdir()
    elif kind == "leaking gene":
        for cohort in ("BRCA", "LUSC", "LIHC"):
            other = pd.read_parquet(folder / cohort / "mrna.parquet")
            other.assign(leak_t=1.0).to_parquet(folder / cohort / "mrna.parquet", index=False)
        return
    elif kind == "not a table":
        path.write_bytes(b"not parquet")
        return
    if folder.joinpath("BRCA").exists():
        table.to_parquet(path, index=False)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("no case_id", "case_id"),
        ("non-numeric gene", "GENE003"),
        ("duplicate cases", "every case once"),
        ("missing clinical", "clinical.csv"),
        ("leaking gene", "leak_t"),
        ("not a table", "could not read"),
    ],
)
def test_bad_tables_give_one_clear_error_and_leave_nothing_behind(folder, tmp_path, kind, says):
    break_tables(folder, kind)
    out = tmp_path / "made" / "out"
    with pytest.raises(InvalidInput, match=says) as refusal:
        ingest(folder, out, federation="tri-modal", task="early-late", seed=2)
    assert "\n" not in str(refusal.value)
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_ingest_never_overwrites(folder, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInput, match="exists"):
        ingest(folder, tmp_path / "out", federation="tri-modal", task="early-late", seed=2)


@real_tables
@pytest.mark.tcga
def test_the_real_tables_give_the_papers_nine_institutions(tmp_path):
    federation = ingest(REAL, tmp_path / "out", federation="tri-modal", task="early-late", seed=1)
    assert [len(s.modalities) for s in federation.sites] == [3, 2, 1, 3, 2, 1, 2, 2, 1]  # no images of LIHC
    assert {m: federation.holders(m) for m in ("mrna", "image", "clinical")} == {"mrna": 6, "image": 5, "clinical": 6}
    schema = read_schema(tmp_path / "out" / "test")
    batch = load(tmp_path / "out" / "test" / "private", schema)
    assert schema.feature_counts() == {"mrna": 1544, "image": 607, "clinical": 129}
    assert len(batch["label"]) == len(federation.test) == 480
    assert max(float(np.abs(batch[m]).max()) for m in schema.features) < 15
    assert not any(name.startswith(("leak_", "stage", "has_")) for names in schema.features.values() for name in names)
