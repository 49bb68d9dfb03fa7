"""Downloads as people have them: unfinished, broken, of 2019, without lists; each is read whole, or refused by name."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from support.gdc_server import case, star_counts
from typer.testing import CliRunner

from datasites.data.convert.cbioportal import read_study
from datasites.data.convert.conversion import convert
from datasites.data.convert.gdc import read_gdc
from datasites.data.convert.slide_features import read_features
from datasites.data.tcga.tables import read_tables
from orchestrator.cli.data import app
from privacy.errors import InvalidInput

RUN = CliRunner()


def downloads(folder: Path, *, cases: int = 4, star: str = "x{}.rna_seq.augmented_star_gene_counts.tsv") -> Path:
    """Write what `tessera fetch` leaves: cases, a list of files, and the files."""
    folder.mkdir(parents=True)
    (folder / "cases.json").write_text(json.dumps([case(i) for i in range(cases)]))
    files = []
    for i in range(cases):
        name = star.format(i)
        (folder / f"f{i}").mkdir()
        (folder / f"f{i}" / name).write_bytes(star_counts(i))
        files.append({"file_id": f"f{i}", "file_name": name, "sample": f"TCGA-BH-A{i:03d}-01A"})
    (folder / "files.json").write_text(json.dumps(files))
    return folder


def file(folder: Path, number: int) -> Path:
    return next((folder / f"f{number}").iterdir())


def into_sheet(folder: Path, **columns: list[str]) -> None:
    """Put GDC's sample sheet in the place of our own list."""
    listed = pd.DataFrame(json.loads((folder / "files.json").read_text()))
    (folder / "files.json").unlink()
    sheet = pd.DataFrame(
        {"File ID": listed["file_id"], "File Name": listed["file_name"], "Sample ID": listed["sample"]}
    )
    sheet.assign(**columns).to_csv(folder / "gdc_sample_sheet.2024-05-31.tsv", sep="\t", index=False)


@pytest.mark.parametrize("leave", ["nothing", "a dotted part", "a client's part", "no sample sheet but a manifest"])
def test_an_unfinished_download_is_refused_with_what_is_missing_unless_told_to_go_on(tmp_path, leave):
    folder = downloads(tmp_path / "g")
    path = file(folder, 1)
    body = path.read_bytes()
    path.unlink()
    if leave == "a dotted part":
        path.with_name(f".{path.name}.part").write_bytes(body[:9])
    elif leave == "a client's part":
        path.with_name(f"{path.name}.partial").write_bytes(body[:9])
    elif leave.startswith("no sample"):
        rows = [f"f{i}\t{path.name.replace('x1', f'x{i}')}\t\t\treleased" for i in range(4)]
        (folder / "gdc_manifest.2024.txt").write_text("\n".join(["id\tfilename\tmd5\tsize\tstate", *rows]))
    with pytest.raises(InvalidInput, match=r"1 of the 4 files .* are not there, the first is x1\."):
        read_gdc(folder)
    [read] = read_gdc(folder, partial=True)
    assert read.abundance is not None and len(read.abundance) == 3
    assert any("1 of the 4 files" in note for note in read.notes)


@pytest.mark.parametrize("damage", ["cut", "other bytes"])
def test_a_file_that_differs_from_its_manifest_is_named(tmp_path, damage):
    folder = downloads(tmp_path / "g")
    rows = []
    for i in range(4):
        body = file(folder, i).read_bytes()
        digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
        rows.append(f"f{i}\t{file(folder, i).name}\t{digest}\t{len(body)}\treleased")
    (folder / "MANIFEST.txt").write_text("\n".join(["id\tfilename\tmd5\tsize\tstate", *rows]))
    assert len(read_gdc(folder)[0].abundance) == 4
    path = file(folder, 2)
    path.write_bytes(path.read_bytes()[:-30] if damage == "cut" else path.read_bytes().replace(b"2.5", b"9.5", 1))
    with pytest.raises(InvalidInput, match=r"1 files have another length or MD5 .* x2\."):
        read_gdc(folder)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"<html>proxy says no</html>", "HTML page"),
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b'{"message": "internal server error"}', "JSON"),
        (gzip.compress(b"gene_id\n", mtime=0), "gzip"),
        (b"\0" * 900, "zero bytes"),
        (b"gene_id\tother\n1\t2\n", "other content"),
        (star_counts(2).replace(b"2.5", b"-2.5"), "at least 0"),
    ],
    ids=["html", "empty", "lfs", "json", "gzip", "zeros", "columns", "negative"],
)
def test_one_broken_file_is_named_with_what_it_holds(tmp_path, body, found):
    folder = downloads(tmp_path / "g")
    file(folder, 2).write_bytes(body)
    with pytest.raises(InvalidInput, match=rf"f2/x2\..*{found}"):
        read_gdc(folder)
    [read] = read_gdc(folder, partial=True)
    assert len(read.abundance) == 3
    assert any("f2/x2." in note for note in read.notes)


