"""The staging benchmark says what it left out, and refuses options that would change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from component.benchmarks.test_unheard_cohorts import benchmark, cohort
from research.summaries import by_key, notes, unscored
from support.benchmarks import run_script


def change(path: Path, edit) -> None:
    edit(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def test_what_was_lost_in_reading_stands_in_the_report_and_on_stderr(tmp_path):
    cohort(tmp_path, "one")
    (tmp_path / "two").mkdir()
    change(
        tmp_path / "one" / "mrna.csv",
        lambda t: t.assign(case_id=[f"other-{c}" if i < 9 else c for i, c in enumerate(t["case_id"])]),
    )
    ended = benchmark(tmp_path, "--methods", "fedavg")
    report = json.loads(ended.stdout)
    assert any("71 of its 80 ids are cases" in line for line in report["lost"])
    assert any(line.startswith("two: a folder without clinical.csv") for line in report["lost"])
    for line in report["lost"]:
        assert f"note: {line}" in ended.stderr


def test_images_under_unknown_names_are_compared_with_ridge_in_pairs(tmp_path):
    cohort(tmp_path, "one", encoder="AREA..")
    words = ("--methods", "fedavg", "--baseline", "ridge")
    plain, unknown = (json.loads(benchmark(tmp_path, *words, *more).stdout) for more in ((), ("--rename",)))
    assert unknown["settings"]["rename"] and not plain["settings"]["rename"]
    assert plain["methods"]["fedavg"]["combinations"] != unknown["methods"]["fedavg"]["combinations"]
    ridge = unknown["methods"]["ridge"]
    asked = unknown["methods"]["fedavg"]["combinations"]["image"]["mean"]
    difference = ridge["combinations_minus_fedavg"]["image"]["mean"]
    assert abs(ridge["combinations"]["image"]["mean"] - asked - difference) < 2e-4


def test_a_patient_in_two_cohorts_is_refused_and_not_named(tmp_path):
    cohort(tmp_path, "one", seed=1)
    cohort(tmp_path, "two", seed=2, patients=40)
    ended = benchmark(tmp_path, "--methods", "fedavg")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "every patient in one cohort only" in ended.stderr and "40 rows repeat" in ended.stderr
    assert "case 1" not in ended.stderr


def test_a_cohort_of_one_class_is_named_as_without_a_score(tmp_path):
    for name in ("a", "b"):
        cohort(tmp_path, name)
    cohort(tmp_path, "c")
    change(tmp_path / "c" / "clinical.csv", lambda t: t.assign(stage=["III"] + ["I"] * 79))
    ended = benchmark(tmp_path, "--methods", "fedavg", "local")
    report = json.loads(ended.stdout)
    assert report["unscored"] == {"c": 1}
    assert "the test patients of c are all of one class in 1 of 1 seeds" in ended.stderr
    for entry in report["methods"].values():
        assert 0 <= entry["auroc"]["mean"] <= 1 and "c" not in entry["auroc_by_cohort"]


def test_a_cohort_that_one_seed_cannot_score_keeps_its_other_seeds():
    runs = [{"auroc_by_cohort": {"a": 0.6}}, {"auroc_by_cohort": {"a": 0.8, "b": 0.7}}]
    found = by_key(runs, "auroc_by_cohort")
    assert found["b"] == {"mean": 0.7, "half_width": 0.0} and found["a"]["mean"] == 0.7
    missed = unscored(runs, ("a", "b"))
    assert missed == {"b": 1}
    said = {"lost": [], "kept_local": [], "unscored": missed, "settings": {"seeds": 2}}
    assert "b are all of one class in 1 of 2 seeds" in notes(said, 3)[0]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--methods", "dgb+pcw", "--noise", "shared", "--epsilon", "8"), "share of the noise"),
        (("--gains", "image"), "MODALITY=FACTOR"),
        (("--gains", "image=0"), "MODALITY=FACTOR"),
        (("--gains", "imag=9"), "no modality called 'imag'"),
        (("--federation", "dirichlet", "--alpha", "0"), "alpha above 0"),
        (("--corrupt", "flipp:x"), "--corrupt flip:SITE,SITE"),
        (("--corrupt", "flip"), "--corrupt flip:SITE,SITE"),
        (("--corrupt", "permute:one-1"), "--corrupt flip:SITE,SITE"),
        (("--model", "convolutional"), "tissue maps"),
    ],
)
def test_options_that_cannot_be_or_change_nothing_are_refused(tmp_path, options, problem):
    cohort(tmp_path, "one", encoder="f")
    ended = benchmark(tmp_path, *(() if "--methods" in options else ("--methods", "fedavg")), *options)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert problem in ended.stderr


def test_the_convolutional_model_without_tables_is_refused():
    ended = run_script("staging.py", "--seeds", "1", "--processes", "1", "--model", "convolutional")
    assert ended.returncode == 2 and "tissue maps" in ended.stderr


def test_under_privacy_the_report_says_the_rounds_that_ran(tmp_path):
    cohort(tmp_path, "one", encoder="f")
    ended = benchmark(tmp_path, "--methods", "fedavg", "--epsilon", "8", "--noise", "shared")
    report = json.loads(ended.stdout)
    assert report["settings"]["rounds"] is None
    assert report["methods"]["fedavg"]["rounds"] == len(report["methods"]["fedavg"]["curve"]) != 3
    assert "--rounds changes nothing" in ended.stderr


def test_shared_noise_exchanges_what_a_live_study_does(tmp_path):
    cohort(tmp_path, "one", encoder="f")
    words = ("--methods", "fedavg", "--federation", "one-modality")
    ended = benchmark(tmp_path, *words, "--epsilon", "8", "--noise", "shared")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["kept_local"] == []
    assert "would exchange nothing" in benchmark(tmp_path, *words, "--epsilon", "8").stderr
