"""The orchestrator's memory in a real PostgreSQL server: a live study, a killed process, and the same study again."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
import sqlalchemy as sa
from harness.consortium import Consortium

from datasites.node.home import Home
from orchestrator.daemon import _database_url
from privacy.errors import InvalidInput

SITES = 3


@pytest.mark.slow
def test_a_study_outlives_the_orchestrators_process_in_postgresql(tmp_path, postgres, monkeypatch):
    url = postgres("live")
    secret = tmp_path / "database-url"
    secret.write_text(f"{url}\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(secret))
    with Consortium(tmp_path / "c", sites=SITES) as consortium:
        home = consortium.homes["orchestrator"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            Home.create(home.folder, replace(home.config(), port=probe.getsockname()[1]))
        consortium.start()
        consortium.propose("first", rounds=2)
        with consortium.working():
            before = consortium.wait("first", "finished")
        orchestrator = consortium.processes.children["orchestrator"]
        orchestrator.kill()
        orchestrator.wait()
        orchestrator.stdin.close()
        (home.folder / "address.json").unlink()
        consortium.processes.start("orchestrator", ["orchestrator", "run", "--home", str(home.folder)])
        consortium.processes.wait_until_ready([home.folder], 60)
        assert consortium.status("first") == before
        consortium.propose("second")
        with consortium.working():
            assert consortium.wait("second", "finished")["rounds_completed"] == 1
    assert not list((home.folder / "store").glob("*.sqlite"))
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT study, state FROM studies ORDER BY study")).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [("first", "finished"), ("second", "finished")]


def test_the_databases_address_comes_from_a_file_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL_FILE", raising=False)
    assert _database_url() is None
    monkeypatch.setenv("DATABASE_URL", "postgresql://here/a")
    assert _database_url() == "postgresql://here/a"
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "secret"))
    with pytest.raises(InvalidInput, match="DATABASE_URL_FILE"):
        _database_url()
    (tmp_path / "secret").write_text("postgresql://there/b\n")
    assert _database_url() == "postgresql://there/b"
