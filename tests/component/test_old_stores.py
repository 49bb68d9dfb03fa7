"""Folders that commit 4c19b18 wrote, before stores had versions: they are read, verified, reported and gone on with.

``tests/fixtures/stores-4c19b18`` holds the archive, its manifest, and the scripts that made it with that commit's code.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from support.old_stores import HOSPITALS, MANIFEST, ROLES, SCHEMAS, contents, open_store, snapshot, unpack
from typer.testing import CliRunner

from datasites.hospital.datasite import Datasite
from datasites.hospital.reports import summary, write_reports
from datasites.node.home import Home
from datasites.node.letters import Place
from datasites.review.accounts import AccountStore
from orchestrator.cli.main import app
from orchestrator.rounds import tables as orchestrator_tables
from orchestrator.rounds.store import Store
from orchestrator.studies.status import read_status
from privacy.errors import BudgetExceeded, NewerStore, Refused
from privacy.ledger.costs import Cost, StudyCost, gaussian_cost
from privacy.ledger.head_file import head_file
from privacy.ledger.verification import heads_seen_by, verify_folder
from privacy.storage import VERSION_TABLE, structure, version_of

NOW = dt.datetime.fromisoformat(MANIFEST["made"])


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The unpacked fixture, of which a test may do with as it likes."""
    return unpack(tmp_path / "old")


@pytest.fixture
def consortium(old: Path) -> Path:
    return old / "consortium"


def test_every_store_is_migrated_at_its_first_opening_and_keeps_every_row(old: Path) -> None:
    found = sorted(old.rglob("*.sqlite"))
    assert {path.name for path in found} == set(SCHEMAS)
    for path in found:
        schema, before = SCHEMAS[path.name], contents(path)
        assert version_of(path) is None
        for _ in range(2):
            open_store(path).close()
            assert version_of(path) == schema.current, path
            assert _in_old_shape(contents(path), before) == before, path
        with contextlib.closing(sqlite3.connect(path)) as connection:
            sql = {s for (s,) in connection.execute("SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")}
        assert {_plain(s) for s in sql} == {_plain(s) for s in structure(schema, schema.current) if "sqlite_" not in s}


def _in_old_shape(now: dict[str, list[tuple[Any, ...]]], before: dict[str, list[tuple[Any, ...]]]) -> dict[str, Any]:
    """What a store holds now, without the columns and the tables that its migrations added; those tables are empty."""
    assert not any(rows for name, rows in now.items() if name not in before)
    width = {name: len(rows[0]) if rows else 0 for name, rows in before.items()}
    return {name: [row[: width[name]] for row in now[name]] for name in before}


def _plain(statement: str) -> str:
    """A statement without the white space that SQLAlchemy puts elsewhere."""
    return " ".join(statement.split()).replace("( ", "(").replace(" )", ")").replace(" ,", ",")


def test_verify_reads_an_old_folder_as_it_is_and_changes_nothing(consortium: Path) -> None:
    for role in ROLES:
        before, manifest = snapshot(consortium / role), MANIFEST["roles"][role]
        key = manifest["public_key"]
        seen = [h for p in ROLES if p != role for h in heads_seen_by(consortium / p, role)]
        result = verify_folder(consortium / role, public_key=key, name=role, heads=seen)
        assert result.holds, result.findings
        assert result.heads_compared == manifest["heads_compared"]
        for facts in result.chains:
            expected = manifest[facts.file.removesuffix(".sqlite")]
            assert (facts.entries, facts.head, facts.last) == (expected["entries"], expected["head"], expected["last"])
        assert snapshot(consortium / role) == before


def test_the_command_verifies_and_shows_an_old_folder_without_writing(consortium: Path) -> None:
    for role in ROLES:
        before = snapshot(consortium / role)
        done = CliRunner().invoke(app, ["verify", str(consortium / role), "--json"])
        assert done.exit_code == 0, done.output
        assert snapshot(consortium / role) == before


def test_status_shows_the_old_budget_and_requests_and_changes_nothing(old: Path) -> None:
    expected = json.loads((old / "expected" / "status.json").read_bytes())
    for site in HOSPITALS:
        folder = old / "consortium" / site
        before = snapshot(folder)
        found = json.loads(json.dumps(read_status(Home(folder=folder), answer_seconds=0.1).to_json()))
        assert found["problem"] != ""  # no orchestrator runs
        for part in ("role", "name", "budget", "requests"):
            assert found[part] == expected[site][part]
        assert snapshot(folder) == before


