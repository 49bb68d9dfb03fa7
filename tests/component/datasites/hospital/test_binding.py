"""What an approval binds, at the moment of a round: one change, and no record is read, nothing charged, nothing sent.

A real hospital (journal, ledger, approvals, rounds) gets an honest round plan with an honest key; its trainer, the only
part that would read records, counts how often it is called.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.consortium import Consortium, Hospital, playing

from datasites.hospital.rounds import taking_part as rounds
from datasites.review.accounts import Account
from datasites.study.messages import Refusal, RoundKey, RoundPlan, WorkItem
from datasites.study.proposal import Environment, Plan, Proposal
from datasites.study.recomputed.checks import random_part
from datasites.study.recomputed.next_model import model_to_bytes
from datasites.study.signing import Signed, parse, seal
from privacy.canonical import sha256_hex
from privacy.encryption.ckks import generate_round_key
from privacy.encryption.pads import generate_pad_key
from privacy.errors import Withheld

CODE = b"rate = 1\n"
LENGTH = 50


class Office:
    """The orchestrator's side of one round, in this process."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.sent: list[str] = []
        self.reasons: list[str] = []

    def blob(self, data: bytes) -> str:
        self.blobs[sha256_hex(data)] = data
        return sha256_hex(data)

    def get_bytes(self, path: str, **_: Any) -> bytes:
        return self.blobs[path.removeprefix("/blobs/")]

    def put_bytes(self, path: str, _body: bytes, **_: Any) -> None:
        self.sent.append(path.rsplit("/", 1)[1])

    def post_json(self, path: str, value: Any, **_: Any) -> None:
        if path.endswith("/refusal"):
            self.reasons.append(parse(Refusal, dict(parse(Signed, value).payload)).reason)

    def close(self) -> None: ...


class Scene:
    """One hospital with an approved study, and a first round that it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.office, self.trained = Office(), 0
        self.consortium = Consortium(folder, sites=3, trainers={0: self._train})
        self.consortium.open_hospitals()
        self.dataset = replace(self.consortium.proposal("any").participants[0].dataset)
        opened = self.consortium.hospitals[0]
        here = replace(opened.participant, client=self.office, dataset=lambda _: (self.dataset, opened.home.folder))
        self.hospital = Hospital(home=opened.home, url="", participant=here, approvals=opened.approvals)

    def _train(self, job: Any) -> Any:
        self.trained += 1
        return playing(0)(job)

    def approve(self, **changes: Any) -> Proposal:
        plan = Plan(kind="declarative", code={"plan.toml": sha256_hex(CODE)})
        self.proposal = self.consortium.proposal("bound", length=LENGTH, plan=plan, **changes)
        self.code = self.hospital.home.folder / "code" / "plan.toml"
        self.code.parent.mkdir()
        self.code.write_bytes(CODE)
        self.hospital.approve(seal(self.consortium.identity, "proposal", self.proposal))
        return self.proposal

    def round(self) -> None:
        pair = generate_round_key(self.proposal.encryption, random_part(self.proposal, 1))
        where = {"study": "bound", "proposal_hash": self.proposal.proposal_hash, "round": 1}
        key = RoundKey(
            **where,
            key_hash=self.office.blob(pair.public),
            key_bytes=len(pair.public),
            pad_key=generate_pad_key().public,
        )
        plan = RoundPlan(
            **where,
            model_hash=self.office.blob(model_to_bytes({"shared": np.zeros(LENGTH, np.float32)})),
            key_hash=key.key_hash,
            weights={"shared": dict.fromkeys(self.consortium.names, 1.0)},
            scales={"shared": 1.0},
            deadline_seconds=30,
            canonical=self.proposal.canonical,
        )
        documents = {
            "plan": seal(self.consortium.identity, "round-plan", plan),
            "key": seal(self.consortium.homes["keyholder"].identity(), "round-key", key),
        }
        item = WorkItem(kind="train", study="bound", round=1, closing=1, documents=documents)
        self.hospital.participant.handle(item)

    @property
    def charged(self) -> list[str]:
        return [e.kind for e in self.hospital.participant.journal.entries() if e.kind == "round-charged"]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    for hospital in made.consortium.hospitals:
        hospital.close()


def test_the_unchanged_round_is_trained_charged_and_sent(scene: Scene) -> None:
    scene.approve()
    scene.round()
    assert (scene.trained, scene.charged, scene.office.sent) == (1, ["round-charged"], ["update"])


def flip_a_byte(scene: Scene, _: pytest.MonkeyPatch) -> None:
    data = bytearray(scene.code.read_bytes())
    data[3] ^= 1
    scene.code.write_bytes(bytes(data))


def another_dataset(scene: Scene, _: pytest.MonkeyPatch) -> None:
    scene.dataset = replace(scene.dataset, fingerprint="9" * 64)


def another_environment(_: Scene, patch: pytest.MonkeyPatch) -> None:
    here = rounds.current_environment()
    patch.setattr(rounds, "current_environment", lambda: replace(here, code_hash="9" * 64))


def another_parameter(scene: Scene, _: pytest.MonkeyPatch) -> None:
    database = sqlite3.connect(scene.hospital.home.folder / "approvals.sqlite")
    with database:
        changed = database.execute(
            "UPDATE requests SET sealed = replace(sealed, '\"noise_multiplier\":1.2', '\"noise_multiplier\":0.2')"
        ).rowcount
    database.close()
    assert changed == 1


def a_later_day(scene: Scene, patch: pytest.MonkeyPatch) -> None:
    late = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
    patch.setattr(scene.hospital.participant.journal, "now", lambda: late)


def revoked(scene: Scene, _: pytest.MonkeyPatch) -> None:
    steward = Account(name="anna", role="steward", public_key="7" * 64)
    now = dt.datetime.now(dt.UTC)
    scene.hospital.approvals.revoke(
        scene.proposal.proposal_hash, reviewer=steward, reason="A patient withdrew consent.", now=now
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (flip_a_byte, "plan.toml was changed after the approval"),
        (another_dataset, "the dataset is not the approved one"),
        (another_environment, "the software is not the approved one"),
        (another_parameter, "signature"),
        (a_later_day, "expired"),
        (revoked, "not approved here"),
    ],
)
def test_one_change_and_no_record_is_read(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, change: Callable[[Scene, pytest.MonkeyPatch], None], reason: str
) -> None:
    scene.approve()
    change(scene, monkeypatch)
    scene.round()
    assert (scene.trained, scene.charged, scene.office.sent) == (0, [], [])
    (refused,) = [e for e in scene.hospital.participant.journal.entries() if e.kind == "refused"]
    assert reason in refused.body["reason"]
    withheld = change in (flip_a_byte, another_dataset, another_environment)
    assert (Withheld.outward if withheld else reason) in scene.office.reasons[-1]


def test_others_hear_the_same_whatever_differs_from_what_was_approved(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an orchestrator learns that a hospital's files were edited, which nothing was charged for."""
    scene.approve()
    another_dataset(scene, monkeypatch)
    scene.round()
    another_environment(scene, monkeypatch)
    scene.round()
    flip_a_byte(scene, monkeypatch)
    scene.round()
    assert scene.office.reasons == [Withheld.outward] * 3


