"""Eight processes fight for one budget and are killed at random; the books must balance to the last entry."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

from privacy.errors import Refused
from privacy.identity import Identity
from privacy.ledger.cost_documents import cost_from_json
from privacy.ledger.costs import ZERO, StudyCost, gaussian_cost
from privacy.ledger.ledger import Ledger, case_hash
from privacy.ledger.verification import verify_folder

IDENTITY = Identity.from_seed(bytes(32))
CONTEXT = multiprocessing.get_context("fork")
WORKERS = 8
ATTEMPTS = 10_000
PLAN = StudyCost(rounds=3, round=gaussian_cost(25.0))


def _fight(path: Path, population: str, seed: int, pipe: Connection) -> None:
    """Reserve, charge and free at random; say on the pipe what was confirmed, one line per attempt."""
    generator = random.Random(seed)  # noqa: S311, chooses what to try
    ledger = Ledger(path, IDENTITY)
    proposal = ""
    while True:
        act = generator.choice(("reserve", "reserve", "charge", "charge", "charge", "free"))
        if act == "reserve" or not proposal:
            act, proposal = "reserve", f"{generator.randrange(300):064d}"
        number = generator.randint(1, 3)
        outcome = _try(ledger, population, act, proposal, number)
        pipe.send((act, proposal, number, outcome))


def _try(ledger: Ledger, population: str, act: str, proposal: str, number: int) -> bool:
    try:
        if act == "reserve":
            ledger.reserve(population, study="s", proposal_hash=proposal, plan=PLAN)
        elif act == "charge":
            ledger.charge(proposal, number)
        else:
            ledger.release_reservation(proposal, by="x", reason="late", round_number=number)
    except Refused:
        return False
    return True


class Fighter:
    """One worker process and the end of its pipe."""

    def __init__(self, path: Path, population: str, seed: int) -> None:
        self.pipe, theirs = CONTEXT.Pipe(duplex=False)
        self.process: ForkProcess = CONTEXT.Process(target=_fight, args=(path, population, seed, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def confirmed(self) -> list[tuple[str, str, int, bool]]:
        """Return what the worker has said so far; a half-written last word is no word."""
        said = []
        try:
            while self.pipe.poll():
                said.append(self.pipe.recv())
        except (EOFError, OSError):
            pass
        return said

    def kill(self) -> None:
        os.kill(self.process.pid or 0, signal.SIGKILL)
        self.process.join()


@pytest.mark.slow
def test_ten_thousand_attempts_of_eight_killed_processes_never_overspend(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", IDENTITY)
    population = ledger.register_dataset("brca", 1, [case_hash(b"k" * 32, "a")])
    ledger.set_cap(population, epsilon=3.0, delta=1e-4, by="B. Steward", reason="board")
    ledger.close()
    generator = random.Random(1)  # noqa: S311, chooses whom to kill
    fighters = [Fighter(ledger.path, population, seed) for seed in range(WORKERS)]
    said: list[tuple[str, str, int, bool]] = []
    kills = 0
    deadline = time.monotonic() + 300
    while len(said) < ATTEMPTS:
        assert time.monotonic() < deadline, f"only {len(said)} attempts"
        time.sleep(generator.uniform(0.1, 0.6))
        victim = generator.randrange(WORKERS)
        fighters[victim].kill()
        kills += 1
        for fighter in fighters:
            said += fighter.confirmed()
        fighters[victim] = Fighter(ledger.path, population, 1000 + kills)
    for fighter in fighters:
        fighter.kill()
        said += fighter.confirmed()
    _check_books(tmp_path, population, said)
    assert kills > 5


def _check_books(folder: Path, population: str, said: list[tuple[str, str, int, bool]]) -> None:
    ledger = Ledger(folder / "ledger.sqlite", IDENTITY)
    result = verify_folder(folder)
    assert result.holds, result.findings
    account = ledger.account(population)
    assert 0.9 < account.committed.share <= 1 + 1e-9  # the budget was fought for
    charges = list(ledger.entries(kind="charge"))
    charged = {(entry.body["proposal_hash"], entry.body["round"]) for entry in charges}
    assert len(charged) == len(charges)  # nothing twice
    assert {(p, n) for act, p, n, done in said if act == "charge" and done} <= charged  # nothing lost
    total = sum((cost_from_json(entry.body["cost"]) for entry in charges), ZERO)
    assert account.spent.cost.rdp == pytest.approx(total.rdp, rel=1e-9)
    reserved = {entry.body["proposal_hash"] for entry in ledger.entries(kind="reserve")}
    assert {p for act, p, _, done in said if act == "reserve" and done} <= reserved
    assert any(act == "reserve" and not done for act, _, _, done in said)
