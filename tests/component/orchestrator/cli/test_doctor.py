"""`tessera doctor` and `tessera status` on folders in all sorts of states; nothing is changed by looking."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from datasites.node.home import Config, Home
from datasites.node.rollback import GAP
from datasites.node.roster import Roster
from orchestrator.cli import doctor
from orchestrator.cli.operate import app
from orchestrator.studies.status import study_line
from privacy.identity import Identity
from privacy.ledger.chain import Chain
from privacy.ledger.journal import Journal


class Clock(BaseHTTPRequestHandler):
    ahead_seconds = 0.0

    def do_GET(self):
        self.send_response_only(200)
        self.send_header("Date", formatdate(__import__("time").time() + self.ahead_seconds, usegmt=True))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def clock():
    Clock.ahead_seconds = 0.0
    server = HTTPServer(("127.0.0.1", 0), Clock)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def home(tmp_path, clock):
    url = f"http://127.0.0.1:{clock.server_port}"
    parties = {}
    for name, role in (("orchestrator", "orchestrator"), ("keyholder", "keyholder"), ("hospital-a", "datasite")):
        config = Config(name=name, institution=name, role=role, orchestrator_url=url)
        parties[name] = Home.create(tmp_path / name, config).party()
    roster = Roster(
        orchestrator=parties["orchestrator"], keyholder=parties["keyholder"], sites=(parties["hospital-a"],)
    )
    for name in parties:
        roster.save(tmp_path / name / "roster.json")
    made = Home(folder=tmp_path / "hospital-a")
    (made.folder / "policy.toml").write_text("[budget]\nepsilon_cap = 3.0\n")
    journal = Journal(made.folder / "journal.sqlite", made.identity())
    journal.append("started", {"n": 1})
    journal.append("started", {"n": 2})
    journal.close()
    return made


def found(home, **options):
    return {check.name: check for check in doctor.examine(home.folder, **options)}


def test_a_good_home_passes_every_check(home):
    checks = found(home)
    assert [c for c in checks.values() if not c.ok] == []
    assert set(checks) == {
        *("settings", "keys", "roster", "orchestrator", "port", "datasets", "policy", "sandbox", "plain-jobs"),
        *("certificates", "chains", "times"),
        *("standing", "versions", "files", "disk"),
    }
    assert "2 entries" in checks["chains"].found
    result = CliRunner().invoke(app, ["doctor", "--home", str(home.folder), "--json"])
    assert (result.exit_code, json.loads(result.stdout)["ok"]) == (0, True)


def test_operations_lists_the_checks_that_there_are(home):
    page = (Path(__file__).parents[4] / "docs/operations.md").read_text()
    table = page.partition("| check | holds when |")[2].partition("\n\n")[0]
    listed = [name for line in table.splitlines()[2:] for name in line.split("|")[1].strip().split(", ")]
    assert listed == list(found(home))


def test_a_key_that_others_may_read_is_found(home):
    (home.folder / "identity.pem").chmod(0o644)
    check = found(home)["keys"]
    assert not check.ok
    assert "chmod go=" in check.advice
    result = CliRunner().invoke(app, ["doctor", "--home", str(home.folder)])
    assert result.exit_code == 1
    assert "BAD keys" in result.stderr


def test_a_missing_key_is_reported_and_not_made(home):
    (home.folder / "identity.pem").unlink()
    assert not found(home)["keys"].ok
    assert not (home.folder / "identity.pem").exists()


def test_a_folder_open_to_others_is_found(home):
    home.folder.chmod(0o755)
    assert "chmod 700" in found(home)["keys"].advice


def test_a_roster_with_another_key_of_this_role_is_found(home):
    roster = json.loads((home.folder / "roster.json").read_text())
    roster["sites"][0]["public_key"] = Identity.from_seed(b"x" * 32).public_key
    (home.folder / "roster.json").write_text(json.dumps(roster))
    assert "another key" in found(home)["roster"].found


def test_a_clock_that_is_minutes_off_is_found(home):
    Clock.ahead_seconds = -200.0
    check = found(home)["orchestrator"]
    assert not check.ok
    assert "200 s apart" in check.found or "199 s apart" in check.found or "201 s apart" in check.found


def test_an_orchestrator_that_does_not_answer_is_named(home, clock):
    clock.shutdown()
    clock.server_close()
    check = found(home)["orchestrator"]
    assert not check.ok
    assert "does not answer" in check.found


def test_a_port_that_somebody_else_holds_is_found(home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = {**home.config().__dict__, "port": other.getsockname()[1]}
        Home.create(home.folder, Config(**config))
        assert not found(home)["port"].ok


@pytest.fixture
def dataset(home):
    """The newest version of a dataset, complete, and an older one that nobody reads any more."""
    (home.folder / "datasets/lung/v1").mkdir(parents=True)
    newest = home.folder / "datasets/lung/v2"
    for part in ("private", "mock"):
        (newest / part).mkdir(parents=True)
        (newest / part / "table.parquet").write_bytes(b"rows")
    (newest / "schema.json").write_text("{}")
    return newest


def test_a_hospital_without_a_dataset_is_told_how_to_make_one(home):
    check = found(home)["datasets"]
    assert (check.ok, check.found) == (True, "none yet: tessera datasite ingest")


def test_a_whole_dataset_is_named_and_so_is_what_lies_beside_it_and_is_none(home, dataset):
    (dataset.parent / "v2.bak").mkdir()
    check = found(home)["datasets"]
    assert check.ok
    assert check.found.startswith("lung v2; not read") and "datasets/lung/v2.bak" in check.found


@pytest.mark.parametrize("part", ["schema.json", "private", "mock"])
def test_a_part_of_a_dataset_that_is_missing_is_found(home, dataset, part):
    (dataset / part).rename(home.folder / "elsewhere")
    check = found(home)["datasets"]
    assert not check.ok
    assert f"lung/v2 has no {part}" in check.found and "backup" in check.advice


@pytest.mark.parametrize("file", ["schema.json", "private/table.parquet", "mock/table.parquet"])
def test_a_file_of_a_dataset_that_cannot_be_opened_is_found(home, dataset, file):
    (dataset / file).unlink()
    (dataset / file).symlink_to(dataset / file)  # a root user could open one that is only closed
    check = found(home)["datasets"]
    assert not check.ok
    assert "could not be read: OSError" in check.found or "has no schema.json" in check.found


def test_versions_are_compared_with_a_lock_file(home, tmp_path):
    lock = tmp_path / "lock.txt"
    lock.write_text("numpy==0.1  # old\nnot-installed-here==1\n")
    check = found(home, lock=lock)["versions"]
    assert not check.ok
    assert "numpy" in check.found
    assert "not-installed-here" not in check.found
    lock.write_text("what is this?\n")
    assert not found(home, lock=lock)["versions"].ok


def test_a_full_disk_is_found(home, monkeypatch):
    monkeypatch.setattr(doctor, "ENOUGH_DISK_BYTES", 1 << 60)
    assert not found(home)["disk"].ok


def test_a_layer_that_policy_demands_and_the_machine_lacks_is_found(home, monkeypatch):
    monkeypatch.setattr(doctor, "available_layers", lambda: dict.fromkeys(doctor_layers(), False))
    check = found(home)["sandbox"]
    assert not check.ok
    assert "seccomp" in check.found


@pytest.mark.parametrize(
    ("line", "words"), [("", "do NOT run here"), ("[sandbox]\njobs_may_measure = true\n", "CAN MEASURE")]
)
def test_doctor_says_whether_plain_jobs_run_without_mounts_of_their_own(home, monkeypatch, line, words):
    monkeypatch.setattr(doctor, "available_layers", lambda: {layer: layer != "disk" for layer in doctor_layers()})
    (home.folder / "policy.toml").write_text(line)
    check = found(home)["plain-jobs"]
    assert check.ok
    assert words in check.found


def doctor_layers():
    from datasites.worker.sandbox import LAYERS

    return LAYERS


def test_a_journal_that_was_cut_or_changed_is_found(home):
    path = home.folder / "journal.sqlite"
    data = path.read_bytes()
    assert data.count(b'"n":2') == 1
    path.write_bytes(data.replace(b'"n":2', b'"n":3'))
    check = found(home)["chains"]
    assert not check.ok
    assert "do not start" in check.advice


@pytest.mark.parametrize("file", ["journal", "ledger"])
def test_an_entry_from_the_future_says_that_the_clock_was_set_forward_or_is_behind(home, file):
    assert found(home)["times"].ok
    later = datetime.now(UTC) + timedelta(days=365)
    chain = Chain(home.folder / f"{file}.sqlite", home.identity(), purpose=file, clock=lambda: later)
    chain.append("started", {})
    chain.close()
    check = found(home)["times"]
    assert not check.ok
    assert f"{later:%Y-%m-%d}" in check.found
    assert "364 days ahead" in check.found or "365 days ahead" in check.found
    assert "later expiry" in check.advice


def test_a_role_that_was_restored_from_an_old_backup_is_told_so(home):
    assert found(home)["standing"].ok
    (home.folder / GAP).write_text(json.dumps({"reason": "older than what was sent", "gaps": []}))
    check = found(home)["standing"]
    assert (check.ok, check.found) == (False, "older than what was sent")


def test_no_home_at_all_is_one_bad_line_and_exit_code_one(tmp_path):
    result = CliRunner().invoke(app, ["doctor", "--home", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "BAD settings" in result.stderr


def test_status_says_why_the_orchestrator_could_not_be_asked(home, clock):
    from orchestrator.studies import status

    clock.shutdown()
    clock.server_close()
    status = status.read_status(home, answer_seconds=0.2)
    assert "did not answer" in status.problem
    assert status.studies == ()
    assert not status.over


def test_a_study_line_counts_updates_dropouts_and_seconds():
    checkpoints = [
        {"sites": ["a", "b", "c"], "seconds": 1.5, "uplink_bytes": 30},
        {"sites": ["a", "b"], "seconds": 2.0, "uplink_bytes": 20},
    ]
    line = study_line(
        {
            "study": "s",
            "state": "running",
            "reason": "",
            "rounds": 5,
            "rounds_completed": 2,
            "proposal": {"payload": {"participants": [{"name": n} for n in "abc"]}},
            "approvals": {"a": {}, "b": {}, "c": {}},
            "checkpoints": checkpoints,
            "refusals": {"2": {"c": {}}, "3": {}},
            "updates_now": ["a"],
        }
    )
    assert (line.seconds, line.last_round_seconds, line.uplink_bytes, line.refusals) == (3.5, 2.0, 50, 1)
    assert [(s.name, s.updates, s.dropouts, s.here) for s in line.sites] == [
        ("a", 2, 0, True),
        ("b", 2, 0, False),
        ("c", 1, 1, False),
    ]
