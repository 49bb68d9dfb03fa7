"""A study continues another one: hospitals compare its first model with the last one that they computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness.consortium import BOUND, LEVELS, steps_of
from support.played import Played

from datasites.study.proposal import Chain
from datasites.study.recomputed.chain import voids
from datasites.study.signing import seal
from privacy.canonical import sha256_hex

LENGTH = 60


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    with Played(tmp_path, sites=3) as consortium:
        consortium.open()
        yield consortium


def test_hospitals_train_on_from_the_last_model_that_they_know_and_from_no_other(played: Played) -> None:
    first = played.propose("first", length=LENGTH)
    status = played.play("first")
    digest = status["checkpoints"][-1]["model_hash"]
    model = played.client.get_bytes(f"/blobs/{digest}")
    for name in played.names:
        played.step(name)
    known = played.hospitals[0].participant.models.known
    assert known == {first.proposal_hash: digest}

    def continued(name: str, initial: bytes) -> None:
        chain = Chain(model_hash=sha256_hex(initial), origin="study", study=first.proposal_hash)
        proposal = played.proposal(name, length=LENGTH, chain=chain)
        played.register(proposal, initial)
        for hospital in played.hospitals:
            hospital.approve(seal(played.identity, "proposal", proposal))
        assert ("names another one" in voids(proposal, knows=known)) == (initial != model)

    continued("second", model)
    status = played.play("second")
    assert status["state"] == "finished"
    mean = sum(steps_of(i, "shared", LENGTH) for i in range(3)) * BOUND / LEVELS / 3
    assert np.allclose(played.model(status)["shared"], 2 * mean, atol=1e-5)  # both studies' steps

    continued("third", model[:-4] + np.float32(0.5).tobytes())
    played.play("third", until=lambda s: len(s["refusals"].get("1", {})) == 3)
    refusals = played.status("third")["refusals"]["1"]
    assert all("another model than the last one of the study" in r["payload"]["reason"] for r in refusals.values())
