"""What daemon, fork server and worker say to one another: plain JSON, no torch, no secret but one round's seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from datasites.review.policy import Layer, SandboxPolicy
from datasites.study.messages import (
    RoundPlan,
)
from datasites.study.proposal import Proposal

Status = Literal["ok", "failed", "timed-out", "disk", "refused", "crashed"]
RESULT_NAME = "result.safetensors"
MODEL_NAME = "model.safetensors"
EXIT_FAILED, EXIT_MEMORY, EXIT_REFUSED = 70, 71, 78


OTHER_BITS = (
    "on this machine a record gives other bits by who stands beside it, so that the bound on one record would not "
    "hold; run the hospital on another kind of processor, or with the pinned torch"
)
"""Why a round cannot run here (:mod:`datasites.worker.same_bits`)."""


@dataclass(frozen=True, kw_only=True)
class WorkerJob:
    """One round for one worker; everything it needs is in here or in the folders it names.

    Args:
        proposal: the approved proposal.
        plan: the round plan.
        site: whose data this is.
        schema: the dataset's ``schema.json``; None without data.
        part: the dataset's private or mock part; None without data: then the result is the plan's own initial model.
        model: the global model as safetensors; None trains from the plan's own start (dry run).
        code: the approved code tree of a plan with free Python.
        output: an empty folder for the result.
        seed: 32 secret bytes of this round alone (hexadecimal).
        membership: 32 secret bytes of this dataset that split training from validation records (hexadecimal).
        checks: whether to try the plan's independence between records first (dry run).
        bits: whether to try first that a record gives the same bits among whatever others (mock records only).
    """

    proposal: Proposal
    plan: RoundPlan
    site: str
    schema: Path | None
    part: Path | None
    model: Path | None
    code: Path | None
    output: Path
    seed: str
    membership: str
    checks: bool = False
    bits: bool = False


@dataclass(frozen=True, kw_only=True)
class ScriptJob:
    """One Python file of somebody else's, to be run on mock data.

    Args:
        code: the tree; the worker runs a copy of it.
        entrypoint: the file that is run, relative to ``code``.
        data: a folder that it may read.
        environment: variables that it sees; nothing else is set but its home and its folder for temporary files.
        output: an empty folder; afterwards what the job's working directory held.
        seconds: how long it may take.
    """

    code: Path
    entrypoint: str
    data: Path
    environment: Mapping[str, str]
    output: Path
    seconds: float


@dataclass(frozen=True, kw_only=True)
class OpenJob:
    """Files and folders that a worker opens and does not read, to see whether it could; no code but ours runs.

    ``output`` is an empty folder.
    """

    files: tuple[Path, ...]
    output: Path


@dataclass(frozen=True, kw_only=True)
class RuleJob:
    """One step of a study's own server's rule: no records, no key, numbers that everybody of the study knows.

    Args:
        code: the approved code tree.
        input: what :func:`datasites.strategy.own_step.input_bytes` wrote.
        output: an empty folder for the result.
    """

    code: Path
    input: Path
    output: Path


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What the fork server needs to start a worker; the job itself goes past it, straight to the worker.

    The worker writes to the folder ``writable`` alone, and reads nothing below ``hidden`` but what is ``readable``.
    """

    readable: tuple[str, ...]
    writable: str
    hidden: tuple[str, ...]
    limits: SandboxPolicy

    def encode(self) -> bytes:
        """Return one datagram."""
        limits = self.limits.model_dump(mode="json")
        value = {"readable": self.readable, "writable": self.writable, "hidden": self.hidden, "limits": limits}
        return json.dumps(value).encode()

    @classmethod
    def decode(cls, data: bytes) -> Launch:
        """Read a datagram that :meth:`encode` wrote."""
        value: dict[str, Any] = json.loads(data)
        return cls(
            readable=tuple(value["readable"]),
            writable=str(value["writable"]),
            hidden=tuple(value["hidden"]),
            limits=SandboxPolicy.model_validate(value["limits"]),
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a worker ended. ``reason`` names the kind of end only: what foreign code printed stays in ``log``.

    ``exit_status`` is the process's own, -1 where it did not end by itself. ``seconds`` is wall time,
    ``peak_memory_bytes`` the worker's largest resident size, shared libraries included.
    """

    status: Status
    reason: str
    seconds: float
    peak_memory_bytes: int
    layers: tuple[Layer, ...]
    log: Path
    result: Path | None
    exit_status: int = -1


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What the worker needs for one round, and nothing else."""

    proposal: Proposal
    plan: RoundPlan
    model: bytes
    dataset: Path
    noise_secret: bytes


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What the worker gives back: one float32 vector per block, noised numbers by name, and what stays here."""

    updates: Mapping[str, np.ndarray]
    releases: Mapping[str, float]
    own: Mapping[str, np.ndarray] = field(default_factory=dict)


class Trainer(Protocol):
    """Runs a job in the sandboxed worker; None when it failed or ran out of time."""

    def __call__(self, job: TrainingJob) -> TrainingResult | None:
        """Train one round."""
