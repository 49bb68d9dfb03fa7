"""Clocks set forward by a year or back by a day, at every role: a clear reason, no lost charge, nothing revived."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from harness.consortium import LEVELS, steps_of
from support.charges import is_charged
from support.played import Played
from support.waiting import until

from datasites.node import http
from datasites.node.credentials import tokens
from datasites.node.credentials.tokens import make_token
from orchestrator.cli import doctor
from orchestrator.rounds.board import Waiting
from privacy.dp.mechanism import Mechanism
from privacy.errors import TesseraError
from privacy.identity import Identity
from privacy.ledger.ledger import Ledger, case_hash

YEAR, DAY = 365 * 86_400.0, 86_400.0
JUMPS = [pytest.param(YEAR, id="a-year-forward"), pytest.param(-DAY, id="a-day-back")]
LENGTH = 40


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    with Played(tmp_path, sites=3) as made:
        made.open()
        yield made


@contextmanager
def clock_of(
    played: Played, role: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], None]]:
    """Set one role's clock while it steps; yields a function that steps everybody once."""

    def shifted(*args: Any, **options: Any) -> str:
        return make_token(*args, **{**options, "now": time.time() + seconds})

    def true(*args: Any, **options: Any) -> str:
        return make_token(*args, **{**options, "now": time.time()})

    journal: Any = {
        "orchestrator": played.service.journal,
        "keyholder": played.keyholder and played.keyholder.journal,
        "site-1": played.hospitals[1].participant.journal,
    }[role]
    real = journal._chain._clock
    journal._chain._clock = lambda: real() + dt.timedelta(seconds=seconds)
    if role == "orchestrator":
        monkeypatch.setattr(tokens, "time", SimpleNamespace(time=lambda: time.time() + seconds))

    def step() -> None:
        for name in (*played.names, "keyholder"):
            monkeypatch.setattr(http, "make_token", shifted if name == role else true)
            played.step(name)

    yield step
    monkeypatch.undo()
    journal._chain._clock = real


@pytest.mark.parametrize("seconds", JUMPS)
@pytest.mark.parametrize("role", ["site-1", "keyholder", "orchestrator"])
def test_a_round_waits_for_a_role_whose_clock_jumped_and_charges_everybody_once(
    played: Played, role: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = played.propose("jump", length=LENGTH)
    who = "site-0" if role == "orchestrator" else role
    what = {"keyholder": "its key", "site-1": "updates of site-1", "orchestrator": "its key"}[role]

    def refused() -> list[str]:
        return [str(error) for name, error in played.failures if name == who]

    with clock_of(played, role, seconds, monkeypatch) as step:
        until(lambda: step() or (refused() and what in played.service.waiting("jump")), "everybody else is done")
    reasons = refused()
    assert all("check the clocks of both sides" in reason for reason in reasons), reasons
    status = played.status("jump")
    assert status["state"] == "running"
    assert what in status["waiting"]
    status = played.play("jump")
    assert (status["state"], status["checkpoints"][0]["sites"]) == ("finished", played.names), status["reason"]
    mean = sum(steps_of(i, "shared", LENGTH) for i in range(3)) / LEVELS / 3
    np.testing.assert_allclose(played.model(status)["shared"], mean, atol=1e-6)
    for hospital in played.hospitals:
        charged = [e for e in hospital.participant.journal.entries(kind="round-charged") if e.body["study"] == "jump"]
        assert len(charged) == 1
        assert is_charged(hospital.participant.ledger, proposal.proposal_hash, 1)
        hospital.participant.ledger.verify()
        hospital.participant.journal.verify()


def test_an_approval_that_expires_between_training_and_signing_is_not_used_and_the_journal_says_why(
    played: Played,
) -> None:
    proposal = played.propose("late", length=LENGTH)
    played.play("late", *played.names, until=lambda s: "its key" in s["waiting"])
    played.play("late", "keyholder", until=lambda s: "updates of" in s["waiting"])
    played.play("late", *played.names, until=lambda s: len(s["updates_now"]) == 3)
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)  # the proposal holds for a day
    for hospital in played.hospitals:
        hospital.participant.journal._chain._clock = lambda: later  # type: ignore[attr-defined]
    status = played.play("late")
    assert status["state"] == "paused"
    assert "got those of 0 sites" in status["reason"]
    told = status["refusals"]["1"]["site-0"]["payload"]["reason"]
    assert "the proposal expired" in told
    assert "the clock says" in told
    for hospital in played.hospitals:
        assert is_charged(hospital.participant.ledger, proposal.proposal_hash, 1)  # it was trained: it stays charged
        assert not list(hospital.participant.journal.entries(kind="attested"))
    times = {check.name: check for check in doctor.examine(played.homes["site-0"].folder)}["times"]
    assert not times.ok
    assert "days ahead of this clock" in times.found


def test_a_ledger_keeps_its_order_and_its_charges_whatever_the_clock_says(tmp_path: Path) -> None:
    now = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
    times = [now, now + dt.timedelta(days=365), now - dt.timedelta(days=1)]
    clock = [now]
    ledger = Ledger(tmp_path / "ledger.sqlite", Identity.from_seed(bytes(32)), clock=lambda: clock[0])
    population = ledger.register_dataset("lung", 1, [case_hash(b"s" * 32, "case")])
    ledger.set_cap(population, epsilon=math.inf, delta=1e-5, by="owner", reason="test")
    plan = Mechanism(
        max_grad_norm=1.0, noise_multiplier=2.0, sampling_rate=1.0, steps_per_round=1, rounds=3, target_delta=1e-5
    )
    ledger.reserve(population, study="s", proposal_hash="a" * 64, plan=plan)
    spent = []
    for number, at in enumerate(times, 1):
        clock[0] = at
        ledger.charge("a" * 64, number)
        ledger.charge("a" * 64, number)
        spent.append(ledger.spent(population).cost.mu_squared)
    assert spent == pytest.approx([spent[0], 2 * spent[0], 3 * spent[0]])
    ledger.verify()


def test_a_deadline_is_a_duration_whatever_the_wall_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(waiting: Waiting) -> None:
        waiting.wake()
        for _ in range(20):  # until it has looked
            await asyncio.sleep(0)

    async def play() -> None:
        waiting, loop = Waiting(), asyncio.get_running_loop()
        task = asyncio.create_task(waiting.until(lambda: False, 3600.0, lambda: "somebody"))
        await look(waiting)
        assert waiting.text.endswith("for somebody")
        for jump in (YEAR, -DAY):
            monkeypatch.setattr(time, "time", lambda jump=jump: 1.7e9 + jump)
            await look(waiting)
            assert not task.done()
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + 3600.0)  # the monotonic one
        await task
        assert waiting.text == ""

    asyncio.run(play())


def test_a_clock_that_jumps_revives_no_token() -> None:
    caller, server = Identity.from_seed(b"c" * 32), Identity.from_seed(b"s" * 32)
    request = {"method": "GET", "target": "/work", "body_hash": "0" * 64}
    header = make_token(caller, audience=server.public_key, now=1000.0, **request)
    verifier = tokens.TokenVerifier(server.public_key)
    verifier.check(header, now=1000.0, **request)
    for at in (1000.0 + YEAR, 1000.0 - DAY, 1000.0, 1050.0):
        with pytest.raises(TesseraError):
            verifier.check(header, now=at, **request)
