"""Without helpers: a keyholder that was killed in a round has its list signed once more, and answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from harness.consortium import BOUND, LEVELS, steps_of
from support.played import Played

from orchestrator.rounds import helping

LENGTH = 300
STATES = ("key", "plan", "update", "commitments", "attestation", "served", "result")
"""What is stored in the course of a round, in this order; the keyholder is killed when it first is there."""


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    with Played(tmp_path, sites=4) as consortium:
        consortium.open()
        yield consortium


def is_stored(played: Played, number: int, kind: str) -> bool:
    store = played.service.store
    return bool(store.documents("pilot", number, kind)) or store.document("pilot", number, kind) is not None


def kill_keyholder(played: Played) -> None:
    played.close_keyholder()
    played.open_keyholder()


def test_a_keyholder_killed_in_every_state_of_a_round_costs_nothing(played: Played) -> None:
    played.propose("pilot", length=LENGTH, rounds=len(STATES))
    for number, kind in enumerate(STATES, 1):
        played.play("pilot", until=lambda _, number=number, kind=kind: is_stored(played, number, kind))
        kill_keyholder(played)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    assert not [c["lost"] for c in status["checkpoints"] if c.get("lost")]
    mean = sum(steps_of(i, "shared", LENGTH) for i in range(4)) * BOUND / LEVELS / 4
    expected = (len(STATES) * mean).astype(np.float32)
    assert np.allclose(played.model(status)["shared"], expected, atol=1e-4)
    assert is_stored(played, STATES.index("update") + 1, helping.CONFIRMATION)


def test_a_list_that_is_not_signed_once_more_costs_the_round(played: Played, let_pass: Callable[[float], None]) -> None:
    played.propose("pilot", length=LENGTH, rounds=2)
    played.play("pilot", until=lambda _: is_stored(played, 1, "plan"))
    played.play(
        "pilot", *played.names, until=lambda _: len(played.service.store.documents("pilot", 1, "attestation")) == 4
    )
    kill_keyholder(played)
    here = (*played.names[:3], "keyholder")
    played.play("pilot", *here, until=lambda s: "site-3, who have to sign the list once more" in s["waiting"])
    let_pass(helping.CONFIRM_SECONDS)
    status = played.play("pilot", *here)
    assert status["state"] == "paused"
    assert "expected the hospitals to sign this one once more" in status["reason"]
    played.client.post_json("/studies/pilot/resume", {})
    assert played.play("pilot")["state"] == "finished"
