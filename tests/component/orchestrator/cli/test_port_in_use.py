"""A role asked to listen where somebody else listens."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from datasites.node.home import Config, Home
from datasites.node.roster import Roster
from orchestrator.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``tessera ARGUMENTS`` in this process; return exit code, standard output and error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tessera", *map(str, arguments)])
        umask = os.umask(0o022)
        try:
            with pytest.raises(SystemExit) as ended:
                main.main()
        finally:
            os.umask(umask)  # the commands set their own
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call


def one_line(err: str) -> str:
    text = " ".join(err.split())
    assert "Traceback" not in text
    assert text.count("error:") <= 1
    return text


def test_a_port_in_use_is_refused(run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = Config(name="orchestrator", institution="S", role="orchestrator", orchestrator_url="", port=port)
        home = Home.create(tmp_path / "o", config)
        party = home.party()
        other = Home.create(tmp_path / "k", Config(name="k", institution="K", role="keyholder", orchestrator_url=""))
        Roster(orchestrator=party, keyholder=other.party(), sites=()).save(home.folder / "roster.json")
        code, _, err = run("orchestrator", "run", "--home", home.folder)
    assert code == 2
    assert f"expected to listen on 127.0.0.1:{port}, but address already in use" in one_line(err)
