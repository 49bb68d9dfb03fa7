"""A unit test starts no process and opens no connection: one that tries fails."""

import os
import socket
import subprocess
from typing import Any, NoReturn

import pytest


def refuse(*_: Any, **__: Any) -> NoReturn:
    pytest.fail("a unit test starts no process and uses no socket; move it to tests/component")


@pytest.fixture(autouse=True)
def closed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in (
        (os, "fork"),
        (subprocess.Popen, "__init__"),
        (socket.socket, "connect"),
        (socket.socket, "bind"),
    ):
        monkeypatch.setattr(owner, name, refuse)
