"""A hospital's own process with a witness beside it: ``python chaos_site.py HOME WITNESS``.

It runs ``tessera datasite run`` unchanged but for three notes, kept outside the home so that no fault reaches them:

* ``reads.jsonl``: a round whose private records a worker is about to read, written before the worker is asked;
* ``kept/STUDY/ROUND/N.npy``: the integers of the N-th block, written before they are encrypted;
* ``accepted.jsonl``: an update that the orchestrator said it has taken.

A block that is encrypted a second time with other integers is written to ``redrawn.jsonl``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from datasites.hospital import datasite
from datasites.hospital.rounds.taking_part import RoundParticipant
from datasites.node.http import SignedClient
from datasites.study.messages import WorkItem
from datasites.worker.job import TrainingJob, TrainingResult
from datasites.worker.trainer import SandboxedTrainer
from privacy.encryption import ckks

_WITNESS = Path(sys.argv[2])
_now = threading.local()


def note(name: str, value: dict[str, Any]) -> None:
    """Add one line, on disk before this returns."""
    with (_WITNESS / name).open("ab") as file:
        file.write(json.dumps(value).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


class WitnessedParticipant(RoundParticipant):
    """Knows which round is being worked on."""

    def handle(self, item: WorkItem) -> None:
        _now.study, _now.round, _now.keeping = item.study, item.round, False
        super().handle(item)

    def _store_update(self, *arguments: Any) -> None:
        """Keep what is encrypted here, and not the probe with which a published key is checked."""
        _now.block, _now.keeping = 0, True
        try:
            super()._store_update(*arguments)
        finally:
            _now.keeping = False


class WitnessedTrainer(SandboxedTrainer):
    """Notes a round before its records may be read."""

    def __call__(self, job: TrainingJob) -> TrainingResult | None:
        note("reads.jsonl", {"study": job.plan.study, "round": job.plan.round})
        return super().__call__(job)


def keep(integers: np.ndarray) -> None:
    folder = _WITNESS / "kept" / _now.study / str(_now.round)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_now.block}.npy"
    if path.exists() and not np.array_equal(np.load(path), integers):
        note("redrawn.jsonl", {"study": _now.study, "round": _now.round, "block": _now.block})
    staging = path.with_suffix(".new")
    with staging.open("wb") as file:
        np.save(file, np.asarray(integers, dtype=np.int64))
    staging.replace(path)
    _now.block += 1


def install() -> None:
    """Put the witness into the process, before anything is started."""
    encrypt, put_bytes = ckks.encrypt, SignedClient.put_bytes

    def witnessed_encrypt(public: bytes, parameters: Any, integers: np.ndarray, *rest: Any, **more: Any) -> Any:
        if getattr(_now, "keeping", False):
            keep(integers)
        return encrypt(public, parameters, integers, *rest, **more)

    def witnessed_put(client: SignedClient, path: str, body: bytes, **more: Any) -> Any:
        answer = put_bytes(client, path, body, **more)
        if path.endswith("/update"):
            note("accepted.jsonl", {"study": _now.study, "round": _now.round})
        return answer

    ckks.encrypt = witnessed_encrypt
    SignedClient.put_bytes = witnessed_put  # type: ignore[assignment, method-assign]
    datasite.RoundParticipant = WitnessedParticipant  # type: ignore[attr-defined]
    datasite.SandboxedTrainer = WitnessedTrainer  # type: ignore[attr-defined]


if __name__ == "__main__":
    install()
    from orchestrator.cli.main import main

    sys.argv = ["tessera", "datasite", "run", "--home", sys.argv[1], "--end-with-parent"]
    main()