def test_expression_files_of_nobody_known_are_never_passed_over(tmp_path):
    folder = downloads(tmp_path / "g")
    (folder / "files.json").unlink()
    done = RUN.invoke(app, ["convert", str(folder), str(tmp_path / "out"), "--from", "gdc"])
    assert done.exit_code != 0
    assert "no list says whose 4 expression files are" in str(done.exception)
    assert "gdc_sample_sheet" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_sample_sheet_says_which_samples_are_primary_and_packed_files_are_read(tmp_path):
    folder = downloads(tmp_path / "g", cases=5)
    primary, normal, metastasis, blood = (
        f"TCGA-BH-A00{i}-{kind}A" for i, kind in ((0, "01"), (1, "11"), (2, "06"), (4, "03"))
    )
    into_sheet(folder, **{"Sample ID": [primary, normal, metastasis, f"TCGA-BH-A003-01A, {normal}", blood]})
    path = file(folder, 0)
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    [read] = read_gdc(folder)
    assert list(read.abundance.index) == ["TCGA-BH-A000", "TCGA-BH-A004"]
    assert read.abundance.loc["TCGA-BH-A000", "TSPAN6"] == 0.5
    told = " ".join(read.notes)
    assert "2 files are of no primary tumour" in told and "1 files are of several samples" in told


@pytest.mark.parametrize("case_column", ["submitter_id", "case_submitter_id", "cases.submitter_id"])
@pytest.mark.parametrize("stage_column", ["tumor_stage", "diagnoses.ajcc_pathologic_stage", "ajcc_pathologic_stage"])
def test_clinical_tables_of_every_release_are_read(tmp_path, case_column, stage_column):
    rows = {case_column: [f"TCGA-BH-A{i:03d}" for i in range(4)], "project_id": ["TCGA-BRCA"] * 4}
    rows |= {stage_column: ["stage iia", "Stage I", "IIIC", "not reported"], "gender": ["female"] * 4}
    pd.DataFrame(rows).to_csv(tmp_path / "clinical.tsv", sep="\t", index=False)
    [read] = read_gdc(tmp_path)
    assert read.clinical.table["stage"].tolist()[:3] == ["II", "I", "III"]
    assert pd.isna(read.clinical.table["stage"].iloc[3])


@pytest.mark.parametrize("form", ["tsv", "json"])
def test_two_projects_in_one_download_become_two_cohorts(tmp_path, form):
    folder = downloads(tmp_path / "g")
    hits = json.loads((folder / "cases.json").read_text())
    for hit in hits[2:]:
        hit["project"]["project_id"] = "TCGA-LUSC"
    (folder / "cases.json").write_text(json.dumps(hits))
    if form == "tsv":
        (folder / "cases.json").unlink()
        rows = {"case_submitter_id": [h["submitter_id"] for h in hits], "ajcc_pathologic_stage": ["Stage I"] * 4}
        rows["project_id"] = [h["project"]["project_id"] for h in hits]
        pd.DataFrame(rows).to_csv(folder / "clinical.tsv", sep="\t", index=False)
    made = convert(folder, tmp_path / "out", kind="gdc")
    assert {(c.name, len(c.clinical), len(c.modalities["mrna"])) for c in made} == {("BRCA", 2, 2), ("LUSC", 2, 2)}
    with pytest.raises(InvalidInput, match="several projects"):
        convert(folder, tmp_path / "two", kind="gdc", cohort="ALL")


