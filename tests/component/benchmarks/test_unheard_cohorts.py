"""The staging benchmark on folders of cohorts that nobody prepared it for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.benchmarks import run_script

STAGES = np.array(["I", "II", "III", "IV", ""])


def cohort(folder: Path, name: str, *, encoder: str = "", genes: int = 6, patients: int = 80, seed: int = 0) -> None:
    """Write one cohort: ``encoder`` names its slide features (none without), whose scales differ a thousandfold."""
    stream = np.random.default_rng([seed, patients, len(name)])
    stage = stream.choice(5, size=patients, p=[0.3, 0.3, 0.25, 0.1, 0.05])
    cases = [f"case {i}" for i in range(patients)] if seed else [f"{name}-{i}" for i in range(patients)]
    place = folder / name
    place.mkdir(parents=True)
    clinical = {"case_id": cases, "tss": stream.choice(["01", "B"], size=patients), "stage": STAGES[stage]}
    pd.DataFrame(clinical).to_csv(place / "clinical.csv", index=False)
    if genes:
        values = stream.normal(size=(patients, genes)) + 0.8 * (stage[:, None] % 4) * (np.arange(genes) % 2)
        table = pd.DataFrame(values, columns=[f"gene {g}" for g in range(genes)])
        table.insert(0, "case_id", cases)
        table.to_csv(place / "mrna.csv", index=False)
    if encoder:
        values = stream.normal(size=(patients, 8)) + 0.8 * (stage[:, None] % 4)
        table = pd.DataFrame(1e3 ** (np.arange(8) / 7) * (5 + values), columns=[f"{encoder}{i}" for i in range(8)])
        table.insert(0, "case_id", cases)
        table[stream.uniform(size=patients) > 0.2].to_parquet(place / "image_features.parquet", index=False)


def odd(folder: Path, kind: str) -> None:
    if kind == "one cohort":
        cohort(folder, "Nephroblastoma, children (2019)", encoder="f")
    elif kind == "encoder of each":
        cohort(folder, "kidney", encoder="uni:")
        cohort(folder, "Блок 7", encoder="ctrans:", genes=9)
        cohort(folder, "x", patients=50)
    elif kind == "no images":
        cohort(folder, "a")
        cohort(folder, "b", patients=40)
        (folder / "genes_common.txt").write_text("TP53\nKRAS\n")  # of other tables: none of these genes is there
    else:
        cohort(folder, "clinical only", genes=0)
        cohort(folder, "tiny", genes=0, encoder="f", patients=24)
        cohort(folder, "third", genes=0, encoder="f")


def benchmark(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = ["--data", str(folder), "--json", "--seeds", "1", "--rounds", "3", "--processes", "1"]
    return run_script("staging.py", *words, *arguments)


@pytest.mark.parametrize("kind", ["one cohort", "encoder of each", "no images", "sparse"])
def test_any_folder_of_cohorts_runs_beside_scikit_learn(tmp_path, kind):
    odd(tmp_path, kind)
    privacy = ("--epsilon", "8", "--noise", "shared") if kind == "one cohort" else ()
    ended = benchmark(tmp_path, "--methods", "fedavg", "--baseline", "ridge", "hgb", *privacy)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(report["methods"]) == {"fedavg", "ridge", "hgb"}
    for entry in report["methods"].values():
        assert set(entry["combinations"]) == set(report["methods"]["fedavg"]["combinations"])
        assert 0.0 <= entry["auroc"]["mean"] <= 1.0
    assert report["kept_local"] == []
    if kind == "encoder of each":
        images = report["methods"]["fedavg"]["combinations"]["image"]["mean"]
        assert images > 0.75  # of scales a thousandfold apart, none known by name


def test_hospitals_that_would_exchange_nothing_are_told_so(tmp_path):
    odd(tmp_path, "one cohort")
    ended = benchmark(tmp_path, "--methods", "fedavg", "--federation", "one-modality")
    assert ended.returncode == 2
    assert "they would exchange nothing" in ended.stderr
    assert "Traceback" not in ended.stderr
