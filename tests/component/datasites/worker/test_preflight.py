"""The try before a charge, in the sandbox of the real round: what fails whatever the records are fails here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasites.data.dataset import Part, Schema, write_dataset
from datasites.review.policy import SandboxPolicy
from datasites.study.proposal import Block
from datasites.worker import child
from datasites.worker.job import OTHER_BITS, TrainingJob
from datasites.worker.pool import WorkerPool
from datasites.worker.preflight import Preflight
from datasites.worker.trainer import SandboxedTrainer, trial_plan
from models.build import build_model
from models.config import ModelConfig
from models.parameters import blocks, to_bytes
from privacy.errors import Refused

FEATURES = {"mrna": 6, "clinical": 3}
CONFIG = ModelConfig(architecture="linear", features=FEATURES, cohorts=("LUSC",), classes=2)
FAILING = b"def build_model(config, seed):\n    raise OSError('gone')\ndef record_loss(model, batch):\n    pass\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preflight")
    modalities = tuple(FEATURES)
    schema = Schema(
        name="lung",
        version=1,
        institution="alba",
        cohort="LUSC",
        cohorts=("LUSC",),
        task="early-late",
        classes=2,
        modalities=modalities,
        features={m: tuple(f"{m}{i}" for i in range(n)) for m, n in FEATURES.items()},
        preprocessing={},
        source="synthetic",
    )
    cases = tuple(f"CASE-{i:03d}" for i in range(24))
    inputs = {m: (cases, np.ones((24, n), np.float32)) for m, n in FEATURES.items()}
    labels = tuple(i % 2 for i in range(24))
    write_dataset(
        folder / "datasets/lung/v1", schema, Part(cases=cases, cohorts=("LUSC",) * 24, labels=labels, inputs=inputs)
    )
    return folder


@pytest.fixture(scope="module")
def pool(warm_here: None, home: Path) -> Iterator[WorkerPool]:
    with WorkerPool(SandboxPolicy(time_seconds=60), hidden=(home,)) as made:
        yield made


@pytest.fixture
def job(home: Path, new_proposal: Any) -> TrainingJob:
    model = build_model(CONFIG, seed=0)
    found = tuple(
        Block(name=name, modality=modality, length=length, parameters=tuple(names))
        for name, modality, names, length in blocks(model, CONFIG)
    )
    proposal = new_proposal(model=CONFIG, blocks=found)
    return TrainingJob(
        proposal=proposal,
        plan=trial_plan(proposal),
        model=to_bytes(model),
        dataset=home / "datasets/lung/v1",
        noise_secret=bytes(32),
    )


class Site:
    """A trainer with its preflight, and what it noted about failures."""

    def __init__(self, pool: WorkerPool, home: Path) -> None:
        self.failures: list[str] = []
        trainer = SandboxedTrainer(
            site="alba",
            pool=pool,
            folder=home / "scratch",
            code_of=lambda _: home / "code",
            failed=lambda outcome, _: self.failures.append(outcome.status),
        )
        self.preflight, self.train = Preflight(trainer=trainer), trainer


@pytest.fixture
def site(pool: WorkerPool, home: Path) -> Site:
    return Site(pool, home)


def test_a_round_that_can_run_passes_and_its_mock_round_runs_once(
    site: Site, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.preflight(job)
    monkeypatch.setattr(SandboxedTrainer, "try_round", lambda *_: "it ran again")
    site.preflight(job)
    assert site.failures == []
    site.preflight.passed.clear()  # as after a worker that failed
    with pytest.raises(Refused, match="it ran again"):
        site.preflight(job)


def test_a_relative_folder_and_one_behind_a_link_reach_the_worker(
    site: Site, job: TrainingJob, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home.parent)
    site.preflight(replace(job, dataset=Path(home.name, "datasets/lung/v1")))
    (home / "elsewhere").symlink_to(home / "datasets")
    site.preflight.passed.clear()
    site.preflight(replace(job, dataset=home / "elsewhere/lung/v1"))
    result = site.train(replace(job, dataset=Path(home.name, "elsewhere/lung/v1")))
    assert result is not None and site.failures == []


@pytest.mark.parametrize("gone", ["private", "mock", "schema.json"])
def test_a_part_of_the_dataset_that_is_gone_is_found(site: Site, job: TrainingJob, tmp_path: Path, gone: str) -> None:
    copy = tmp_path / "v1"
    shutil.copytree(job.dataset, copy)
    shutil.rmtree(copy / gone) if (copy / gone).is_dir() else (copy / gone).unlink()
    with pytest.raises(Refused, match="nothing was charged"):
        site.preflight(replace(job, dataset=copy))
    assert site.failures


@pytest.mark.skipif(os.getuid() != 0, reason="the role's own user reads its files; only root has rights to lose")
def test_a_private_file_that_only_roots_rights_open_is_found(site: Site, job: TrainingJob, tmp_path: Path) -> None:
    copy = tmp_path / "v1"
    shutil.copytree(job.dataset, copy)
    for file in (copy / "private").iterdir():
        file.chmod(0o000)
        os.chown(file, 12345, 12345)
    with pytest.raises(Refused, match="cannot open the files"):
        site.preflight(replace(job, dataset=copy))


def test_a_machine_that_gives_other_bits_is_found_and_named(
    site: Site, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker looks before it trains on made-up records; its word reaches the hospital's people."""
    real, asked = SandboxedTrainer._told, []

    def told(trainer: SandboxedTrainer, outcome: Any, what: str) -> str:
        asked.append(what)
        if "made-up" in what:
            outcome.log.write_text(f"privacy.errors.Refused: {OTHER_BITS}")
            return what
        return real(trainer, outcome, what)

    monkeypatch.setattr(SandboxedTrainer, "_told", told)
    with pytest.raises(Refused, match="a record gives other bits by who stands beside it"):
        site.preflight(job)
    assert len(asked) == 2


def test_a_plan_that_crashes_whatever_the_records_is_found(site: Site, job: TrainingJob, home: Path) -> None:
    (home / "code").mkdir(exist_ok=True)
    (home / "code/plan.py").write_bytes(FAILING)
    plan = replace(job.proposal.plan, kind="python")
    proposal = replace(job.proposal, plan=plan)
    with pytest.raises(Refused, match="made-up records fails too"):
        site.preflight(replace(job, proposal=proposal, plan=trial_plan(proposal)))
    assert site.failures == ["failed"]


def test_opening_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"a record")
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("it was read"))
    child.open_files([str(tmp_path), str(tmp_path / "file")])
    with pytest.raises(FileNotFoundError):
        child.open_files([str(tmp_path / "other")])