def test_verify_still_judges_the_tables_of_an_old_chain_after_its_migration(consortium: Path) -> None:
    path = consortium / "hospital-a" / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER entries_are_never_deleted")
    for _ in range(2):
        assert "triggers" in verify_folder(path.parent).findings[0].message
        open_store(path).close()
    assert version_of(path) == "chain_0001"


@pytest.mark.parametrize("role", ROLES)
def test_journals_go_on_after_their_last_old_entry(consortium: Path, role: str) -> None:
    expected = MANIFEST["roles"][role]["journal"]
    journal = open_store(consortium / role / "journal.sqlite")
    assert (journal.head.index, journal.head.hash) == (expected["entries"], expected["head"])
    entry = journal.append("upgraded", {"share": 1.0, "small": 1e-05})
    assert (entry.index, entry.previous_hash) == (expected["entries"] + 1, expected["head"])
    journal.verify()
    journal.close()
    assert json.loads(head_file(journal.path).read_bytes())["index"] == entry.index
    assert verify_folder(consortium / role).holds


def test_ledgers_go_on_with_what_was_spent_before(consortium: Path) -> None:
    for site in HOSPITALS:
        expected = MANIFEST["roles"][site]["ledger"]
        ledger = open_store(consortium / site / "ledger.sqlite")
        assert (ledger.head.index, ledger.head.hash) == (expected["entries"], expected["head"])
        for name, spent in MANIFEST["reports"][site]["populations"].items():
            account = ledger.account(name)
            assert account.spent.epsilon == pytest.approx(spent["epsilon_spent"])
            assert account.committed.epsilon == pytest.approx(spent["epsilon_promised_and_spent"])
            ledger.set_cap(
                name, epsilon=account.cap.epsilon + 1, delta=account.cap.delta, by="A. Steward", reason="more"
            )
        ledger.verify()
        assert summary(ledger, site)["site"] == site
        ledger.close()
        assert verify_folder(consortium / site).holds


def test_an_old_ledger_keeps_its_charges_beside_new_ones_under_a_cap_that_moves(consortium: Path) -> None:
    """Neither lost nor invented: old entries count by their Rényi curve, new ones exactly, both together."""
    ledger = open_store(consortium / HOSPITALS[0] / "ledger.sqlite")
    (population,) = ledger.populations()
    before = ledger.account(population)
    for posting in before.releases:  # a datasite that starts again publishes the same count
        entry = ledger.release(
            population, name=posting.name, cost=gaussian_cost(10.0), by=posting.by, reason=posting.reason
        )
        assert entry.index == posting.index
    assert ledger.account(population).spent == before.spent
    study = StudyCost(rounds=4, round=gaussian_cost(4.0))
    for epsilon in (30.0, 20.0):
        ledger.set_cap(population, epsilon=epsilon, delta=before.spent.delta, by="A. Steward", reason="moved")
    ledger.reserve(population, study="new", proposal_hash="e" * 64, plan=study)
    ledger.charge("e" * 64, 1)
    spent = ledger.account(population).spent
    assert spent.cost.rdp == pytest.approx((before.spent.cost + study.round).rdp)
    assert before.spent.epsilon < spent.epsilon < (before.spent.cost + Cost(rdp=study.round.rdp)).epsilon(spent.delta)
    ledger.set_cap(population, epsilon=before.spent.epsilon, delta=spent.delta, by="A. Steward", reason="lower")
    with pytest.raises(BudgetExceeded, match="round 2 does not fit"):
        ledger.charge("e" * 64, 2)
    ledger.verify()
    ledger.close()
    assert verify_folder(consortium / HOSPITALS[0]).holds


def test_chains_full_of_numbers_that_rfc_8785_writes_otherwise_hold_and_go_on(old: Path) -> None:
    expected = MANIFEST["chains"]
    assert verify_folder(old / "chains").holds
    journal, ledger = (open_store(old / "chains" / f"{purpose}.sqlite") for purpose in ("journal", "ledger"))
    for found in (journal, ledger):
        assert found.head.hash == expected["heads"][found.head.chain]["hash"]
        found.verify()
    (population,) = ledger.populations()
    assert ledger.account(population).spent.epsilon == pytest.approx(expected["epsilon_spent"])
    assert ledger.account(population).committed.epsilon == pytest.approx(expected["epsilon_reserved"])
    ledger.charge("f" * 64, 2)
    journal.append("floats", {"values": [1.0, 1e-05, 1e16]})
    journal.close()
    ledger.close()
    assert verify_folder(old / "chains").holds