def test_exposure_and_pathology_tables_fill_what_the_clinical_table_lacks(tmp_path):
    ids = [f"TCGA-BH-A{i:03d}" for i in range(3)]
    clinical = {"case_submitter_id": ids, "project_id": ["TCGA-LUSC"] * 3, "ajcc_pathologic_stage": ["Stage I"] * 3}
    pd.DataFrame(clinical).to_csv(tmp_path / "clinical.tsv", sep="\t", index=False)
    exposure = {
        "case_submitter_id": [ids[0], ids[1], ids[1], "TCGA-BH-A999"],
        "pack_years_smoked": ["40", "1", "2", "9"],
    }
    pd.DataFrame(exposure).to_csv(tmp_path / "exposure.tsv", sep="\t", index=False)
    pathology = {"cases.submitter_id": ids, "pathology_details.lymph_nodes_positive": ["0", "1", "2"]}
    pd.DataFrame(pathology).to_csv(tmp_path / "pathology_detail.tsv", sep="\t", index=False)
    (tmp_path / "follow_up.tsv").write_text("case_submitter_id\n")
    [read] = read_gdc(tmp_path)
    table = read.clinical.table.set_index("case_id")
    assert table["x_pack_years"].fillna("").tolist() == ["40", "", ""]
    assert table["leak_lymph_nodes_positive"].tolist() == ["0", "1", "2"]
    told = " ".join(read.clinical.notes)
    assert "1 values contradict" in told and "1 cases are not in" in told and "follow_up.tsv" in told


def study(folder: Path, samples: dict[str, tuple[str, str]], *, kind: str = "SAMPLE_TYPE", stages=None) -> Path:
    """Write a cBioPortal study of samples, each with its patient and its type."""
    folder.mkdir(parents=True)
    (folder / "meta_study.txt").write_text("type_of_cancer: brca\ncancer_study_identifier: c\n")
    patients = list(dict.fromkeys(patient for patient, _ in samples.values()))
    stages = stages or ["Stage II"] * len(patients)
    rows = [f"{p}\t60\tFemale\t{s}" for p, s in zip(patients, stages, strict=True)]
    (folder / "data_clinical_patient.txt").write_text("\n".join(["#x", "PATIENT_ID\tAGE\tSEX\tTUMOR_STAGE", *rows]))
    rows = [f"{sample}\t{patient}\t{what}" for sample, (patient, what) in samples.items()]
    (folder / "data_clinical_sample.txt").write_text("\n".join(["#x", f"SAMPLE_ID\tPATIENT_ID\t{kind}", *rows]))
    values = "\t".join(str(100 * (i + 1)) for i in range(len(samples)))
    text = f"Hugo_Symbol\tEntrez_Gene_Id\t" + "\t".join(samples) + f"\nTP53\t1\t{values}\nNA\t2\t{values}\n"  # noqa: F541
    (folder / "data_mrna_seq_v2_rsem.txt").write_text(text)
    return folder


@pytest.mark.parametrize("other", ["Metastasis", "Recurrence", "Local Recurrence", "Normal", "Xenograft", "metastatic"])
@pytest.mark.parametrize("own", ["Primary", "Primary Tumor", "primary solid tumor"])
def test_the_sample_type_decides_which_sample_is_a_patients(tmp_path, other, own):
    samples = {"P1-A": ("P1", other), "P1-B": ("P1", own), "P2-A": ("P2", own), "P3-A": ("P3", other)}
    read = read_study(study(tmp_path / "s", samples))
    assert read.expression["TP53"].to_dict() == {"P1": 200, "P2": 300}
    assert read.expression["NA"].to_dict() == {"P1": 200, "P2": 300}  # a symbol is a text
    assert any(f"{other} (2); 1 patients have no other" in note for note in read.notes)


def test_a_barcode_and_a_sample_type_must_not_contradict_each_other(tmp_path):
    samples = {"TCGA-AA-0001-06": ("TCGA-AA-0001", "Primary"), "TCGA-AA-0002-01": ("TCGA-AA-0002", "")}
    read = read_study(study(tmp_path / "s", samples))
    assert list(read.expression.index) == ["TCGA-AA-0002"]


def test_where_nothing_says_which_sample_is_primary_none_is_chosen(tmp_path):
    samples = {"P1-A": ("P1", "x"), "P1-B": ("P1", "x")}
    folder = study(tmp_path / "s", samples, kind="OTHER")
    with pytest.raises(InvalidInput, match="1 patients have several samples"):
        read_study(folder)
    assert len(read_study(folder, partial=True).expression) == 1


