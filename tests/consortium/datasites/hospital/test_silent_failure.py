"""A worker that crashes or hangs on private data: from outside its round looks like any other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from harness.consortium import BOUND, LEVELS, Consortium, Hospital, steps_of
from support.charges import is_charged

from datasites.hospital.rounds.taking_part import RoundParticipant
from datasites.node.http import SignedClient
from datasites.worker.job import TrainingJob, TrainingResult
from privacy.dp.mechanism import HistogramRelease

SLOT = 2.0
LENGTH = 500


def crashing(_: TrainingJob) -> TrainingResult | None:
    return None


def hanging(_: TrainingJob) -> TrainingResult | None:
    time.sleep(0.6)  # until the policy's time limit ends it
    return None


@pytest.fixture(scope="module")
def consortium(running: Consortium) -> Iterator[Consortium]:
    usual = [hospital.participant for hospital in running.hospitals]
    trainers = (crashing, hanging, *(part.train for part in usual[2:]))
    for hospital, part, train in zip(running.hospitals, usual, trainers, strict=True):
        hospital.participant = replace(part, train=train, round_seconds=SLOT)
    yield running
    for hospital, part in zip(running.hospitals, usual, strict=True):
        hospital.participant = part


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """How long each hospital's work took until its update left."""
    seconds: dict[str, float] = {}

    begun: dict[str, float] = {}
    put, wait = SignedClient.put_bytes, RoundParticipant._wait_for_usual_time

    def waiting(part: RoundParticipant, started: float) -> None:
        begun[part.client.identity.public_key] = started
        wait(part, started)

    def put_bytes(client: SignedClient, path: str, body: bytes, **rest: Any) -> Any:
        if path.endswith("/update"):
            key = client.identity.public_key
            seconds[key] = time.monotonic() - begun[key]
        return put(client, path, body, **rest)

    monkeypatch.setattr(SignedClient, "put_bytes", put_bytes)
    monkeypatch.setattr(RoundParticipant, "_wait_for_usual_time", waiting)
    return seconds


def sent(hospital: Hospital, study: str) -> tuple[dict[str, Any], int]:
    import json

    folder = hospital.home.round_folder(study, 1)
    header = json.loads((folder / "header.json").read_bytes())["payload"]
    return header, int(header["body_bytes"])


def test_a_crash_and_a_hang_arrive_like_any_other_update(consortium: Consortium, timed: dict[str, float]) -> None:
    proposal = consortium.propose("silent", length=LENGTH)
    with consortium.working():
        status = consortium.wait("silent", "finished")
    assert status["checkpoints"][0]["sites"] == consortium.names
    assert len(timed) == 5
    assert all(seconds >= SLOT and seconds % SLOT < 0.75 * SLOT for seconds in timed.values()), timed
    headers = [sent(hospital, "silent") for hospital in consortium.hospitals]
    assert len({size for _, size in headers}) == 1
    assert len({tuple(sorted(header)) for header, _ in headers}) == 1
    assert all(header["blocks"] == headers[2][0]["blocks"] for header, _ in headers)
    told = status["refusals"]
    assert not any(told.values())
    kinds = [e.kind for e in consortium.hospitals[0].participant.journal.entries()]
    assert kinds.count("worker-failed") == 1
    honest = sum(steps_of(i, "shared", LENGTH) for i in range(2, 5)) * BOUND / LEVELS
    noise = 5 * consortium.model(status)["shared"] - honest  # what the two failed sites have put in
    assert 0 < np.abs(noise).mean() < 0.1
    assert is_charged(consortium.hospitals[0].participant.ledger, proposal.proposal_hash, 1)


def test_a_failed_worker_releases_the_numbers_of_its_round_as_noise(consortium: Consortium) -> None:
    base = consortium.proposal("silent-scores", length=LENGTH)
    release = HistogramRelease(every_rounds=1, noise_multiplier=2.0)
    consortium.hospitals[2].participant = replace(consortium.hospitals[2].participant, train=crashing)
    consortium.hospitals[3].participant = replace(consortium.hospitals[3].participant, train=crashing)
    consortium.propose("silent-scores", length=LENGTH, mechanism=replace(base.mechanism, evaluation=release))
    with consortium.working(0, 1, 2, 3):
        deadline = time.monotonic() + 120
        while len(consortium.status("silent-scores")["updates_now"]) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
    headers = [sent(consortium.hospitals[i], "silent-scores")[0] for i in range(4)]
    assert {len(header["releases"]) for header in headers} == {64}
    assert len({tuple(header["releases"].values()) for header in headers}) == 4
