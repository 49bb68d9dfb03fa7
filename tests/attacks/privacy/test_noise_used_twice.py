"""Somebody has a hospital draw the same noise for two different sums: their difference carries none.

Played: a home is restored to before a round, and the orchestrator sends a later round's plan again, unchanged, without
the round between. The hospital's own parameters are then older than at first, so its gradients differ, while study,
round, plan and dataset are the same. Also: the same round of another plan, dataset or hospital's secret. A round that
is the same in everything, repeated after a crash, has to draw the same bytes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from datasites.study.messages import RoundPlan
from datasites.study.proposal import Block, Proposal
from datasites.study.streams import worker_stream
from datasites.training.local_parameters import with_own
from datasites.worker.job import TrainingJob, WorkerJob
from datasites.worker.trainer import SandboxedTrainer, trial_plan

SECRET = b"s" * 32
GLOBAL = save({"encoder": np.ones((2, 3), np.float32), "heads.mrna": np.zeros(4, np.float32)})
BLOCKS = (Block(name="mrna", modality="mrna", length=6, parameters=("encoder",)),)


class Seen(Exception):
    """Ends a worker before it begins."""


class Pool:
    """Keeps the job that a worker would get."""

    def __init__(self) -> None:
        self.job: WorkerJob | None = None

    def run(self, job: WorkerJob) -> Any:
        self.job = job
        raise Seen


@pytest.fixture
def study(new_proposal: Any) -> Proposal:
    return new_proposal(blocks=BLOCKS)


def drawn(
    folder: Path, study: Proposal, *, own: float = 0.0, plan: RoundPlan | None = None, secret: bytes = SECRET
) -> np.ndarray:
    """Return the noise that the worker of a round draws, given the hospital's own parameters."""
    pool, site = Pool(), study.participants[0].name
    kept = {"heads.mrna": np.full(4, own, np.float32)}
    begins = plan or trial_plan(study)
    job = TrainingJob(
        proposal=study, plan=begins, model=with_own(study, GLOBAL, kept), dataset=folder, noise_secret=secret
    )
    trainer = SandboxedTrainer(site=site, pool=pool, folder=folder, code_of=lambda _: folder)  # type: ignore[arg-type]
    with pytest.raises(Seen):
        trainer(job)
    assert pool.job is not None
    return worker_stream(study, begins, site, pool.job.seed).gaussian((8,), 1.0)


def test_a_round_repeated_after_a_crash_draws_the_same_bytes(tmp_path: Path, study: Proposal) -> None:
    assert np.array_equal(drawn(tmp_path, study, own=0.25), drawn(tmp_path, study, own=0.25))


def test_a_restored_home_with_older_own_parameters_draws_other_noise(tmp_path: Path, study: Proposal) -> None:
    assert study.seed is None
    assert not np.isclose(drawn(tmp_path, study, own=0.25), drawn(tmp_path, study, own=0.5)).any()


@pytest.mark.parametrize("change", ["model", "weights", "round", "dataset", "secret"])
def test_whatever_else_differs_draws_other_noise(tmp_path: Path, study: Proposal, change: str) -> None:
    first, plan = drawn(tmp_path, study), trial_plan(study)
    site = study.participants[0]
    changed = {
        "model": SimpleNamespace(plan=replace(plan, model_hash="1" * 64)),
        "weights": SimpleNamespace(
            plan=replace(plan, weights={b: dict.fromkeys(w, 0.5) for b, w in plan.weights.items()})
        ),
        "round": SimpleNamespace(plan=replace(plan, round=plan.round + 1)),
    }.get(change, SimpleNamespace(plan=plan))
    if change == "dataset":
        other = replace(site, dataset=replace(site.dataset, fingerprint="9" * 64))
        study = replace(study, participants=(other, *study.participants[1:]))
    again = drawn(tmp_path, study, plan=changed.plan, secret=b"t" * 32 if change == "secret" else SECRET)
    assert not np.isclose(first, again).any()
