"""Between the round and the sandboxed worker: prepares a job's folder, checks the result, tidies up.

A result is whatever foreign code wrote: it is read as safetensors, and names, shapes, types and numbers are checked
before anything is believed. Reading it needs no torch.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from datasites.review.records import Request
from datasites.study.messages import RoundPlan
from datasites.study.proposal import Proposal
from datasites.study.recomputed.centring import first_training_round
from datasites.study.recomputed.next_model import model_to_bytes
from datasites.study.recomputed.released_numbers import checked_numbers
from datasites.study.streams import membership_secret, worker_seed
from datasites.training.local_parameters import PREFIX, shapes
from datasites.worker.job import MODEL_NAME, OTHER_BITS, OpenJob, Outcome, TrainingJob, TrainingResult, WorkerJob
from datasites.worker.pool import WorkerPool, log_of
from privacy.errors import InvalidInput, Refused

_METADATA = "tessera"
_LOG_CHARACTERS = 20_000
_FACTS_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One round on the mock data: how it ended, its log, and what would have left."""

    outcome: Outcome
    log: str
    leaves: tuple[tuple[str, str], ...]
    checks: tuple[tuple[str, bool], ...]

    @property
    def passed(self) -> bool:
        """Whether the worker ended well and every check held."""
        return self.outcome.status == "ok" and all(held for _, held in self.checks)


@dataclass(frozen=True, kw_only=True)
class SandboxedTrainer:
    """Trains rounds in workers of ``pool``; this is what a datasite hands to its rounds.

    Args:
        site: this datasite's name.
        pool: the workers.
        folder: where jobs have their folders while they run (mode 0700).
        code_of: the approved code tree of a proposal hash.
        failed: told how a worker failed and the end of its log; for the hospital's own staff only, since what foreign
            code prints about records must not leave.
    """

    site: str
    pool: WorkerPool
    folder: Path
    code_of: Callable[[str], Path]
    failed: Callable[[Outcome, str], None] = lambda _outcome, _log: None

    def __call__(self, job: TrainingJob) -> TrainingResult | None:
        """Train one round; None when the worker failed, was stopped, or wrote something else than an update."""
        with JobFolder(self.folder) as place:
            model = place / MODEL_NAME
            model.write_bytes(job.model)
            outcome = self.pool.run(
                self._worker_job(
                    job.proposal, job.plan, job.dataset / "private", place, model=model, secret=job.noise_secret
                )
            )
            if outcome.result is None:
                self.failed(outcome, outcome.log.read_text(errors="replace")[-_LOG_CHARACTERS:])
                return None
            try:
                kept = shapes(job.proposal, job.model)
                vectors, facts = read_result(outcome.result, job.proposal, self.site, kept)
                return TrainingResult(
                    updates={name: v for name, v in vectors.items() if name not in kept},
                    releases=_releases(facts, job.proposal, self.site, job.plan.round),
                    own={name.removeprefix(PREFIX): vectors[name] for name in kept},
                )
            except InvalidInput as error:
                self.failed(outcome, str(error))
                return None

    def try_files(self, job: TrainingJob) -> str:
        """Open what a round will read, in the sandbox and without reading a byte; return what is wrong, or nothing."""
        with JobFolder(self.folder) as place:
            (place / "out").mkdir()
            (place / MODEL_NAME).write_bytes(b"")
            opened = OpenJob(
                files=(job.dataset / "schema.json", job.dataset / "private", place / MODEL_NAME), output=place / "out"
            )
            outcome = self.pool.run_open(opened)
            return self._told(outcome, "the worker cannot open the files of the dataset")

    def try_round(self, job: TrainingJob) -> str:
        """Run a round on the mock part instead of the private one; return what is wrong, or nothing."""
        with JobFolder(self.folder) as place:
            model = place / MODEL_NAME
            model.write_bytes(job.model)
            mock = job.dataset / "mock"
            tried = self._worker_job(job.proposal, job.plan, mock, place, model=model, secret=bytes(32))
            outcome = self.pool.run(replace(tried, bits=True))
            problem = self._told(outcome, "a round on made-up records fails too")
            if problem and OTHER_BITS in outcome.log.read_text(errors="replace"):
                return OTHER_BITS
            if outcome.result is None:
                return problem
            try:
                read_result(outcome.result, job.proposal, self.site, shapes(job.proposal, job.model))
            except InvalidInput as error:
                self.failed(outcome, str(error))
                return f"a round on made-up records gives no update: {error}"
            return ""

    def _told(self, outcome: Outcome, what: str) -> str:
        if outcome.status == "ok":
            return ""
        self.failed(outcome, outcome.log.read_text(errors="replace")[-_LOG_CHARACTERS:])
        return f"{what} ({outcome.reason})"

    def try_on_mock(
        self, request: Request, dataset: Path, *, watch: Callable[[Path], object] = lambda _log: None
    ) -> Trial:
        """Run one round of a request on the mock part, in the same sandbox as the real one.

        Args:
            request: what was proposed.
            dataset: the dataset's folder, with ``schema.json`` and ``mock/``.
            watch: told where the log grows while the round runs; the file is gone when this returns.
        """
        proposal = request.proposal
        with JobFolder(self.folder) as place:
            job = self._worker_job(
                proposal, trial_plan(proposal), dataset / "mock", place, model=None, secret=bytes(32), checks=True
            )
            watch(log_of(job))
            outcome = self.pool.run(job)
            log = outcome.log.read_text(errors="replace")[-_LOG_CHARACTERS:]
            updates: Mapping[str, np.ndarray] = {}
            facts: dict[str, Any] = {}
            if outcome.result is not None:
                try:
                    updates, facts = read_result(outcome.result, proposal, self.site)
                except InvalidInput as error:
                    log += f"\n{error}"
            return Trial(
                outcome=outcome,
                log=log,
                leaves=tuple((name, f"float32 [{len(values)}]") for name, values in updates.items()),
                checks=tuple((str(what), bool(held)) for what, held in facts.get("checks", [])),
            )

    def initial_model(self, proposal: Proposal) -> bytes:
        """Return the model that a study's plan builds from its public seed, made in the sandbox and without data.

        Raises:
            Refused: the worker failed, or wrote something else than a model.
        """
        with JobFolder(self.folder) as place:
            job = self._worker_job(proposal, trial_plan(proposal), None, place, model=None, secret=bytes(32))
            outcome = self.pool.run(job)
            if outcome.result is None:
                self.failed(outcome, outcome.log.read_text(errors="replace")[-_LOG_CHARACTERS:])
                raise Refused(f"the study's initial model cannot be built here: {outcome.reason}")
            try:
                return model_to_bytes(_float32_arrays(outcome.result))
            except InvalidInput as error:
                raise Refused(f"the study's initial model cannot be built here: {error}") from error

    def _worker_job(
        self,
        proposal: Proposal,
        plan: RoundPlan,
        part: Path | None,
        place: Path,
        *,
        model: Path | None,
        secret: bytes,
        checks: bool = False,
    ) -> WorkerJob:
        (place / "out").mkdir()
        return WorkerJob(
            proposal=proposal,
            plan=plan,
            site=self.site,
            schema=None if part is None else part.parent / "schema.json",
            part=part,
            model=model,
            code=self.code_of(plan.proposal_hash) if proposal.plan.kind == "python" else None,
            output=place / "out",
            seed=worker_seed(proposal, plan, self.site, secret, begins_with=model.read_bytes() if model else b""),
            membership=membership_secret(secret, proposal.participant(self.site).dataset.name),
            checks=checks,
        )


