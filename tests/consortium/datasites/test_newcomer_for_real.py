"""A newcomer's three commands as a newcomer types them: a table and a dictionary become a dataset that others see."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from support.hospital_tables import heart_rows, write_table

import tessera
from datasites.data.dataset import read_schema
from datasites.node.home import Home, address
from orchestrator.demo.consortium import Homes, prepare
from orchestrator.demo.processes import Processes

DICTIONARY = """column,label,unit,low,high,levels,role
patient_id,number of the patient,,,,,patient
age,age at examination,years,18,110,,
sex,sex,,,,"0, female | 1, male",
cp,chest pain,,,,"1, typical | 2, atypical | 3, non-anginal | 4, none",
trestbps,resting blood pressure,mmHg,60,260,,
chol,cholesterol,mg/dL,80,700,,
disease,narrowed vessel,,,,"0, no | 1, yes",outcome
"""


def typed(*arguments: object) -> str:
    command = [sys.executable, "-m", "orchestrator.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_three_commands_lead_from_a_table_and_its_dictionary_to_a_dataset_that_others_see(tmp_path: Path) -> None:
    homes = Homes.make(
        tmp_path, prepare(None, tmp_path, federation="tri-modal", task="early-late", sites=3, seed=0), 8.0, helpers=0
    )
    site, home = next(iter(homes.hospitals.items()))
    shutil.rmtree(home.folder / "datasets")
    table, schema = write_table(tmp_path / "patients.csv", heart_rows(300)), tmp_path / "study.toml"
    (tmp_path / "dictionary.csv").write_text(DICTIONARY)
    with Processes(logs=tmp_path / "logs") as processes:
        place = homes.orchestrator.folder
        processes.start("orchestrator", ["orchestrator", "run", "--home", str(place)])
        processes.wait_until_ready([place], 120)
        Home.create(home.folder, replace(home.config(), orchestrator_url=address(place)))

        typed("schema", "init", table, "--dictionary", tmp_path / "dictionary.csv", "--name", "chest", "--out", schema)
        read = typed("datasite", "ingest", table, "--schema", schema, "--home", home.folder, "--json")
        processes.start(site, ["datasite", "run", "--home", str(home.folder)])

        assert json.loads(read.splitlines()[-1])["patients"] == 300
        processes.wait_until_ready([home.folder], 180)
        found = tessera.connect(place).dataset(site)
    assert found.name == f"{site}-chest" and found.study_schema is not None
    assert found.study_schema.modalities[0].names == ("age", "sex", "cp", "trestbps", "chol")
    assert abs(found.card.dataset.patients - 300) < 60 and found.schema.mock == ""
    sexes = found.mock("clinical")[["sex:female", "sex:male"]]
    assert len(sexes) == 48 and (sexes.sum(axis=1) <= 1).all()
    assert read_schema(home.folder / "datasets" / f"{site}-chest" / "v1").features == found.schema.features
