"""A worker that crashes or hangs on private data: from outside its round looks like any other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from harness.consortium import BOUND, LEVELS, Consortium, Hospital, steps_of
from support.charges import is_charged
from support.waiting import until

from datasites.hospital.rounds import taking_part
from datasites.node.http import SignedClient
from datasites.worker.job import TrainingJob, TrainingResult
from privacy.dp.mechanism import HistogramRelease

SLOT = 2.0
LENGTH = 500


def crashing(_: TrainingJob) -> TrainingResult | None:
    return None


def hanging(_: TrainingJob) -> TrainingResult | None:
    taking_part.time.sleep(0.6 * SLOT)  # until the policy's time limit ends it
    return None


class Clock:
    """One hospital's time goes on only while it sleeps; ``left`` is when its update left, by its key."""

    def __init__(self) -> None:
        self._now, self.left = threading.local(), dict[str, float]()

    def monotonic(self) -> float:
        return float(getattr(self._now, "seconds", 0.0))

    def sleep(self, seconds: float) -> None:
        self._now.seconds = self.monotonic() + seconds


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
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(taking_part, "time", made)
    put = SignedClient.put_bytes

    def put_bytes(client: SignedClient, path: str, body: bytes, **rest: Any) -> Any:
        if path.endswith("/update"):
            made.left[client.identity.public_key] = made.monotonic()
        return put(client, path, body, **rest)

    monkeypatch.setattr(SignedClient, "put_bytes", put_bytes)
    return made


def sent(hospital: Hospital, study: str) -> tuple[dict[str, Any], int]:
    import json

    folder = hospital.home.round_folder(study, 1)
    header = json.loads((folder / "header.json").read_bytes())["payload"]
    return header, int(header["body_bytes"])


def test_a_crash_and_a_hang_arrive_like_any_other_update(consortium: Consortium, clock: Clock) -> None:
    proposal = consortium.propose("silent", length=LENGTH)
    with consortium.working():
        status = consortium.wait("silent", "finished")
    assert status["checkpoints"][0]["sites"] == consortium.names
    assert list(clock.left.values()) == [SLOT] * 5  # the first whole slot after each began, however it went
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
        until(lambda: len(consortium.status("silent-scores")["updates_now"]) == 4, "four updates are here")
    headers = [sent(consortium.hospitals[i], "silent-scores")[0] for i in range(4)]
    assert {len(header["releases"]) for header in headers} == {64}
    assert len({tuple(header["releases"].values()) for header in headers}) == 4
