"""One process per folder: the second one says who is there, and the first one's folder stays as it is."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from datasites.hospital.cli import app
from datasites.node import files
from datasites.node.files import HOLDER, only_holder
from datasites.node.home import Config, Home
from datasites.node.process import alone_in
from privacy.errors import InvalidInput, Refused

CONFIG = Config(name="alba", institution="Alba", role="datasite", orchestrator_url="http://127.0.0.1:1")


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    Home.create(tmp_path / "home", CONFIG)
    with alone_in(tmp_path / "home") as home:
        assert home.folder.is_absolute()
        with pytest.raises(Refused, match=rf"datasite alba runs already on .*home: process {os.getpid()} on .+ since"):
            alone_in(tmp_path / "home").__enter__()
    with alone_in(tmp_path / "home"):
        pass


def test_a_lock_file_that_is_left_behind_or_garbled_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / HOLDER).write_bytes(b"\x00 not JSON")
    with only_holder(tmp_path, "the role"), pytest.raises(Refused, match="process"):
        only_holder(tmp_path, "the role").__enter__()


def test_a_holder_without_a_name_is_still_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(files.os, "ftruncate", full)
    with only_holder(tmp_path, "the role"), pytest.raises(Refused, match="not written its name"):
        only_holder(tmp_path, "the role").__enter__()


def test_a_folder_that_cannot_be_locked_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(InvalidInput, match="can lock"):
        only_holder(tmp_path, "the role").__enter__()
    (tmp_path / HOLDER).unlink()
    (tmp_path / HOLDER).symlink_to("/dev/null")
    with pytest.raises(InvalidInput, match="expected to write"):
        only_holder(tmp_path, "the role").__enter__()


def test_homes_are_absolute_whichever_way_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Home(folder=Path("a/../home")).folder == tmp_path / "home"
    arguments = ["init", "--home", "sub/alba", "--name", "alba", "--institution", "Alba"]
    done = CliRunner().invoke(app, [*arguments, "--orchestrator-url", "http://127.0.0.1:1"])
    assert done.exit_code == 0 and (tmp_path / "sub/alba/identity.pem").exists()
