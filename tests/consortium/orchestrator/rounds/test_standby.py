"""Two orchestrators on one real PostgreSQL: the leader is killed within a study, and nothing is lost."""

from __future__ import annotations

import shutil
import socket
import time
from dataclasses import replace

import numpy as np
import pytest
from harness.consortium import LEVELS, Consortium, steps_of

from datasites.node.home import Home
from datasites.study.recomputed.next_model import model_from_bytes
from privacy.ledger.journal import Journal

SITES, ROUNDS, LENGTH = 3, 6, 500
TAKEOVER_SECONDS = 15.0
"""What we promise; the lease lasts six of them. Not stretched for a busy machine."""


@pytest.mark.slow
def test_the_one_that_stands_by_takes_over_after_a_kill_and_nothing_is_lost(
    tmp_path, postgres, monkeypatch, record_property
):
    monkeypatch.setenv("DATABASE_URL", postgres("standby"))
    monkeypatch.setenv("STORE_FOLDER", str(tmp_path / "shared"))
    with Consortium(tmp_path / "c", sites=SITES) as consortium:
        home = consortium.homes["orchestrator"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            Home.create(home.folder, replace(home.config(), port=probe.getsockname()[1]))
        other = tmp_path / "other"
        shutil.copytree(home.folder, other)
        consortium.start()
        consortium.processes.start("standby", ["orchestrator", "run", "--home", str(other)])
        consortium.propose("kept", rounds=ROUNDS, length=LENGTH)
        leader = consortium.processes.children["orchestrator"]
        with consortium.working():
            while consortium.status("kept")["rounds_completed"] < 2:
                time.sleep(0.05)
            leader.kill()
            killed = time.monotonic()
            leader.wait()
            consortium.status("kept")
            taken = time.monotonic() - killed
            record_property("takeover_seconds", round(taken, 2))
            assert taken < TAKEOVER_SECONDS
            status = consortium.wait("kept", "finished")
        assert [sorted(c["sites"]) for c in status["checkpoints"]] == [sorted(consortium.names)] * ROUNDS
        model = model_from_bytes(consortium.client.get_bytes(f"/blobs/{status['checkpoints'][-1]['model_hash']}"))
        mean = sum(steps_of(i, "shared", LENGTH) for i in range(SITES)) / LEVELS / SITES
        np.testing.assert_allclose(model["shared"], ROUNDS * mean, atol=1e-4)
        for hospital in consortium.hospitals:
            charged = [e.body["round"] for e in hospital.participant.journal.entries(kind="round-charged")]
            assert charged == list(range(1, ROUNDS + 1))
    whole, first = Journal(other / "journal.sqlite", None), Journal(home.folder / "journal.sqlite", None)
    whole.verify()
    assert [e.body["round"] for e in whole.entries(kind="round-finished")] == list(range(1, ROUNDS + 1))
    assert all(whole.contains(entry.hash) for entry in first.entries())