def trial_plan(proposal: Proposal) -> RoundPlan:
    """Return the plan of the first round that trains, with equal weights, for a dry run."""
    weights = {b.name: dict.fromkeys(proposal.contributors(b), 1.0) for b in proposal.exchanged_blocks()}
    return RoundPlan(
        study=proposal.study,
        proposal_hash=proposal.proposal_hash,
        round=first_training_round(proposal),
        model_hash="0" * 64,
        key_hash="0" * 64,
        weights=weights,
        scales={},
        deadline_seconds=proposal.deadline_seconds,
        canonical=proposal.canonical,
    )


def read_result(
    path: Path, proposal: Proposal, site: str, kept: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a worker's result and check that it is exactly one float32 vector per block of this site.

    Args:
        path: what the worker wrote.
        proposal: the study's.
        site: whose worker it was.
        kept: names and shapes of the parameters that stay here (:func:`datasites.training.local_parameters.shapes`).

    Raises:
        InvalidInput: it is not.
    """
    expected = {**{b.name: (b.length,) for b in proposal.blocks_of(site)}, **(kept or {})}
    if path.stat().st_size > 4 * sum(math.prod(shape) for shape in expected.values()) + _FACTS_BYTES:
        raise InvalidInput("expected one vector per block from the worker, got a longer file")
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if found != expected:
                raise InvalidInput("expected one vector per block from the worker, got other names or shapes")
            vectors = {name: file.get_tensor(name) for name in expected}
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise InvalidInput("expected a safetensors file of vectors from the worker, could not read one") from error
    if any(v.dtype != np.float32 for v in vectors.values()) or not isinstance(facts, dict):
        raise InvalidInput("expected float32 vectors from the worker, got another type")
    return vectors, facts


def _float32_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise InvalidInput("expected a safetensors file from the worker, could not read one") from error
    if any(value.dtype != np.float32 for value in arrays.values()):
        raise InvalidInput("expected float32 parameters from the worker, got another type")
    return arrays


def _releases(facts: Mapping[str, Any], proposal: Proposal, site: str, number: int) -> dict[str, float]:
    releases = facts.get("releases", {})
    if not isinstance(releases, dict):
        raise InvalidInput("expected named numbers as the worker's releases")
    return checked_numbers(proposal, site, number, releases)


class JobFolder:
    """A folder that exists while one job runs."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent

    def __enter__(self) -> Path:
        self._parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = Path(tempfile.mkdtemp(prefix="job-", dir=self._parent))
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
