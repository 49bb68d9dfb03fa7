"""Whoever reads a folder of tables says what was left out, and what ``min_sites`` costs under shared noise."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas as pd
import pytest
from component.orchestrator.simulation.test_own_tables import hospitals
from support.tables import write_tables
from typer.testing import CliRunner

from datasites.data.ingest import place_dataset
from datasites.data.synthetic import SyntheticShape, generate
from datasites.node.consortium import Consortium
from orchestrator.cli.main import app
from orchestrator.simulation.runs import SimulationRequest, people_of
from privacy.errors import InvalidInput

SHAPE = SyntheticShape(patients={"BRCA": 90, "LUSC": 80, "LIHC": 80}, genes=12, image_features=10, factors=3)
STRAY = "notes: a folder without clinical.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tables beside a folder that is no cohort, with nine ids that join to nobody."""
    tables = tmp_path / "tables"
    write_tables(generate(seed=3, shape=SHAPE), tables)
    (tables / "notes").mkdir()
    path = tables / "BRCA" / "mrna.parquet"
    table = pd.read_parquet(path)
    table["case_id"] = [f"other-{c}" if i < 9 else c for i, c in enumerate(table["case_id"])]
    table.to_parquet(path, index=False)
    return tables


def run(*words: str) -> tuple[dict, str]:
    found = CliRunner().invoke(app, [*words, "--json"])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout.splitlines()[-1]), found.stderr


def complete(lines: list[str]) -> bool:
    return any(STRAY in line for line in lines) and any("ids are cases of the clinical table" in line for line in lines)


def test_simulations_name_what_was_lost_and_the_price_of_shared_noise(folder: Path) -> None:
    words = (
        "simulate",
        "--data",
        str(folder),
        "--rounds",
        "2",
        "--jobs",
        "1",
        "--method",
        "fedavg",
        "--method",
        "local",
    )
    report, said = run(*words, "--epsilon", "8", "--noise", "shared")
    assert complete(report["lost"]) and complete(said.splitlines())
    assert len(report["sums"]) == 1 and "times the noise that is charged" in report["sums"][0]
    assert not any("lost" in one or "sums" in one for one in report["runs"])
    plain, _ = run(*words, "--epsilon", "inf")
    assert plain["sums"] == []
    shown = CliRunner().invoke(app, [*words, "--epsilon", "8", "--noise", "shared"])
    assert "times the noise that is charged" in " ".join(shown.stderr.split())


def test_statistics_of_tables_say_the_same(folder: Path) -> None:
    words = ("analytics", "counts", "--simulate", "--data", str(folder), "--epsilon", "1")
    report, _ = run(*words)
    assert complete(report["said"]) and "times the noise that is charged" in report["said"][-1]
    shown = CliRunner().invoke(app, list(words))
    assert "times the noise that is charged" in shown.stderr and STRAY in shown.stderr


def test_constants_of_tables_say_the_same(folder: Path, tmp_path: Path) -> None:
    report, said = run("constants", "make", str(tmp_path / "c.json"), "--data", str(folder), "--source", "made up")
    assert complete(report["lost"]) and complete(said.splitlines())


def test_a_role_that_deals_tables_logs_it(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    consortium = Consortium.load(Path(__file__).parents[4] / "docker" / "three.toml")
    with caplog.at_level(logging.WARNING):
        place_dataset(consortium, consortium.hospitals[0].name, folder, tmp_path / "datasets")
    assert complete([record.getMessage() for record in caplog.records])


def test_hospitals_own_tables_say_who_was_left_out(tmp_path: Path) -> None:
    made = hospitals(tmp_path / "all")
    path = made / "clinic-1" / "patients.csv"
    table = pd.read_csv(path, dtype=str)
    table.iloc[:5, 1:] = ""
    table.to_csv(path, index=False)
    report, said = run("simulate", "--schema", "heart", "--data", str(made), "--rounds", "1", "--jobs", "1")
    assert any(line.startswith("clinic-1: 5 patients left out") for line in report["lost"])
    assert "clinic-1: 5 patients left out" in said


def test_a_patient_in_two_cohorts_is_refused_before_anything_is_made(folder: Path) -> None:
    path = folder / "LUSC" / "clinical.csv"
    other = pd.read_csv(folder / "LIHC" / "clinical.csv", dtype=str)["case_id"]
    table = pd.read_csv(path, dtype=str)
    table.loc[:3, "case_id"] = other[:4].str.upper().to_numpy()
    table.to_csv(path, index=False)
    request = SimulationRequest(
        data=folder, federation="tri-modal", sites=None, task="early-late", methods=("fedavg",), architecture="linear",
        rounds=2, epsilon=8.0, delta=1e-4, noise="local",
    )  # fmt: skip
    with pytest.raises(InvalidInput, match=r"every patient in one cohort only.*4 rows repeat") as refusal:
        people_of(request, "fedavg", 0)
    assert "\n" not in str(refusal.value) and other[0] not in str(refusal.value)
