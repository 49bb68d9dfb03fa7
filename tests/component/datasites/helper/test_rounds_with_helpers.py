"""Rounds of studies with two helpers: the sum is right and can be checked; kills, restores and absences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness.consortium import BOUND, LEVELS, steps_of
from support.played import Played

LENGTH = 300


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    with Played(tmp_path, sites=4, helpers=2) as consortium:
        consortium.open()
        yield consortium


def expected(played: Played, sites: range | list[int], rounds: int = 1) -> np.ndarray:
    mean = sum(steps_of(i, "shared", LENGTH) for i in sites) * BOUND / LEVELS / len(list(sites))
    return (rounds * mean).astype(np.float32)


def kinds(played: Played, name: str) -> list[str]:
    from privacy.ledger.journal import Journal

    journal = Journal(played.homes[name].folder / "journal.sqlite", None)
    try:
        return [entry.kind for entry in journal.entries()]
    finally:
        journal.close()


def test_a_study_with_helpers_gives_the_right_model_and_every_site_recomputes_it(played: Played) -> None:
    played.propose("pilot", length=LENGTH, rounds=2)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    assert np.allclose(played.model(status)["shared"], expected(played, range(4), 2), atol=1e-5)
    for name in played.names:
        played.step(name)
        assert "models-followed" in kinds(played, name)
        assert "sum-unconfirmed" not in kinds(played, name)
    for name in played.helpers:
        assert kinds(played, name).count("pads-summed") == 2
