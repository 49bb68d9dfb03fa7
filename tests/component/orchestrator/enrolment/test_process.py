"""The orchestrator's own process: it answers invited parties before there is a roster, and takes over every new one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
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


class Processes:
    """Roles of a consortium in processes of their own, with one PostgreSQL and one folder for the orchestrators."""

    def __init__(self, consortium: Consortium, database: str) -> None:
        shared = consortium.folder / "shared"
        shared.mkdir()
        more = {"DATABASE_URL": database, "STORE_FOLDER": str(shared), "TESSERA_LOG_LEVEL": "info"}
        self._settings = {**os.environ, **more}
        self._folder = consortium.folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def start(self, name: str, role: str) -> None:
        command = [TESSERA, role, "run", "--home", str(self._folder / name)]
        with self.log(name).open("wb") as file:
            self.running[name] = subprocess.Popen(command, env=self._settings, stdout=file, stderr=file)

    def end(self, name: str, *, kill: bool = False) -> None:
        process = self.running.pop(name)
        process.kill() if kill else process.terminate()
        process.wait(120)

    def gives_work(self, name: str) -> None:
        """Wait until an orchestrator's process has answered somebody who asked for work."""
        until(lambda: re.search(r"GET /work\S* 200", self.log(name).read_text()), self.log(name).read_text)


@pytest.fixture
def processes(consortium: Consortium, postgres: Callable[[str], str]) -> Iterator[Processes]:
    made = Processes(consortium, postgres("rotation"))
    try:
        yield made
    finally:
        for name in list(made.running):
            made.end(name, kill=True)


def test_live_roles_and_an_orchestrator_with_a_standby_go_on_with_new_keys(
    consortium: Consortium, processes: Processes
) -> None:
    invitations = consortium.invite_all()
    processes.start("orchestrator", "orchestrator")
    until((consortium.home / "address.json").exists, processes.log("orchestrator").read_text)
    for name in ("keyholder", *HOSPITALS):
        consortium.join(invitations / f"{name}.invitation", name)
    consortium.admit_all()
    keyholder = Home(folder=consortium.folder / "keyholder")
    processes.start("keyholder", "keyholder")
    processes.gives_work("orchestrator")

    said = consortium.tessera("keyholder", "rotate", "--home", keyholder.folder, code=3)
    assert "runs" in said  # no key changes under a process
    processes.end("keyholder")
    before = keyholder.identity().public_key
    consortium.tessera("keyholder", "rotate", "--home", keyholder.folder)
    processes.start("keyholder", "keyholder")
    log = processes.log("keyholder")
    until(lambda: "keyholder: hands over" in consortium.tessera("admit", "--home", consortium.home), log.read_text)
    consortium.tessera("admit", "keyholder", "--home", consortium.home)
    new = keyholder.identity().public_key
    until(lambda: keyholder.roster().keyholder.public_key == new != before, log.read_text)

    processes.end("orchestrator")
    old = consortium.orchestrator.identity().public_key
    consortium.tessera("orchestrator", "rotate", "--home", consortium.home)
    shutil.copytree(consortium.home, consortium.folder / "standby")
    processes.start("orchestrator", "orchestrator")
    until((consortium.home / "address.json").exists, processes.log("orchestrator").read_text)
    processes.start("standby", "orchestrator")
    consortium.tessera("confirm-roster", "--home", keyholder.folder, "--by", "K. Holder")
    assert keyholder.roster().orchestrator.public_key == consortium.orchestrator.identity().public_key != old
    processes.end("keyholder")  # as the guide says: a role is restarted after it has confirmed
    processes.start("keyholder", "keyholder")
    processes.gives_work("orchestrator")
    until(lambda: "standing by" in processes.log("standby").read_text(), processes.log("standby").read_text)
    processes.end("orchestrator", kill=True)
    processes.gives_work("standby")  # under the same new key: the keyholder takes no other
    assert processes.running["keyholder"].poll() is None
