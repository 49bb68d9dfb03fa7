"""A ledger whose process is killed in the middle of a charge."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support.charges import is_charged

from privacy.identity import Identity
from privacy.ledger.costs import StudyCost, gaussian_cost
from privacy.ledger.ledger import Ledger, case_hash

IDENTITY = Identity.from_seed(bytes(32))
STUDY = StudyCost(rounds=10, round=gaussian_cost(6.0))  # about epsilon 2 in all


def new_ledger(tmp_path: Path) -> tuple[Ledger, str]:
    ledger = Ledger(tmp_path / "ledger.sqlite", IDENTITY)
    population = ledger.register_dataset("brca", 1, [case_hash(bytes(32), "case")])
    ledger.set_cap(population, epsilon=8.0, delta=1e-5, by="B. Steward", reason="board decision")
    return ledger, population


def reserve(ledger: Ledger, population: str) -> str:
    proposal_hash = f"{'pilot':0<64}"
    ledger.reserve(population, study="pilot", proposal_hash=proposal_hash, plan=STUDY)
    return proposal_hash


def test_a_process_killed_between_any_two_statements_loses_no_charge_and_charges_nothing_twice(tmp_path: Path) -> None:
    """Each child dies at another statement of the charge; repeating the charge always gives one entry."""
    ledger, population = new_ledger(tmp_path)
    proposal = reserve(ledger, population)
    ledger.close()
    returned = 0
    for statement in range(1, 16):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _charge_and_die_at(ledger.path, proposal, statement, writer)
        os.close(writer)
        told = os.read(reader, 1)
        os.close(reader)
        os.waitpid(child, 0)
        fresh = Ledger(ledger.path, IDENTITY)
        if told:
            returned += 1
            assert is_charged(fresh, proposal, 1)  # whoever was told that it is charged finds it charged
        fresh.verify()
        fresh.close()
    assert returned >= 1
    final = Ledger(ledger.path, IDENTITY)
    final.charge(proposal, 1)
    assert len(list(final.entries(kind="charge"))) == 1
    assert final.spent(population).cost == STUDY.round


def _charge_and_die_at(path: Path, proposal: str, statement: int, writer: int) -> None:
    ledger = Ledger(path, IDENTITY)
    count = 0

    def trace(sql: str) -> None:
        nonlocal count
        count += 1
        if count == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    ledger._chain._connect().set_trace_callback(trace)
    ledger.charge(proposal, 1)
    os.write(writer, b"1")
    os._exit(0)