def test_samples_that_are_spelled_in_another_way_are_refused_and_packed_files_are_read(tmp_path):
    folder = study(tmp_path / "s", {"P-1": ("P1", "Primary"), "P-2": ("P2", "Primary")})
    path = folder / "data_mrna_seq_v2_rsem.txt"
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    text = path.read_text()
    path.unlink()
    assert len(read_study(folder).expression) == 2
    path.write_text(text.replace("P-1", "P.1"))
    with pytest.raises(InvalidInput, match="1 of its samples are not in the sample table"):
        read_study(folder)
    path.write_text("<html>no</html>")
    with pytest.raises(InvalidInput, match=r"rsem.txt: .*HTML page"):
        read_study(folder)


@pytest.mark.parametrize(
    "words", [["IIA", "I", "IIIC", "IV"], ["2", "1", "3c", "4"], ["stage iia", "STAGE I", "iiic", "iv"]]
)
def test_a_stage_needs_no_word_and_may_stand_with_the_sample(tmp_path, words):
    samples = {f"P{i}-A": (f"P{i}", "Primary") for i in range(4)}
    folder = study(tmp_path / "s", samples, stages=words)
    assert read_study(folder).clinical.table["stage"].tolist() == ["II", "I", "III", "IV"]
    patients = pd.read_csv(folder / "data_clinical_patient.txt", sep="\t", comment="#", dtype=str)
    table = pd.read_csv(folder / "data_clinical_sample.txt", sep="\t", comment="#", dtype=str)
    table.assign(STAGE=patients["TUMOR_STAGE"]).to_csv(folder / "data_clinical_sample.txt", sep="\t", index=False)
    patients.drop(columns="TUMOR_STAGE").to_csv(folder / "data_clinical_patient.txt", sep="\t", index=False)
    assert read_study(folder).clinical.table["stage"].tolist() == ["II", "I", "III", "IV"]
    with pytest.raises(InvalidInput, match=r"4 of 4 stages were not understood: 'unclear' \(4\)"):
        read_study(study(tmp_path / "t", samples, stages=["unclear"] * 4))


def test_a_broken_slide_is_named_and_unfinished_ones_are_counted(tmp_path):
    folder = tmp_path / "uni"
    folder.mkdir()
    for i in range(3):
        with h5py.File(folder / f"TCGA-BH-A00{i}-01Z-00-DX1.h5", "w") as slide:
            slide["features"] = np.ones((2, 4), dtype=np.float32)
    (folder / "TCGA-BH-A001-01Z-00-DX1.h5").write_bytes(b"<html>no</html>")
    with pytest.raises(InvalidInput, match=r"1 slides cannot be used: uni/TCGA-BH-A001.*HTML page"):
        read_features(folder)
    (folder / "TCGA-BH-A004-01Z-00-DX1.h5.partial").write_bytes(b"x")
    (folder / "notes.pt").write_bytes(b"x")
    notes: list[str] = []
    assert len(read_features(folder, partial=True, notes=notes)) == 2
    assert any("unfinished" in note for note in notes) and any(".pt" in note for note in notes)


def test_a_list_of_genes_that_names_one_too_many_keeps_the_others(tmp_path):
    folder = downloads(tmp_path / "g")
    (tmp_path / "genes.txt").write_text("\ufeffTP53\nESR1\nTP53\nNOSUCH\n")
    [made] = convert(folder, tmp_path / "out", kind="gdc", genes=tmp_path / "genes.txt")
    assert set(made.modalities["mrna"].columns) == {"TP53", "ESR1"}
    assert any("1 of the 3 listed genes are in no file, as NOSUCH" in line for line in made.notes["lost"])
    assert set(read_tables(tmp_path / "out").genes) == {"TP53", "ESR1"}
    (tmp_path / "genes.txt").write_text("NOSUCH\n")
    with pytest.raises(InvalidInput, match="none of the 1 listed genes"):
        convert(folder, tmp_path / "no", kind="gdc", genes=tmp_path / "genes.txt")
    with pytest.raises(InvalidInput, match="could not read"):
        convert(folder, tmp_path / "no", kind="gdc", genes=tmp_path / "absent.txt")
