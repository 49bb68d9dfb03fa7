"""The orchestrator's memory in a real PostgreSQL server: a live study, a killed process, and the same study again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa
from harness.consortium import READY_SECONDS, Consortium
from harness.ports import kept_port

from datasites.node.home import Home

SITES = 3


@pytest.mark.slow
def test_a_study_outlives_the_orchestrators_process_in_postgresql(tmp_path, postgres, monkeypatch):
    url = postgres("live")
    secret = tmp_path / "database-url"
    secret.write_text(f"{url}\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(secret))
    with Consortium(tmp_path / "c", sites=SITES) as consortium:
        home = consortium.homes["orchestrator"]
        Home.create(home.folder, replace(home.config(), port=kept_port()))
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
        consortium.processes.wait_until_ready([home.folder], READY_SECONDS)
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