def test_people_sign_in_with_their_old_passwords_and_invite_others(consortium: Path) -> None:
    for site in HOSPITALS:
        store = AccountStore(consortium / site / "accounts.sqlite")
        people = [person for person in MANIFEST["people"] if person["site"] == site]
        assert {a.name: a.role for a in store.accounts()} == {p["name"]: p["role"] for p in people}
        for person in people:
            account = store.authenticate(person["name"], person["password"], now=NOW)
            assert store.unlock(person["name"], person["password"]).public_key == account.public_key
        link = store.invite("auditor", now=NOW)
        store.register(link, "newcomer", "a long pass phrase", now=NOW)
        store.close()
    again = AccountStore(consortium / HOSPITALS[0] / "accounts.sqlite")
    assert again.authenticate("newcomer", "a long pass phrase", now=NOW).role == "auditor"
    again.close()


@pytest.fixture
def datasites(consortium: Path) -> Iterator[dict[str, Datasite]]:
    with contextlib.ExitStack() as stack:
        opened = {site: Datasite.open(Home(folder=consortium / site)) for site in HOSPITALS}
        for datasite in opened.values():
            stack.callback(datasite.close)
        yield opened


def test_requests_keep_their_state_and_a_waiting_one_is_decided(datasites: dict[str, Datasite]) -> None:
    for site, datasite in datasites.items():
        found = {request.proposal.study: request for request in datasite.approvals.requests()}
        assert set(found) == set(MANIFEST["requests"][site])
        for study, expected in MANIFEST["requests"][site].items():
            request = found[study]
            assert request.state == expected["state"]
            assert [s.reviewer for s in request.signatures] == expected["signatures"]
            assert [d.kind for d in request.decisions] == expected["decisions"]
            assert request.proposal.proposal_hash == MANIFEST["studies"][study]["proposal_hash"]
            assert request.proposal.plan_hash == MANIFEST["studies"][study]["plan_hash"]
        waiting = [request for request in found.values() if request.state == "pending"]
        steward = next(a for a in datasite.accounts.accounts() if a.role == "steward")
        for request in waiting:
            decided = datasite.approvals.deny(request.proposal_hash, reviewer=steward, reason="no legal basis", now=NOW)
            assert decided.state == "denied"
        datasite.journal.verify()


def test_an_approved_study_of_older_code_trains_no_more_and_says_why(datasites: dict[str, Datasite]) -> None:
    """Approval covers the software; what was approved for 4c19b18 is not what runs now."""
    for datasite in datasites.values():
        before = datasite.ledger.head
        with pytest.raises(Refused, match=r"the software is not the approved one: .*; propose the study again"):
            datasite.participant._proposal("begun")
        assert datasite.ledger.head.hash == before.hash
        (refused,) = datasite.journal.entries(
            kind="round-refused", since=MANIFEST["roles"][datasite.site]["journal"]["entries"]
        )
        assert "the software is not the approved one" in refused.body["reason"]


def test_reports_give_the_numbers_that_older_code_gave(consortium: Path) -> None:
    for site in HOSPITALS:
        home = Home(folder=consortium / site)
        write_reports(home)
        report = json.loads((home.folder / "reports" / "privacy-report.json").read_bytes())
        expected = MANIFEST["reports"][site]
        assert report["summary"]["verdict"].startswith("The privacy limit that the owner set was kept")
        for found in report["populations"]:
            wanted = expected["populations"][found["name"]]
            assert found["cap"]["value"] == wanted["cap"]
            assert found["spent"]["value"] == pytest.approx(wanted["epsilon_spent"])
            assert found["promised_and_spent"]["value"] == pytest.approx(wanted["epsilon_promised_and_spent"])
        assert {s["study"] for s in report["studies"]} == set(expected["studies"])
        for found in report["studies"]:
            for name, wanted in expected["studies"][found["study"]].items():
                value = found[name]["value"] if isinstance(found[name], dict) else found[name]
                assert value == (pytest.approx(wanted) if isinstance(wanted, float) else wanted), (found["study"], name)
        assert [f"{line['study']}: {line['what']}" for line in report["denied"]] == expected["denied"]
        assert len(report["audits"]) == expected["audits"]
        assert all(c["holds"] for c in report["chains"]) == expected["chains_hold"]


