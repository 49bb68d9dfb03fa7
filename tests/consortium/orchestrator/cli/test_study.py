"""Studies, rosters and invitations from the command line: what they print, and which exit code a mistake gets."""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path

import pytest

from datasites.node.home import Config, Home
from datasites.node.process import announce, bind
from datasites.review.accounts import AccountStore
from orchestrator.cli import main, study
from orchestrator.studies.run import result_folder, wait
from privacy.errors import TesseraError

SITES = 3


@pytest.fixture
def run(capsys, monkeypatch):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tessera", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        return ended.value.code, out, " ".join(err.split())

    return call


@pytest.fixture(scope="module")
def consortium(running):
    made = running.among(SITES)
    made.propose("trained", rounds=2)
    with made.working():
        made.wait("trained", "finished")
    made.propose("unread", approve=False)
    return made


@pytest.fixture
def home(consortium):
    return consortium.homes["orchestrator"].folder


class Silent:
    def __init__(self):
        self.said = []

    def step(self, text):
        self.said.append(text)

    note = step

    def rounds(self, done, total, text):
        self.said.append((done, total, text))


FILED = ("--filing", str(Path(__file__).parents[4] / "docker" / "filing.toml"))


def test_waiting_for_an_approval_says_whose_and_ends_when_asked_to(consortium):
    view = Silent()
    with pytest.raises(TesseraError, match="still waiting"):
        wait(consortium.homes["orchestrator"], "unread", view, timeout_seconds=0, sleep=lambda _: None)
    assert view.said[0] == "Waiting for approval by site-0, site-1, site-2"


def test_a_name_that_is_taken_is_refused_before_anything_is_sent(run, home):
    code, _, err = run("propose", "trained", "--home", home, *FILED)
    assert code == 3
    assert "tessera study wait trained" in err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--noise", "loud"], "--noise out of local, shared"),
        (["--model", "oracle"], "--model out of"),
        (["--epsilon", "0"], "--epsilon above 0"),
        (["--aggregation", "magic"], "--aggregation out of"),
    ],
)
def test_a_wish_that_makes_no_sense_is_a_usage_error(run, home, options, problem):
    code, _, err = run("study", "run", "new", "--home", home, *options)
    assert code == 2
    assert problem in err


def test_proximity_weights_under_shared_noise_are_denied_before_anything_is_sent(run, home):
    code, _, err = run("propose", "new", "--home", home, "--noise", "shared", "--aggregation", "dgb+pcw")
    assert code == 3
    assert "use local noise" in err


def test_a_study_that_is_not_there_is_a_usage_error(run, home):
    assert run("study", "wait", "nothing", "--home", home)[0] == 2
    assert run("study", "resume", "nothing", "--home", home)[0] == 2


def test_results_lie_under_the_studys_name_where_it_is_a_plain_one(consortium):
    home = consortium.homes["orchestrator"]
    assert result_folder(home, "pilot-2_b").name == "pilot-2_b"
    for name in ("../other", "a/b", "", "état"):
        found = result_folder(home, name)
        assert found.parent == home.folder / "results"
        assert len(found.name) == 64


def test_printed_parties_become_one_roster_that_every_role_can_read(run, tmp_path):
    files = []
    for role, name in (
        ("orchestrator", "o"),
        ("keyholder", "k"),
        ("datasite", "a"),
        ("datasite", "b"),
        ("datasite", "c"),
    ):
        url = [] if role == "orchestrator" else ["--orchestrator-url", "https://o.example"]
        code, out, _ = run(role, "init", "--home", tmp_path / name, "--name", name, "--institution", name.upper(), *url)
        assert code == 0
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(out)
    code, out, err = run("roster", *files, "--out", tmp_path / "a" / "roster.json")
    assert code == 0
    assert json.loads(out)["parties"] == 5
    assert json.loads(files[2].read_text())["fingerprint"] in err
    home = Home(folder=tmp_path / "a")
    assert home.roster().by_name("a").public_key == home.identity().public_key
    code, _, err = run("roster", *files[:3], "--out", tmp_path / "short.json")
    assert code == 2
    assert "at least three hospitals" in err


def test_an_invitation_is_a_link_to_the_portal_that_registers_one_person(run, tmp_path):
    Home.create(tmp_path, Config(name="a", institution="A", role="datasite", orchestrator_url=""))
    assert run("datasite", "invite", "--home", tmp_path)[0] == 2
    with bind("127.0.0.1", 0) as listener:
        announce(tmp_path, listener, "datasite", public_url="https://portal.example")
    code, out, _ = run("datasite", "invite", "--home", tmp_path, "--role", "auditor")
    assert code == 0
    address, token = out.strip().split("?token=")
    assert address == "https://portal.example/register"
    accounts = AccountStore(tmp_path / "accounts.sqlite")
    assert accounts.invitation_role(token, now=dt.datetime.now(dt.UTC)) == "auditor"
    accounts.close()
    assert run("datasite", "invite", "--home", tmp_path, "--role", "king")[0] == 2


def test_serving_somebody_who_is_not_expected_says_who_is(run, tmp_path):
    consortium = Path(__file__).parents[4] / "docker" / "three.toml"
    common = ["--home", tmp_path / "h", "--exchange", tmp_path, "--consortium", consortium]
    code, _, err = run("serve", "hospital-z", *common)
    assert code == 2
    assert "hospital-a, hospital-b, hospital-c" in err
    assert not (tmp_path / "h").exists()


@pytest.mark.parametrize(("options", "rounds", "centred"), [([], 12, True), (["--rounds", "12"], 12, False)])
def test_rounds_that_nobody_named_come_with_the_schedule_that_suits_the_noise(
    run, home, monkeypatch, options, rounds, centred
):
    sent = []
    monkeypatch.setattr(
        study, "proposing", lambda _, settings, *__: sent.append(settings) or {"proposal_hash": "0" * 64}
    )
    assert run("propose", "new", "--home", home, *FILED, *options)[0] == 0
    assert (sent[0].rounds, sent[0].centred, sent[0].noise) == (rounds, centred, "shared")
