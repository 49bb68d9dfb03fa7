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
from datasites.review import accounts as accounts_module
from datasites.review.accounts import AccountStore, Hardness
from datasites.review.endings import held_rounds
from privacy.ledger.costs import StudyCost, gaussian_cost
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger, case_hash

PASSWORD = "correct horse battery staple"
STUDY = StudyCost(rounds=4, round=gaussian_cost(3.0))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hospital with two people and a study; its commands derive keys from passwords in no time."""
    monkeypatch.setattr(accounts_module, "Hardness", lambda: Hardness(passes=1, memory_kib=64, lanes=1))
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


def test_release_cap_note_and_close_ask_for_a_password_and_leave_their_reason(home: Path) -> None:
    who = ("--by", "anna", "--reason", "board decision 15", "--password-stdin")
    assert run(home, "budget", "release", "--study", "pilot", *who, password="wrong").exception is not None
    assert run(home, "budget", "release", "--study", "pilot", *who).exit_code == 0
    budget = shown(home)
    assert budget["reservations"] == [] and budget["returned"][0]["reason"] == "board decision 15"
    assert budget["spent"] == budget["reserved"] > 0
    assert run(home, "budget", "cap", "--epsilon", "4", *who).exit_code == 0
    assert shown(home)["cap"] == 4.0 and "epsilon_cap = 4.0" in (home / "policy.toml").read_text()
    assert run(home, "budget", "note", "--population", "population-1", "--what", "a plot", *who).exit_code == 0
    assert [(one["name"], one["reason"]) for one in shown(home)["by_hand"]] == [("a plot", "board decision 15")]
    assert "without a guarantee: a plot" in run(home, "budget", "show").output
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


def test_a_raised_cap_in_the_file_takes_two_where_the_policy_before_it_says_so(home: Path) -> None:
    policy = home / "policy.toml"
    policy.write_text(policy.read_text() + "required_people = 2\n")
    assert run(home, "reload").exit_code == 0
    policy.write_text(policy.read_text().replace("8.0", "12.0"))
    refused = run(home, "reload")
    assert refused.exception is not None and "takes several people" in str(refused.exception)
    assert shown(home)["cap"] == 8.0
    who = ("--reason", "board decision 15", "--password-stdin")
    assert run(home, "reload", "--by", "anna", *who).exit_code == 0
    assert shown(home)["cap"] == 8.0
    assert "already" in str(run(home, "reload", "--by", "anna", *who).exception)
    assert run(home, "reload", "--by", "bela", *who).exit_code == 0
    assert shown(home)["cap"] == 12.0


@pytest.mark.parametrize("wanted", [True, False])
def test_whoever_acts_with_a_security_key_is_sent_to_the_portal(home: Path, wanted: bool) -> None:
    if wanted:
        policy = home / "policy.toml"
        policy.write_text(policy.read_text() + '[people]\nsecurity_key = "required"\n')
    else:
        accounts = AccountStore(home / "accounts.sqlite")
        values = ("00", "anna", b"", 0, "key", "localhost", "", "")
        accounts._rows.run("INSERT INTO security_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values)
        accounts.close()
    found = run(home, "budget", "cap", "--epsilon", "9", "--by", "anna", "--reason", "board", "--password-stdin")
    assert "security key" in str(found.exception)
    assert shown(home)["cap"] == 8.0


def test_a_study_goes_on_after_a_failed_round_once_a_person_says_so(home: Path) -> None:
    who = ("--study", "pilot", "--by", "anna", "--reason", "the disk was remounted", "--password-stdin")
    assert "waits for a person" in str(run(home, "continue", *who).exception)
    identity = Home(folder=home).identity()
    journal = Journal(home / "journal.sqlite", identity)
    journal.append("worker-failed", {"study": "pilot", "round": 1})
    assert run(home, "continue", *who, password="wrong").exception is not None
    assert held_rounds(journal, "pilot") == (1,)
    done = run(home, "continue", *who)
    assert done.exit_code == 0 and "goes on after the failed round 1" in done.output
    assert held_rounds(journal, "pilot") == ()
    said = list(journal.entries(kind="study-continued"))[-1].body
    assert said["by"].startswith("anna") and said["reason"] == "the disk was remounted"
    journal.close()
