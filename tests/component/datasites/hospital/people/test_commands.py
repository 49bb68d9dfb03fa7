"""``tessera datasite people|tokens|sessions|journal``: what an operator lists, ends and exports; what is journaled."""

from __future__ import annotations

import csv
import datetime as dt
import json
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from datasites.hospital.cli import app
from datasites.node.home import Home
from datasites.review.accounts import AccountStore
from datasites.review.key_wrapping import Hardness
from privacy.errors import InvalidInput, Refused
from privacy.ledger.journal import Journal

PASSWORD = "correct horse battery staple"
RFC5424 = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) "
    r'(?P<proc>[!-~]{1,128}) (?P<msgid>[!-~]{1,32}) \[meta sequenceId="(?P<number>[1-9]\d*)"\] (?P<msg>.*)'
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "alba"
    init = ["init", "--home", str(folder), "--name", "alba", "--institution", "Alba"]
    assert CliRunner().invoke(app, [*init, "--orchestrator-url", "http://127.0.0.1:1"]).exit_code == 0
    (folder / "policy.toml").write_text("")
    return folder


@pytest.fixture
def secrets(home: Path) -> dict[str, str]:
    """Two people, a session and a token of anna's; returns every secret there is."""
    now = dt.datetime.now(dt.UTC)
    accounts = AccountStore(home / "accounts.sqlite", hardness=Hardness(passes=1, memory_kib=64, lanes=1))
    for name, role in (("anna", "steward"), ("bela", "auditor")):
        accounts.register(
            accounts.invite(role, now=now), name, PASSWORD, now=now, full_name=f"Dr. {name.title()} Ö", function="x"
        )
    anna = accounts.account("anna")
    session, _ = accounts.open_session(anna, now=now)
    token, _ = accounts.issue_token(anna, scopes=("read",), label="nightly", days=3, now=now)
    accounts.close()
    return {"password": PASSWORD, "session": session, "token": token}


def run(home: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--home", str(home)])


def shown(home: Path, *arguments: str) -> Any:
    return json.loads(run(home, *arguments, "--json").stdout.splitlines()[-1])


def journal_of(home: Path) -> Journal:
    return Journal(home / "journal.sqlite", Home(folder=home).identity())


def test_people_are_listed_without_anything_secret(home: Path, secrets: dict[str, str]) -> None:
    found = run(home, "people", "list", "--json")
    people = json.loads(found.stdout.splitlines()[-1])["people"]
    assert [(p["name"], p["full_name"], p["role"], p["closed"]) for p in people] == [
        ("anna", "Dr. Anna Ö", "steward", False),
        ("bela", "Dr. Bela Ö", "auditor", False),
    ]
    assert "anna (Dr. Anna Ö, x): steward, confirmed, 0 security keys" in found.output
    assert not any(secret in found.output for secret in secrets.values())


@pytest.mark.parametrize(("what", "verb"), [("tokens", "revoke"), ("sessions", "end")])
def test_tokens_and_sessions_are_listed_and_ended(home: Path, secrets: dict[str, str], what: str, verb: str) -> None:
    (found,) = shown(home, what, "list")[what]
    assert (found["person"], len(found["key"])) == ("anna", 16)
    assert shown(home, what, "list", "--name", "bela")[what] == []
    assert isinstance(run(home, what, verb, "0" * 16).exception, InvalidInput)
    assert isinstance(run(home, what, "list", "--name", "nobody").exception, InvalidInput)
    assert run(home, what, verb, found["key"]).exit_code == 0
    assert shown(home, what, "list")[what] == []
    other = "sessions" if what == "tokens" else "tokens"
    assert len(shown(home, other, "list")[other]) == 1
    accounts = AccountStore(home / "accounts.sqlite")
    assert accounts.credential(secrets[what[:-1]], now=dt.datetime.now(dt.UTC)) is None
    accounts.close()
    entry = next(journal_of(home).entries(kind="credential-ended"))
    assert entry.body == {"person": "anna", "credential": found["key"], "by": "command line"}


def test_all_of_a_persons_sessions_end_and_lost_keys_are_forgotten(home: Path, secrets: dict[str, str]) -> None:
    assert run(home, "sessions", "end-all", "anna").exit_code == 0
    assert shown(home, "tokens", "list")["tokens"] == shown(home, "sessions", "list")["sessions"] == []
    accounts = AccountStore(home / "accounts.sqlite")
    values = ("00", "anna", b"", 0, "the blue one", "localhost", "", "")
    accounts._rows.run("INSERT INTO security_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values)
    assert run(home, "people", "forget-keys", "anna", "--reason", "x").exception is not None
    assert len(accounts.security_keys.of("anna")) == 1
    assert run(home, "people", "forget-keys", "anna", "--reason", "lost on the train").exit_code == 0
    assert accounts.security_keys.of("anna") == ()
    accounts.close()
    entry = next(journal_of(home).entries(kind="security-keys-forgotten"))
    assert entry.body == {"person": "anna", "keys": 1, "by": "command line", "reason": "lost on the train"}


def test_idle_minutes_come_from_the_policy(home: Path, secrets: dict[str, str]) -> None:
    later = (dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)).isoformat()
    accounts = AccountStore(home / "accounts.sqlite")
    accounts._rows.run("UPDATE credentials SET used = ?", later)
    accounts.close()
    assert len(shown(home, "sessions", "list")["sessions"]) == 1
    (home / "policy.toml").write_text("[people]\nidle_minutes = 4\n")
    assert shown(home, "sessions", "list")["sessions"] == []
    assert len(shown(home, "tokens", "list")["tokens"]) == 1  # tokens end by time only


# the journal


FORMULAS = ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "x;=cmd|'/c calc'!A1", 'a"b', "line\nbreak", "ä;ö"]


