"""The orchestrator's own process: it answers invited parties before there is a roster, and takes over every new one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.joined import HOSPITALS, Consortium
from support.waiting import until

from datasites.node.home import Home
from datasites.node.http import SignedClient
from datasites.node.joining.changes import look, offered
from datasites.node.joining.entering import await_admission
from orchestrator.studies.status import client_of
from privacy.errors import TesseraError

TESSERA = str(Path(sys.executable).with_name("tessera"))


@pytest.fixture
def running(consortium: Consortium) -> Iterator[Consortium]:
    """The same with the orchestrator's process, as `tessera orchestrator run` starts it."""
    invitations = consortium.invite_all()
    assert invitations.is_dir()
    log = consortium.folder / "log"
    with log.open("wb") as file:
        command = [TESSERA, "orchestrator", "run", "--home", str(consortium.home)]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        until((consortium.home / "address.json").exists, log.read_text)
        yield consortium
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(120)


def answers(client: SignedClient) -> bool:
    try:
        client.get_json("/studies")
    except TesseraError:
        return False
    return True


def test_one_process_founds_serves_and_grows(running: Consortium) -> None:
    log = running.folder / "log"
    for name in ("keyholder", *HOSPITALS):
        running.join(running.folder / "invitations" / f"{name}.invitation", name)
    running.admit_all()
    for name in ("keyholder", *HOSPITALS):
        await_admission(Home(folder=running.folder / name), seconds=120)
    first, late = Home(folder=running.folder / "hospital-a"), Home(folder=running.folder / "hospital-d")
    with client_of(first) as client:
        until(lambda: answers(client), log.read_text)
        out = running.folder / "d.invitation"
        running.invite("hospital-d", "--institution", "Hospital D", "--out", out)
        running.join(out, "hospital-d")
        running.tessera("admit", "hospital-d", "--home", running.home)
        await_admission(late, seconds=120)
        with client_of(late) as newcomer:
            until(lambda: answers(newcomer), log.read_text)
        look(first, client)
    change = offered(first)
    assert change is not None and change.title == "+hospital-d"
    said = running.tessera("confirm-roster", "--home", running.folder / "keyholder")
    assert "hospital-d (Hospital D) joins as hospital" in said and "--by NAME" in said
    assert "hospital-a (Hospital-A) joins as hospital" in said  # nobody there had compared the first roster yet
    running.tessera("confirm-roster", "--home", running.folder / "keyholder", "--by", "K. Holder")
    assert Home(folder=running.folder / "keyholder").roster() == late.roster()
    assert "newest one" in running.tessera("confirm-roster", "--home", running.folder / "keyholder")
