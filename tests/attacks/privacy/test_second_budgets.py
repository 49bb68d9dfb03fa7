"""Somebody gets a patient a second line of budget, by another spelling of her id in a dataset placed by hand.

Played: a home whose cohort is published gets a folder with 59 strangers and one known patient, under other capitals,
signs, spaces or width of letters. The ledger knows patients by a keyed hash of the id as it is spelled, so that she
would begin anew there. The same id in both is the honest case: the two datasets share a line.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasites.data.dataset import Part, Schema, write_dataset
from datasites.data.publishing import Datasets
from datasites.node.home import Config, Home
from datasites.review.policy import Policy
from privacy.errors import InvalidInput
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger

SCHEMA = Schema(
    name="cohort", version=1, institution="Alba", cohort="LUSC", cohorts=("LUSC",), task="early-late", classes=2,
    modalities=("mrna",), features={"mrna": ("g1", "g2")}, preprocessing={"mrna": "none"}, source="made up",
)  # fmt: skip


@pytest.fixture
def datasets(tmp_path: Path) -> Iterator[Datasets]:
    config = Config(name="alba", institution="Alba", role="datasite", orchestrator_url="http://127.0.0.1:1")
    home = Home.create(tmp_path / "home", config)
    journal = Journal(tmp_path / "journal.sqlite", home.identity())
    ledger = Ledger(tmp_path / "ledger.sqlite", home.identity())
    yield Datasets(home=home, ledger=ledger, journal=journal, policy=Policy())
    ledger.close()
    journal.close()


def placed(datasets: Datasets, name: str, cases: list[str], *, version: int = 1) -> Path:
    folder = datasets.home.folder / "datasets" / name / f"v{version}"
    values = np.arange(2 * len(cases), dtype=np.float32).reshape(-1, 2) + hash_of(name)
    part = Part(
        cases=tuple(cases), cohorts=("LUSC",) * len(cases), labels=(0,) * len(cases),
        inputs={"mrna": (tuple(cases), values)},
    )  # fmt: skip
    write_dataset(folder, replace(SCHEMA, name=name, version=version), part)
    return folder


def hash_of(name: str) -> float:
    return float(sum(name.encode()))


KNOWN = [f"PAT-{i:03d}" for i in range(60)]
STRANGERS = [f"S{i:03d}" for i in range(59)]


@pytest.mark.parametrize("spelled", ["pat-000", "PAT000", "PAT 000", "Pat_000", "\uff30AT-000"])
@pytest.mark.parametrize("name", ["follow-up", "cohort"])
def test_another_spelling_of_a_known_patient_is_refused_before_anything_is_written(
    datasets: Datasets, name: str, spelled: str
) -> None:
    datasets.publish(placed(datasets, "cohort", KNOWN))
    before = list(datasets.ledger.entries())
    again = placed(datasets, name, [*STRANGERS, spelled], version=2 if name == "cohort" else 1)
    with pytest.raises(InvalidInput, match="another spelling it would begin anew") as refused:
        datasets.publish(again)
    assert spelled not in str(refused.value)
    assert list(datasets.ledger.entries()) == before


def test_the_same_id_in_both_shares_one_line(datasets: Datasets) -> None:
    datasets.publish(placed(datasets, "cohort", KNOWN))
    datasets.publish(placed(datasets, "follow-up", [*STRANGERS, KNOWN[0]]))
    assert datasets.ledger.populations() == ("population-1",)
    assert datasets.ledger.account("population-1").patients == 119


@pytest.mark.parametrize("spelled", ["pat-000", "PAT000", "PAT 000", "Pat_000", "\uff30AT-000"])
def test_another_spelling_shares_the_line_where_the_older_folder_is_off_the_disk(
    datasets: Datasets, spelled: str
) -> None:
    older = placed(datasets, "cohort", KNOWN)
    datasets.publish(older)
    shutil.rmtree(older.parent)
    datasets.publish(placed(datasets, "follow-up", [*STRANGERS, spelled]))
    assert datasets.ledger.populations() == ("population-1",)
    datasets.ledger.verify()


def test_a_dataset_without_spellings_keeps_its_line_and_its_patients(datasets: Datasets) -> None:
    """What older code registered stays as it is, and joins by the ids as they are spelled."""
    ledger = datasets.ledger
    assert ledger.register_dataset("old", 1, ["0" * 32, "1" * 32]) == "population-1"
    assert ledger.register_dataset("old", 1, ["0" * 32, "1" * 32], ["a" * 32, "b" * 32]) == "population-1"
    assert ledger.register_dataset("new", 1, ["0" * 32], ["a" * 32]) == "population-1"
    assert ledger.register_dataset("other", 1, ["2" * 32], ["c" * 32]) == "population-2"
    ledger.verify()
