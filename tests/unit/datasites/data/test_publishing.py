"""What is published of a dataset: one count with one noise for each set of patients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from datasites.data.dataset import Part, Schema, write_dataset
from datasites.data.publishing import Datasets
from datasites.node.home import Config, Home
from datasites.review.policy import Policy
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger

SCHEMA = Schema(
    name="staging",
    version=1,
    institution="Alba",
    cohort="LUSC",
    cohorts=("LUSC",),
    task="I-II",
    classes=2,
    modalities=("clinical",),
    features={"clinical": ("age",)},
    preprocessing={"clinical": "none"},
    source="test",
)


def part(cases: int, value: float) -> Part:
    names = tuple(f"P{i:03d}" for i in range(cases))
    inputs = {"clinical": (names, np.full((cases, 1), value, np.float32))}
    return Part(cases=names, cohorts=("LUSC",) * cases, labels=(0,) * cases, inputs=inputs)


def count(home: Home, folder: Path, cases: int, value: float) -> int:
    """Publish a fresh copy of the dataset from a fresh ledger and return the released count."""
    write_dataset(folder / "data", SCHEMA, part(cases, value))
    journal, ledger = (
        Journal(folder / "journal.sqlite", home.identity()),
        Ledger(folder / "ledger.sqlite", home.identity()),
    )
    datasets = Datasets(home=home, ledger=ledger, journal=journal, policy=Policy())
    card = json.loads((datasets.publish(folder / "data") / "card.json").read_bytes())
    ledger.close()
    journal.close()
    return int(card["dataset"]["patients"])


def test_the_count_keeps_its_one_noise_when_a_value_is_corrected_and_takes_another_for_other_patients(
    tmp_path: Path,
) -> None:
    config = Config(name="alba", institution="Alba", role="datasite", orchestrator_url="http://127.0.0.1:1")
    home = Home.create(tmp_path / "home", config)
    folders = [tmp_path / str(i) for i in range(12)]
    for folder in folders:
        folder.mkdir()
    assert count(home, folders[0], 60, 1.0) == count(home, folders[1], 60, 2.0)
    noises = {count(home, folder, 60 + i, 1.0) - (60 + i) for i, folder in enumerate(folders[2:])}
    assert len(noises) > 3
