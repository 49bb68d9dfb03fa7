"""Health is false when it should be, and says why: one line a reason, for a person who reads `docker ps`."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from support.web_server import serving

from datasites.node import wellbeing as wellbeing_module
from datasites.node.credentials.tls import SERVER_DAYS, ensure_authority, ensure_server_certificate
from datasites.node.health import FILE, alive, restart
from datasites.node.home import Config, Home
from datasites.node.http import SignedClient
from datasites.node.process import announce
from datasites.node.rollback import Gap
from datasites.node.wellbeing import Contacts, Reach, Wellbeing
from privacy.identity import Identity
from privacy.ledger.journal import Journal

NAMES = ["localhost", "127.0.0.1"]


def make_home(folder: Path, *, age_days: int = 0) -> Home:
    """A keyholder's home that is announced, with a certificate made so many days ago and a journal of three entries."""
    made = dt.datetime.now(dt.UTC) - dt.timedelta(days=age_days)
    authority = ensure_authority(folder / "tls", name="k", now=made)
    certificate = ensure_server_certificate(authority, folder / "tls", names=NAMES, now=made)
    config = Config(name="k", institution="K", role="keyholder", orchestrator_url="http://127.0.0.1:9")
    home = Home.create(folder, config)
    Home.create(folder, Config(**{**config.__dict__, "tls_certificate": str(certificate)}))
    journal = Journal(folder / "journal.sqlite", home.identity())
    for kind in ("a", "b", "c"):
        journal.append(kind, {"n": 1})
    journal.close()
    announce(folder, None, "keyholder")
    return home


def test_a_role_that_is_well_says_nothing_and_leaves_no_file_behind(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with Wellbeing(home):
        assert alive(tmp_path) == "" and json.loads((tmp_path / FILE).read_bytes())["problems"] == []
    assert not (tmp_path / FILE).exists()


def test_an_expired_certificate_is_unhealthy(tmp_path: Path) -> None:
    with Wellbeing(make_home(tmp_path, age_days=SERVER_DAYS + 1)):
        assert "certificate: this server's certificate expired on" in alive(tmp_path)


def break_journal(home: Home) -> None:
    """Change one byte of what an entry says, as a disk would: SQLite itself notices nothing."""
    with sqlite3.connect(home.folder / "journal.sqlite") as database:
        (row,) = database.execute("SELECT body FROM entries WHERE number = 2").fetchone()
    data = (home.folder / "journal.sqlite").read_bytes()
    text = row if isinstance(row, bytes) else row.encode()
    assert data.count(text) >= 1
    (home.folder / "journal.sqlite").write_bytes(data.replace(text, text.replace(b"1", b"7"), 1))


def restore_from_backup(home: Home) -> None:
    Gap(folder=home.folder).write({"reason": "journal or ledger are older than what this site has sent"})


@pytest.mark.parametrize(
    ("harm", "said"),
    [(break_journal, "records: journal.sqlite"), (restore_from_backup, "restored: journal or ledger are older")],
    ids=["broken-byte", "restored"],
)
def test_what_happens_to_the_folder_of_a_running_role_is_seen_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Home], None], said: str
) -> None:
    monkeypatch.setattr(wellbeing_module, "_REST", 0.0)  # chains are not read all the time
    home = make_home(tmp_path)
    with Wellbeing(home, every=3600) as wellbeing:
        assert alive(tmp_path) == ""
        harm(home)
        deadline = time.monotonic() + 120
        while said not in alive(tmp_path):
            wellbeing.look()
            assert time.monotonic() < deadline, alive(tmp_path)


def test_a_look_that_fails_is_itself_a_reason_and_keeps_no_other_from_being_seen(tmp_path: Path) -> None:
    def broken() -> str:
        raise RuntimeError("a secret")

    with Wellbeing(make_home(tmp_path), {"odd": broken, "other": lambda: "is missing"}):
        assert alive(tmp_path).splitlines() == ["odd: cannot be looked at (RuntimeError)", "other: is missing"]


