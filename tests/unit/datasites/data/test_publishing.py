"""What is published of a dataset: one count with one noise for each set of patients."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasites.data.dataset import Part, Schema, write_dataset
from datasites.data.publishing import Datasets
from datasites.node.home import Config, Home
from datasites.review.policy import Policy
from privacy.errors import InvalidInput
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


def forget_cards(home: Home) -> None:
    shutil.rmtree(home.folder / "published", ignore_errors=True)


def count(home: Home, folder: Path, cases: int, value: float) -> int:
    """Publish a fresh copy of the dataset from a fresh ledger and return the released count."""
    forget_cards(home)
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


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[tuple[Datasets, Path]]:
    config = Config(name="alba", institution="Alba", role="datasite", orchestrator_url="http://127.0.0.1:1")
    home = Home.create(tmp_path / "home", config)
    journal, ledger = (
        Journal(tmp_path / "journal.sqlite", home.identity()),
        Ledger(tmp_path / "ledger.sqlite", home.identity()),
    )
    yield Datasets(home=home, ledger=ledger, journal=journal, policy=Policy()), tmp_path
    ledger.close()
    journal.close()


def test_other_content_under_a_published_version_is_refused_and_its_fingerprint_stays(
    desk: tuple[Datasets, Path],
) -> None:
    """A fingerprint that changes by itself would tell everybody, at no charge, that the data changed."""
    datasets, folder = desk
    write_dataset(folder / "one", SCHEMA, part(60, 1.0))
    write_dataset(folder / "two", SCHEMA, part(60, 2.0))
    published = datasets.publish(folder / "one")
    card = (published / "card.json").read_bytes()
    assert datasets.publish(folder / "one") == published
    with pytest.raises(InvalidInput, match="next version"):
        datasets.publish(folder / "two")
    assert (published / "card.json").read_bytes() == card


@pytest.mark.parametrize("second", ["P000", "p-000", " p000 ", "\uff30000"])
def test_a_patient_twice_in_a_placed_folder_is_refused_before_anything_is_charged(
    desk: tuple[Datasets, Path], second: str
) -> None:
    datasets, folder = desk
    write_dataset(folder / "data", SCHEMA, part(60, 1.0))
    records = pd.read_parquet(folder / "data" / "private" / "records.parquet")
    copy = records.iloc[:1].assign(case_id=second)
    pd.concat([records, copy]).to_parquet(folder / "data" / "private" / "records.parquet", index=False)
    with pytest.raises(InvalidInput, match="repeat a case id") as refused:
        datasets.publish(folder / "data")
    assert "P000" not in str(refused.value)
    assert not datasets.ledger.populations()
