"""``tessera datasite budget`` and ``reload`` on a hospital's folder."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from datasites.hospital.cli import app
from datasites.node.home import Home
from datasites.review.accounts import AccountStore
from privacy.ledger.costs import StudyCost, gaussian_cost
from privacy.ledger.ledger import Ledger, case_hash

PASSWORD = "correct horse battery staple"
STUDY = StudyCost(rounds=4, round=gaussian_cost(3.0))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "alba"
    init = ["init", "--home", str(folder), "--name", "alba", "--institution", "Alba"]
    assert CliRunner().invoke(app, [*init, "--orchestrator-url", "http://127.0.0.1:1"]).exit_code == 0
    (folder / "policy.toml").write_text("[budget]\nepsilon_cap = 8.0\ndelta = 1e-5\n")
    now = dt.datetime.now(dt.UTC)
    accounts = AccountStore(folder / "accounts.sqlite")
    for name, role in (("anna", "steward"), ("bela", "privacy-officer")):
        accounts.register(accounts.invite(role, now=now), name, PASSWORD, now=now)
    accounts.close()
    ledger = Ledger(folder / "ledger.sqlite", Home(folder=folder).identity())
    population = ledger.register_dataset("lung", 1, [case_hash(bytes(32), "case")])
    ledger.set_cap(population, epsilon=8.0, delta=1e-5, by="policy file", reason="published")
    ledger.reserve(population, study="pilot", proposal_hash="a" * 64, plan=STUDY)
    ledger.charge("a" * 64, 1)
    ledger.close()
    return folder


def run(home: Path, *arguments: str, password: str = PASSWORD) -> Any:
    return CliRunner().invoke(app, [*arguments, "--home", str(home)], input=f"{password}\n")


def shown(home: Path) -> Any:
    return json.loads(run(home, "budget", "show", "--json").stdout.splitlines()[-1])["budgets"][0]


def test_show_says_what_is_reserved_and_what_still_fits(home: Path) -> None:
    budget = shown(home)
    assert [(r["study"], r["rounds"]) for r in budget["reservations"]] == [("pilot", 3)]
    fitting = {room["epsilon"]: room["studies"] for room in budget["room"]}
    assert fitting[0.5] > fitting[1.0] > fitting[2.0] >= 1 and fitting[8.0] == 0


def test_release_cap_and_close_ask_for_a_password_and_leave_their_reason(home: Path) -> None:
    who = ("--by", "anna", "--reason", "board decision 15", "--password-stdin")
    assert run(home, "budget", "release", "--study", "pilot", *who, password="wrong").exception is not None
    assert run(home, "budget", "release", "--study", "pilot", *who).exit_code == 0
    budget = shown(home)
    assert budget["reservations"] == [] and budget["returned"][0]["reason"] == "board decision 15"
    assert budget["spent"] == budget["reserved"] > 0
    assert run(home, "budget", "cap", "--epsilon", "4", *who).exit_code == 0
    assert shown(home)["cap"] == 4.0 and "epsilon_cap = 4.0" in (home / "policy.toml").read_text()
    assert run(home, "budget", "close", "--population", "population-1", *who).exit_code == 0
    assert shown(home)["closed"]


def test_reload_shows_what_differs_and_moves_the_cap(home: Path) -> None:
    assert "nothing differs" in run(home, "reload").output
    (home / "policy.toml").write_text("[budget]\nepsilon_cap = 3.0\ndelta = 1e-5\n")
    done = run(home, "reload", "--json")
    assert done.exit_code == 0 and "budget.epsilon_cap: 8 -> 3" in done.output
    assert shown(home)["cap"] == 3.0
    (home / "policy.toml").write_text("[budget]\nepsilon_cap = 0\n")
    assert run(home, "reload").exit_code != 0