def test_an_orchestrator_that_does_not_answer_is_a_reason_after_a_while(tmp_path: Path) -> None:
    app = FastAPI()

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    config = Config(name="o", institution="O", role="orchestrator", orchestrator_url="")
    with serving(app, config) as (host, port):
        client = SignedClient(Identity.generate(), f"http://{host}:{port}", "00" * 32, retry_seconds=0)
        assert Reach(client, patience=0).trouble() == ""
    with client:
        assert Reach(client, patience=3600).trouble() == ""
        assert "did not answer" in Reach(client, patience=0).trouble()


def test_a_server_whose_certificate_has_expired_is_named_as_the_reason(tmp_path: Path) -> None:
    home = make_home(tmp_path, age_days=SERVER_DAYS + 1)
    with serving(FastAPI(), home.config()) as (_, port):
        ca = str(tmp_path / "tls" / "ca.pem")
        url = f"https://localhost:{port}"
        with SignedClient(Identity.generate(), url, "00" * 32, retry_seconds=0, ca=ca) as client:
            assert "certificate has expired" in Reach(client, patience=0).trouble()


def test_a_party_that_is_not_heard_of_is_named() -> None:
    contacts = Contacts(patience=0)
    assert contacts.trouble("keyholder").startswith("keyholder has not been heard of for")
    patient = Contacts(patience=3600)
    patient.heard("keyholder")
    assert patient.trouble("keyholder") == ""


def test_a_process_that_hangs_is_ended_at_the_third_look_and_one_that_answers_never(tmp_path: Path) -> None:
    place = tmp_path / "count"
    place.mkdir()
    home = make_home(tmp_path / "home")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        try:
            (home.folder / "address.json").write_text(json.dumps({"pid": process.pid}))
            (home.folder / FILE).write_text(json.dumps({"at": time.time() - 1000, "problems": []}))
            for _ in range(2):
                assert restart(home.folder, place).startswith("hangs: has not looked after itself")
            assert process.poll() is None
            (home.folder / FILE).write_text(json.dumps({"at": time.time(), "problems": ["disk: is full"]}))
            assert restart(home.folder, place) == "disk: is full" and process.poll() is None
            (home.folder / FILE).write_text(json.dumps({"at": time.time() - 1000, "problems": []}))
            said = [restart(home.folder, place) for _ in range(3)]
            assert said[2].endswith("it was ended to be started again") and process.wait(120) == -signal.SIGKILL
        finally:
            process.kill()
    assert restart(home.folder, place) == "has not announced itself, or has ended"


def test_the_check_is_a_command_with_the_reason_on_standard_error(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    command = [sys.executable, "-P", "-m", "datasites.node.health", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    with Wellbeing(home, {"odd": lambda: "is odd"}):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (1, "odd: is odd\n")


def test_looking_at_the_records_takes_no_lock_of_the_running_role_away(tmp_path: Path) -> None:
    """Who closes a database's file loses all locks on it: the next command to end would delete the log."""
    home = make_home(tmp_path)
    other = (
        "import sys; from pathlib import Path; from datasites.node.home import Home; "
        "from privacy.ledger.journal import Journal; home = Home(folder=Path(sys.argv[1])); "
        "j = Journal(home.folder / 'journal.sqlite', home.identity()); j.append('command', {'n': 1}); j.close()"
    )
    running = Journal(tmp_path / "journal.sqlite", home.identity())
    running.append("before", {"n": 1})
    with Wellbeing(home, every=3600):
        subprocess.run([sys.executable, "-c", other, str(tmp_path)], check=True, cwd=Path(__file__).parents[4])
        running.append("after", {"n": 1})
    read = (
        "import sys; from pathlib import Path; from datasites.node.home import Home; "
        "from privacy.ledger.journal import Journal; home = Home(folder=Path(sys.argv[1])); "
        "j = Journal(home.folder / 'journal.sqlite', home.identity()); print([e.kind for e in j.entries()])"
    )
    command = [sys.executable, "-c", read, str(tmp_path)]
    done = subprocess.run(command, check=True, cwd=Path(__file__).parents[4], capture_output=True, text=True)
    running.close()
    assert done.stdout.strip() == "['a', 'b', 'c', 'before', 'command', 'after']"