def told(home: Path) -> None:
    journal = journal_of(home)
    for text in FORMULAS:
        journal.append(text if text[0] in "=+-@" else "proposal-denied", {"person": "anna", "reason": text})
    journal.append("round-refused", {"reason": "the approval was revoked"})
    journal.close()


def test_a_csv_has_no_cell_that_a_spreadsheet_takes_for_a_formula(home: Path, tmp_path: Path) -> None:
    told(home)
    out = tmp_path / "journal.csv"
    assert shown(home, "journal", "--out", str(out)) == {"entries": 11, "last": 11}
    text = out.read_text()
    for dialect in (",", ";"):  # as spreadsheets of several countries split it
        for row in csv.reader(text.splitlines(), delimiter=dialect):
            assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row), (dialect, row)
    assert ";" not in text
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["number"] for row in rows] == [str(n) for n in range(1, 12)]
    assert [json.loads(row["body"])["reason"] for row in rows[:10]] == FORMULAS  # nothing is lost
    assert out.stat().st_mode & 0o077 == 0
    entry = next(journal_of(home).entries(kind="journal-exported"))
    assert entry.body == {"person": "command line", "to": "csv", "entries": 11}
    assert shown(home, "journal", "--out", str(out), "--since", "11") == {"entries": 1, "last": 12}
    assert shown(home, "journal", "--out", str(out), "--since", "12") == {"entries": 0, "last": 12}  # no echo


def test_kind_number_and_time_choose_entries_and_nonsense_is_refused(home: Path, tmp_path: Path) -> None:
    told(home)
    out = str(tmp_path / "journal.csv")
    assert shown(home, "journal", "--out", out, "--kind", "round-refused")["entries"] == 1
    assert shown(home, "journal", "--out", out, "--after", "2999-01-01")["entries"] == 0
    assert shown(home, "journal", "--out", out, "--before", "2000-01-01T00:00:00+02:00")["entries"] == 0
    for nonsense in (
        ("--out", out, "--after", "yesterday"),
        ("--out", out, "--syslog", "localhost:514"),
        ("--syslog", "localhost"),
        ("--syslog", "localhost:99999"),
        (),
    ):
        assert isinstance(run(home, "journal", *nonsense).exception, InvalidInput)


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "udp"])
def test_syslog_messages_are_those_of_rfc_5424(home: Path, tcp: bool) -> None:
    told(home)
    server = socket.create_server(("127.0.0.1", 0)) if tcp else socket.socket(type=socket.SOCK_DGRAM)
    if not tcp:
        server.bind(("127.0.0.1", 0))
    server.settimeout(120)
    got: list[str] = []

    def listen() -> None:
        if tcp:
            connection, _ = server.accept()
            with connection, connection.makefile("r", encoding="utf-8", newline="\n") as lines:
                got.extend(line.rstrip("\n") for line in lines)
        else:
            got.extend(server.recv(65536).decode() for _ in range(11))

    listener = threading.Thread(target=listen)
    listener.start()
    where = f"127.0.0.1:{server.getsockname()[1]}"
    assert run(home, "journal", "--syslog", where, *(["--tcp"] if tcp else [])).exit_code == 0
    listener.join(120)
    server.close()
    found = [RFC5424.fullmatch(message) for message in got]
    assert len(found) == 11 and all(found)
    assert [int(m["number"]) for m in found] == list(range(1, 12))
    assert [json.loads(m["msg"])["reason"] for m in found[:10]] == FORMULAS
    assert {m["host"] for m in found} == {"alba"} and {m["app"] for m in found} == {"tessera"}
    assert (found[-1]["msgid"], found[-1]["pri"]) == ("round-refused", str(13 * 8 + 4))  # audit, warning
    assert next(journal_of(home).entries(kind="journal-exported")).body["to"] == "syslog"


def test_a_syslog_server_that_is_not_there_is_said_and_nothing_is_journaled(home: Path) -> None:
    told(home)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    found = run(home, "journal", "--syslog", f"127.0.0.1:{port}", "--tcp")
    assert isinstance(found.exception, Refused) and "was not reached" in str(found.exception)
    assert list(journal_of(home).entries(kind="journal-exported")) == []