def test_the_keyholder_answers_as_before_and_keeps_its_open_keys(consortium: Path) -> None:
    keys = consortium / "keyholder" / "keys"
    before = snapshot(keys)
    opened = open_store(keys / "answers.sqlite")
    (rounds,) = [rows for name, rows in contents(keys / "answers.sqlite").items() if name == "rounds"]
    assert opened.answered() == [(row[0], row[1]) for row in rows_in(rounds, "answered")]
    for study, number, *_ in rows_in(rounds, "open"):
        key = opened.round_key(study, number)
        assert opened._keys.load(key)
        assert not opened.lacks(key)
    opened.close()
    assert {n: b for n, b in snapshot(keys).items() if n.endswith(".key")} == {
        n: b for n, b in before.items() if n.endswith(".key")
    }


def rows_in(rounds: list[tuple[Any, ...]], state: str) -> list[tuple[Any, ...]]:
    return [row for row in rounds if row[6] == state]


def _check_studies(store: Store) -> None:
    """The orchestrator knows every study, its rounds and models, and may write more."""
    assert {name for name, *_ in store.studies()} == set(MANIFEST["studies"])
    for name, expected in MANIFEST["studies"].items():
        _, state, reason = store.study(name)
        assert (state, reason) == (expected["state"], expected["reason"])
        done = store.last_round(name, "checkpoint")
        assert done == expected["rounds_completed"]
        documents = [store.document(name, n, "checkpoint" if n else "initial") for n in range(done + 1)]
        assert [d and d.get("model_hash") for d in documents] == expected["model_hashes"]
        assert sorted(store.documents(name, done + 1, "update")) == expected["updates_of_open_round"]
        sealed = store.study(name)[0]
        store.add_study(name, sealed)  # the very same: no error
    assert store.put_document("begun", 9, "plan", {"share": 1.0})
    assert not store.put_document("begun", 9, "plan", {"share": 1.0})
    store.set_state("undecided", "paused", "looked at by newer code")


def test_the_orchestrator_goes_on_with_its_studies(consortium: Path) -> None:
    store = Store(consortium / "orchestrator" / "store")
    _check_studies(store)
    store.close()
    store = Store(consortium / "orchestrator" / "store")
    assert store.study("undecided")[1:] == ("paused", "looked at by newer code")
    store.close()


@pytest.mark.slow
def test_the_orchestrator_goes_on_with_its_studies_in_postgresql(
    old: Path, tmp_path: Path, postgres: Callable[[str], str]
) -> None:
    url = postgres("old_stores")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql((old / "postgres" / "orchestrator.sql").read_text(encoding="utf-8"))
    store = Store(tmp_path / "store", url)
    _check_studies(store)
    store.close()
    _same_as_the_tables_that_queries_name(engine)


def test_the_mailbox_goes_on_with_its_letters(consortium: Path) -> None:
    box = open_store(next(consortium.rglob("mailbox.sqlite")))
    for site in HOSPITALS:
        for item in box.news(site, 0, 1000):
            letter = box.get(item.place)
            assert letter is None if not item.sha256 else len(letter) == item.size_bytes
    before = box.sequence
    place = Place(owner=HOSPITALS[0], box="inbox", folder="orchestrator", name="later.json")
    assert box.put(place, b"later") == before + 1
    assert [item.place for item in box.news(HOSPITALS[0], before, 10)] == [place]
    box.close()


def _same_as_the_tables_that_queries_name(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, orchestrator_tables.METADATA) == []
    engine.dispose()


def test_the_orchestrators_tables_are_those_that_its_queries_name(tmp_path: Path) -> None:
    Store(tmp_path).close()
    _same_as_the_tables_that_queries_name(sa.create_engine(f"sqlite:///{tmp_path / 'orchestrator.sqlite'}"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_store_refuses_what_newer_code_wrote(name: str, old: Path) -> None:
    path = sorted(old.rglob(name))[0]
    open_store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = ?", (f"{SCHEMAS[name].name}_9999",))  # noqa: S608
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    with pytest.raises(NewerStore, match="a newer Tessera wrote it"):
        open_store(path)
    assert path.read_bytes() == before


def test_verify_says_that_a_newer_folder_cannot_be_checked(consortium: Path) -> None:
    path = consortium / "keyholder" / "journal.sqlite"
    open_store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = 'chain_9999'")  # noqa: S608
    (finding,) = verify_folder(path.parent).findings
    assert finding.message.startswith("cannot be checked: expected journal.sqlite at version chain_0001 or older")
