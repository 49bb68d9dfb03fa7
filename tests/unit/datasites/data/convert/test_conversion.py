"""Readers of GDC, cBioPortal and slide-feature files: what they make is what ingest reads, and leaks nothing."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from support.gdc_server import GENES, case, listing, star_counts

from datasites.data.convert.cbioportal import read_study
from datasites.data.convert.clinical_columns import INPUTS
from datasites.data.convert.conversion import convert, scaled
from datasites.data.convert.gdc import clinical_from_portal, read_gdc, read_star_counts
from datasites.data.convert.slide_features import read_features
from datasites.data.dataset import read_schema
from datasites.data.ingest import ingest
from datasites.data.tcga.leakage import LEAKING
from datasites.data.tcga.preprocessing import clinical_features, clinical_inputs
from datasites.data.tcga.stages import stage_of
from datasites.data.tcga.tables import read_tables
from datasites.data.tcga.variables import VARIABLES
from privacy.errors import InvalidInput

STAGES = ("Stage I", "Stage IIA", "Stage IIIC", "Stage IV", "Stage X")


def gdc_folder(folder: Path, *, cases: int = 20) -> Path:
    """Write what `tessera fetch` leaves."""
    folder.mkdir(parents=True)
    hits = [case(i, STAGES[i % len(STAGES)]) for i in range(cases)]
    (folder / "cases.json").write_text(json.dumps(hits))
    files = []
    for i in range(cases - 2):
        hit = listing(i, b"")
        path = folder / hit["file_id"] / hit["file_name"]
        path.parent.mkdir()
        path.write_bytes(star_counts(i))
        files.append(
            {
                "file_id": hit["file_id"],
                "file_name": hit["file_name"],
                "sample": hit["cases"][0]["samples"][0]["submitter_id"],
            }
        )
    (folder / "files.json").write_text(json.dumps(files))
    return folder


def slide(path: Path, features: np.ndarray, **more: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = features
        for name, values in more.items():
            file[name] = values


def study_folder(folder: Path, *, expression: str = "data_mrna_seq_v2_rsem_zscores_ref_diploid_samples.txt") -> Path:
    """Write a cBioPortal study with the documented headers."""
    folder.mkdir(parents=True)
    (folder / "meta_study.txt").write_text("type_of_cancer: lihc\ncancer_study_identifier: lihc_x\nname: Liver # 1\n")
    columns = [
        "PATIENT_ID",
        "AGE",
        "SEX",
        "RACE",
        "AJCC_PATHOLOGIC_TUMOR_STAGE",
        "PATH_T_STAGE",
        "OS_STATUS",
        "SUBTYPE",
    ]
    lines = ["#" + "\t".join(c.title() for c in columns), "#" + "\t".join(["STRING"] * 8), "#" + "\t".join("1" * 8)]
    lines.append("\t".join(columns))
    for i in range(12):
        stage = STAGES[i % 4].upper()
        lines.append(f"TCGA-DD-A{i:03d}\t{40 + i}\tMale\t[Not Available]\t{stage}\tT2\t1:DECEASED\t#7")
    (folder / "data_clinical_patient.txt").write_text("\n".join(lines) + "\n")
    samples = [f"TCGA-DD-A{i:03d}-{kind}" for i in range(10) for kind in ("01", "11")]
    rows = ["Hugo_Symbol\tEntrez_Gene_Id\t" + "\t".join(samples)]
    for g, gene in enumerate(("TP53", "", "ALB", "ALB")):
        rows.append(f"{gene}\t{g}\t" + "\t".join("NA" if i == 3 else f"{g + i / 10:.2f}" for i in range(len(samples))))
    (folder / expression).write_text("\n".join(rows) + "\n")
    return folder


def test_a_star_counts_file_gives_tpm_of_protein_coding_genes_by_symbol(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes(star_counts(3))
    tpm = read_star_counts(path)
    assert list(tpm.index) == list(GENES)
    assert tpm["TSPAN6"] == 3.5
    assert tpm["TP53"] == 104.5  # two genes of this symbol; the copy on Y does not count
    assert set(read_star_counts(path, genes=["ESR1", "CDH1"]).index) == {"ESR1", "CDH1"}
    assert list(read_star_counts(path, genes=["ESR1", "NOSUCH"]).index) == ["ESR1"]
    path.write_text("gene_id\tother\n")
    with pytest.raises(InvalidInput, match="STAR-counts"):
        read_star_counts(path)


def test_gdc_cases_become_the_clinical_table_of_their_primary_diagnosis(tmp_path):
    [read] = read_gdc(gdc_folder(tmp_path / "TCGA-BRCA"))
    row = read.clinical.table.set_index("case_id").loc["TCGA-BH-A001"]
    assert (row["stage"], row["stage_raw"], row["tss"]) == ("II", "Stage IIA", "BH")
    assert (row["age"], row["sex"], row["histology"]) == ("51", "female", "Infiltrating Ductal Carcinoma")
    assert row["leak_ajcc_pathologic_t"] == "T2"
    assert row["x_tobacco_history"] == "1"
    assert "x_grade" not in read.clinical.table.columns  # not reported of anybody
    assert pd.isna(read.clinical.table.set_index("case_id").loc["TCGA-BH-A004", "stage"])
    assert read.abundance is not None
    assert read.abundance.shape == (18, 4)


def test_no_leaking_column_of_a_source_can_become_an_input():
    assert not LEAKING & {name for names in INPUTS.values() for name in names}
    assert set(INPUTS) <= {v.name for v in VARIABLES}
    columns = ["ajcc_pathologic_stage", *LEAKING, "gender"]
    from datasites.data.convert.clinical_columns import clinical_table

    made = clinical_table(
        pd.DataFrame([["Stage II", *["T2"] * len(LEAKING), "male"]], columns=columns),
        pd.Series(["TCGA-BH-A001"]),
        project="p",
        where="here",
    )
    assert {c for c in made.table.columns if c.startswith("leak_")} == {f"leak_{name}" for name in LEAKING}
    for column in (c for c in made.table.columns if c.startswith(("leak_", "stage"))):
        with pytest.raises(InvalidInput, match="leaks the stage"):
            clinical_features([column])


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        *[("Stage I", "I"), ("STAGE IIA", "II"), ("Stage IIIC1", "III"), ("stage ivb", "IV")],
        *[("Stage X", None), ("Stage 0", None), ("Not Reported", None), ("", None), (None, None), ("late", None)],
    ],
)
def test_stages_are_read_without_their_letters(text, stage):
    assert stage_of(text) == stage


@pytest.mark.parametrize("prefixed", [False, True])
def test_the_portals_clinical_table_is_read_in_its_old_and_new_form(tmp_path, prefixed):
    old = ["case_submitter_id", "project_id", "age_at_index", "gender", "ajcc_pathologic_stage", "treatment_type"]
    new = ["cases.submitter_id", "project.project_id", "demographic.age_at_index", "demographic.gender"]
    new += ["diagnoses.ajcc_pathologic_stage", "treatments.treatment_type"]
    rows = [
        ["TCGA-BH-A001", "TCGA-BRCA", "61", "female", "'--", "Radiation"],
        ["TCGA-BH-A001", "TCGA-BRCA", "61", "female", "Stage IIB", "Surgery"],
        ["TCGA-E2-A002", "TCGA-BRCA", "'--", "female", "Stage I", "Surgery"],
    ]
    lines = ["\t".join(line) for line in (new if prefixed else old, *rows)]
    (tmp_path / "clinical.tsv").write_text("\n".join(lines))
    [(project, clinical)] = clinical_from_portal(tmp_path / "clinical.tsv").items()
    table = clinical.table.set_index("case_id")
    assert project == "TCGA-BRCA"
    assert table["stage"].to_dict() == {"TCGA-BH-A001": "II", "TCGA-E2-A002": "I"}
    assert pd.isna(table.loc["TCGA-E2-A002", "age"])
    assert clinical.left_out == tuple(
        sorted({(new if prefixed else old)[0].split(".")[-1], "project_id", "treatment_type"})
    )


@pytest.mark.parametrize("form", ["sheet", "metadata"])
def test_files_from_the_portal_find_their_case_by_sample_sheet_or_metadata(tmp_path, form):
    source = gdc_folder(tmp_path / "g", cases=6)
    files = json.loads((source / "files.json").read_text())
    (source / "files.json").unlink()
    if form == "sheet":
        head = "File ID\tFile Name\tData Category\tData Type\tProject ID\tCase ID\tSample ID\tSample Type"
        lines = [f"{f['file_id']}\t{f['file_name']}\tT\tG\tTCGA-BRCA\tx\t{f['sample']}\tPrimary Tumor" for f in files]
        (source / "gdc_sample_sheet.2024-01-01.tsv").write_text("\n".join([head, *lines]))
    else:
        entities = [
            {"file_name": f["file_name"], "associated_entities": [{"entity_submitter_id": f["sample"]}]} for f in files
        ]
        (source / "metadata.cart.json").write_text(json.dumps(entities))
    [read] = read_gdc(source)
    assert read.abundance is not None
    assert list(read.abundance.index) == [f"TCGA-BH-A{i:03d}" for i in range(4)]


def test_a_gdc_download_converts_to_tables_that_ingest_accepts(tmp_path):
    for name in ("TCGA-BRCA",):
        gdc_folder(tmp_path / "gdc" / name, cases=60)
    (tmp_path / "genes.txt").write_text("TP53\nESR1\n")
    for i in range(50):
        slide(
            tmp_path / "features_uni_v1" / f"TCGA-BH-A{i:03d}-01Z-00-DX1.{i}.h5",
            np.full((3, 8), i, dtype=np.float32),
            coords=np.zeros((3, 2), dtype=np.int64),
        )
    [made] = convert(
        tmp_path / "gdc",
        tmp_path / "tables",
        kind="gdc",
        genes=tmp_path / "genes.txt",
        features=tmp_path / "features_uni_v1",
    )
    assert made.name == "BRCA"
    tables = read_tables(tmp_path / "tables")
    assert tables.genes == ("TP53", "ESR1")
    assert tables.image_features[0] == "uni_v1:0000"
    plan = ingest(tmp_path / "tables", tmp_path / "out", federation="dirichlet", task="early-late", seed=1, sites=3)
    schema = read_schema(tmp_path / "out" / "sites" / plan.sites[0].name)
    assert schema.feature_counts() == {"mrna": 2, "image": 8, "clinical": schema.feature_counts()["clinical"]}
    assert not any("leak" in f or "stage" in f or "ajcc_pathologic" in f for f in schema.features["clinical"])
    notes = json.loads((tmp_path / "tables" / "conversion.json").read_text())["BRCA"]
    assert "ajcc_pathologic_t" in notes["leaking"]
    assert notes["stages"] == {"I": 12, "II": 12, "III": 12, "IV": 12}


def test_age_and_sex_of_a_converted_table_reach_the_model(tmp_path):
    gdc_folder(tmp_path / "gdc", cases=3)
    convert(tmp_path / "gdc", tmp_path / "tables", kind="gdc")
    clinical = read_tables(tmp_path / "tables").cohorts["BRCA"].clinical
    inputs = clinical_inputs(clinical, ["age", "sex"])
    names = clinical_features(["age", "sex"])
    assert inputs[0, names.index("age:value")] == pytest.approx((50 - 60) / 12)
    assert inputs[0, names.index("sex:female")] == 1.0


def test_a_cbioportal_study_keeps_its_z_scores_and_one_primary_sample_per_patient(tmp_path):
    read = read_study(study_folder(tmp_path / "study"))
    assert (read.cancer, read.z_scores) == ("LIHC", True)
    assert read.expression is not None
    assert list(read.expression.columns) == ["TP53", "ALB"]
    assert list(read.expression.index) == [f"TCGA-DD-A{i:03d}" for i in range(10)]
    assert read.expression.loc["TCGA-DD-A002", "TP53"] == pytest.approx(0.4)
    table = read.clinical.table.set_index("case_id")
    assert table["stage"].iloc[:4].tolist() == ["I", "II", "III", "IV"]
    assert "race" not in table.columns
    assert read.clinical.left_out == ("subtype",)
    assert set(read.clinical.leaking) == {"path_t_stage", "os_status"}


def test_a_study_with_ids_of_its_own_is_joined_by_its_sample_table(tmp_path):
    folder = study_folder(tmp_path / "study")
    for path in folder.glob("data_*"):
        path.write_text(path.read_text().replace("TCGA-DD-A", "P-"))
    kinds = {"01": "Primary", "11": "Normal"}
    samples = [f"P-{i:03d}-{code}\tP-{i:03d}\t{kind}" for i in range(10) for code, kind in kinds.items()]
    heads = ["#a\tb", "SAMPLE_ID\tPATIENT_ID\tSAMPLE_TYPE"]
    (folder / "data_clinical_sample.txt").write_text("\n".join([*heads, *samples]))
    read = read_study(folder)
    assert read.expression is not None
    assert len(read.expression) == 10
    assert set(read.clinical.table["tss"]) == {""}


def test_rsem_of_a_study_is_scaled_and_written(tmp_path):
    folder = study_folder(tmp_path / "study", expression="data_mrna_seq_v2_rsem.txt")
    convert(folder, tmp_path / "tables", kind="cbioportal")
    table = read_tables(tmp_path / "tables").cohorts["LIHC"].modalities["mrna"]
    assert table.loc["TCGA-DD-A002", "TP53"] == pytest.approx((np.log2(1.4) - 3) / 2)


def test_scaling_by_constants_and_by_reference_depends_on_the_record_alone(tmp_path):
    abundance = pd.DataFrame({"A": [1.0, 3.0, 7.0], "B": [0.0, 1.0, 31.0]})
    (tmp_path / "reference.csv").write_text("gene,centre,scale\nB,1.0,2.0\nC,0.0,1.0\n")
    for scaling in ("constants", "reference"):
        whole = scaled(abundance, scaling, tmp_path / "reference.csv")
        alone = scaled(abundance.iloc[1:2], scaling, tmp_path / "reference.csv")
        pd.testing.assert_frame_equal(whole.iloc[1:2], alone)
    assert scaled(abundance, "reference", tmp_path / "reference.csv")["B"].tolist() == [-0.5, 0.0, 2.0]
    cohort = scaled(abundance, "cohort")
    assert np.allclose(cohort.mean(), 0, atol=1e-6)
    with pytest.raises(InvalidInput, match="--reference"):
        scaled(abundance, "reference")
    with pytest.raises(InvalidInput, match="negative"):
        scaled(-abundance, "constants")


def test_slide_features_are_averaged_over_patches_and_slides_of_a_case(tmp_path):
    folder = tmp_path / "features_conch_v15"
    slide(folder / "TCGA-BH-A001-01Z-00-DX1.a.h5", np.array([[1, 2], [3, 4]], dtype=np.float32))
    slide(folder / "TCGA-BH-A001-01Z-00-DX2.b.h5", np.array([[[8, 9]]], dtype=np.float16))
    slide(folder / "TCGA-BH-A002-01Z-00-DX1.c.h5", np.array([5, 6], dtype=np.float32))
    slide(folder / "TCGA-BH-A003-11A-01-TS1.d.h5", np.array([[0, 0]], dtype=np.float32))
    table = read_features(folder)
    assert list(table.columns) == ["conch_v15:0000", "conch_v15:0001"]
    assert table.loc["TCGA-BH-A001"].tolist() == [5.0, 6.0]
    assert table.loc["TCGA-BH-A002"].tolist() == [5.0, 6.0]
    assert len(table) == 2


@pytest.mark.parametrize(
    ("features", "more"),
    [
        (np.zeros((0, 4), dtype=np.float32), {}),
        (np.zeros((2, 3, 4), dtype=np.float32), {}),
        (np.full((2, 4), np.nan, dtype=np.float32), {}),
        (np.zeros((2, 4), dtype=np.int64), {}),
        (np.zeros((1, 9000), dtype=np.float32), {}),
        (np.zeros((2, 4), dtype=np.float32), {"coords": np.zeros((3, 2))}),
    ],
)
def test_slide_features_of_another_form_are_refused(tmp_path, features, more):
    slide(tmp_path / "uni" / "TCGA-BH-A001-01Z-00-DX1.h5", features, **more)
    with pytest.raises(InvalidInput):
        read_features(tmp_path / "uni")


def test_slide_features_join_existing_tables_by_case(tmp_path):
    convert(study_folder(tmp_path / "study"), tmp_path / "tables", kind="cbioportal")
    slide(tmp_path / "uni" / "TCGA-DD-A004-01Z-00-DX1.h5", np.ones((2, 3), dtype=np.float32))
    slide(tmp_path / "uni" / "TCGA-ZZ-A004-01Z-00-DX1.h5", np.ones((2, 3), dtype=np.float32))
    convert(tmp_path / "uni", tmp_path / "joined", kind="features", tables=tmp_path / "tables")
    cohort = read_tables(tmp_path / "joined").cohorts["LIHC"]
    assert list(cohort.modalities["image"].index) == ["TCGA-DD-A004"]
    assert len(cohort.modalities["mrna"]) == 10
    with pytest.raises(InvalidInput, match="--tables"):
        convert(tmp_path / "uni", tmp_path / "x", kind="features")
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_converted_leaves_nothing_behind(tmp_path):
    source = gdc_folder(tmp_path / "gdc", cases=4)
    for broken in ("[1]", "{", json.dumps([{**case(1), "submitter_id": "../../x"}])):
        (source / "cases.json").write_text(broken)
        with pytest.raises(InvalidInput):
            convert(source, tmp_path / "out", kind="gdc")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gdc"]