def released(environment: Environment, release: str, **changes: str) -> Environment:
    return replace(environment, release=release, code_hash="8" * 64, lock_hash="7" * 64, files_hash="6" * 64, **changes)


def test_a_running_study_survives_a_patch_release(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    here = rounds.current_environment()
    scene.approve(environment=replace(here, release="3.4.5"))
    monkeypatch.setattr(rounds, "current_environment", lambda: released(here, "3.4.6"))
    scene.round()
    assert (scene.trained, scene.charged, scene.office.sent) == (1, ["round-charged"], ["update"])


@pytest.mark.parametrize(
    ("release", "changes", "reason"),
    [
        ("3.4.6", {"data_code": "5" * 64}, "the part of Tessera's source code that touches data"),
        ("3.4.6", {"data_lock": "5" * 64}, "the versions of all packages that touch data"),
        ("3.4.6", {"data_files": "5" * 64}, "not the approved files"),
        ("3.6.0", {}, "more than one minor version apart"),
        ("4.4.5", {}, "more than one minor version apart"),
        ("3.4.5", {}, "the software is not the approved one"),
    ],
    ids=["code", "versions", "files", "minor", "major", "same release"],
)
def test_no_release_that_touches_data_otherwise_reads_a_record(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, release: str, changes: dict[str, str], reason: str
) -> None:
    here = rounds.current_environment()
    scene.approve(environment=replace(here, release="3.4.5"))
    monkeypatch.setattr(rounds, "current_environment", lambda: released(here, release, **changes))
    scene.round()
    assert (scene.trained, scene.charged, scene.office.sent) == (0, [], [])
    assert any(reason in str(dict(e.body)) for e in scene.hospital.participant.journal.entries())


def test_an_approval_that_expires_between_two_looks_is_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=10)
    scene.approve(expires=soon.isoformat())
    monkeypatch.setattr(scene.hospital.participant.journal, "now", lambda: soon + dt.timedelta(seconds=0.1))
    scene.round()
    assert scene.trained == 0 and "expired" in scene.office.reasons[-1]
