"""A member signs with the older canonical JSON, whose integers know no bound, to stop what others read.

Played: tags as numbers, released numbers that no list can quote, and messages in an older version than their study's.
Version 1 carries integers that version 2 refuses. A message in version 1 that is stored, shown or quoted must neither
stall its readers nor end a study, whoever signed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.consortium import playing
from harness.proposals import make_mechanism
from support.played import Played

from datasites.hospital.rounds import attesting
from datasites.hospital.rounds import taking_part as hospital_rounds
from datasites.study.messages import Refusal
from datasites.study.recomputed.released_numbers import expected_names
from datasites.study.signing import Signed, dump, open_sealed, seal
from datasites.worker.job import Trainer, TrainingJob, TrainingResult
from privacy.canonical import LARGEST_INTEGER
from privacy.dp.mechanism import LossRelease
from privacy.errors import InvalidInput
from privacy.identity import Identity

LENGTH = 40


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    with Played(tmp_path, sites=3) as made:
        made.open()
        yield made


def sealed_before(identity: Identity, kind: str, payload: dict[str, Any]) -> Signed:
    """Sign as code before RFC 8785 did."""
    signature = identity.sign(kind, payload, 1)
    return Signed(kind=kind, payload=payload, public_key=identity.public_key, signature=signature, canonical=1)


def refusals(played: Played) -> list[str]:
    return [str(entry.body["reason"]) for entry in played.hospitals[0].participant.journal.entries(kind="refused")]


@pytest.mark.parametrize("canonical", [1, 2], ids=["study of version 1", "study of version 2"])
def test_tags_as_numbers_stall_no_other_study(played: Played, canonical: int, monkeypatch: pytest.MonkeyPatch) -> None:
    attacker = played.homes["site-0"].identity()

    def forged(identity: Identity, kind: str, value: Any) -> Signed:
        if kind != "attestation" or identity.public_key != attacker.public_key or value.study != "victim":
            return seal(identity, kind, value)
        payload = dump(value)
        return sealed_before(identity, kind, {**payload, "tags": [int(tag) for tag in payload["tags"]]})

    played.propose("victim", length=LENGTH, canonical=canonical)
    played.propose("bystander", length=LENGTH)
    monkeypatch.setattr(attesting, "seal", forged)
    assert played.play("bystander")["state"] == "finished"
    if canonical == 1:  # a study of that time: its attestations had numbers
        assert played.play("victim")["state"] == "finished"
    else:
        assert "canonical JSON of version 2" in refusals(played)[-1]


def releasing(index: int) -> Trainer:
    """Return a trainer that releases the numbers that its study asks for."""
    train = playing(index)

    def run(job: TrainingJob) -> TrainingResult:
        names = expected_names(job.proposal, f"site-{index}", job.plan.round)
        return TrainingResult(updates=train(job).updates, releases=dict.fromkeys(names, 1.5))

    return run


def test_a_released_number_that_no_list_can_quote_is_refused_at_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = LossRelease(every_rounds=1, bound=4.0, noise_multiplier=2.0, terms=3)
    mechanism = make_mechanism(rounds=1, steps_per_round=1, losses=losses)
    with Played(tmp_path, sites=4, trainers={i: releasing(i) for i in range(4)}) as played:
        played.open()
        attacker = played.homes["site-0"].identity()

        def forged(identity: Identity, kind: str, value: Any) -> Signed:
            if kind != "update" or identity.public_key != attacker.public_key:
                return seal(identity, kind, value)
            payload = dump(value)
            payload["releases"] = dict.fromkeys(payload["releases"], LARGEST_INTEGER + 2)
            return sealed_before(identity, kind, payload)

        monkeypatch.setattr(hospital_rounds, "seal", forged)
        played.propose("victim", length=LENGTH, mechanism=mechanism, canonical=1)
        played.play("victim", until=lambda _: bool(refusals(played)))
        assert "2**53 - 1" in refusals(played)[-1]
        assert played.status("victim")["state"] == "running"


def test_a_study_takes_no_message_of_an_older_version_than_its_own(played: Played) -> None:
    identity = played.homes["site-0"].identity()
    refusal = Refusal(study="pilot", round=1, party="site-0", reason="no")
    old = sealed_before(identity, "refusal", dump(refusal))
    assert open_sealed(old, "refusal", identity.public_key, Refusal) == refusal
    with pytest.raises(InvalidInput, match="version 2, got 1"):
        open_sealed(old, "refusal", identity.public_key, Refusal, since=2)
