"""Five parties on machines of their own, by the commands of docs/deploy.md and no others that a person types.

Network namespaces stand for machines; hospital B reaches the orchestrator through a proxy alone. While a study trains,
a fourth hospital joins, and the keyholder and hospital C get a patch release; afterwards hospital A loses its disk and
comes back from a backup that is older than the study.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from support.namespaces import Network, network, permitted

from datasites.data.ingest import place_dataset
from datasites.node.consortium import Consortium
from datasites.node.home import Home
from datasites.node.plugins import DISTRIBUTION
from datasites.review.accounts import AccountStore
from datasites.worker.sandbox import available_layers

ROOT = Path(__file__).parents[3]
TESSERA = str(Path(sys.executable).with_name("tessera"))
NEW = "/opt/tessera-new/bin/tessera"
GUIDE = (ROOT / "docs" / "deploy.md").read_text()
PARTIES = {
    "the operator": "orchestrator",
    "the keyholder": "keyholder",
    "hospital A": "hospital-a",
    "hospital B": "hospital-b",
    "hospital C": "hospital-c",
}
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
MACHINES = ("orchestrator", "keyholder", "hospital-a", "hospital-c", "hospital-d", "proxy")
OUTSIDE = {machine: f"10.77.0.{10 + number}" for number, machine in enumerate(MACHINES)}
BEHIND = {"hospital-b": "10.78.0.2", "proxy": "10.78.0.1"}
ROUNDS = 40  # as the guide proposes

pytestmark = [
    pytest.mark.thorough,  # several minutes, and it asks for the right to make network namespaces
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not permitted(), reason="needs the right to make network namespaces"),
]


def commands(section: str, study: str = "") -> list[tuple[str, str]]:
    """The lines of a section's shell block for one study, each with the party whose comment stands above it."""
    text = GUIDE.partition(section)[2]
    block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    who, found = "", []
    for line in block.group(1).splitlines():
        if line.startswith("#"):
            who = next((machine for words, machine in PARTIES.items() if line.startswith(f"# {words}")), "")
        elif line.strip():
            found.append((who, line.replace(" NAME ", f" {study} ")))
    return found


class Drill:
    """Types commands on machines; what runs on goes on until the drill ends."""

    def __init__(self, folder: Path, net: Network) -> None:
        self.folder, self.net = folder, net
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.typed = 0

    def place(self, machine: str) -> Path:
        made = self.folder / machine
        made.mkdir(exist_ok=True)
        return made

    def home(self, machine: str) -> Home:
        return Home(folder=self.place(machine) / "home")

    def _command(self, machine: str, line: str) -> tuple[list[str], dict[str, str]]:
        words = shlex.split(line.replace("/var/lib/tessera/home", str(self.place(machine) / "home")))
        assert words[0] in ("tessera", NEW), line
        if words[0] == NEW:
            module = [sys.executable, "-m", "orchestrator.cli.main"]
            return [*self.net.inside(machine), *module, *words[1:]], {"PYTHONPATH": patched(self)}
        return [*self.net.inside(machine), TESSERA, *words[1:]], {}

    def type(self, machine: str, line: str, *, code: int = 0) -> str:
        """Type a line of the guide on a machine; one that runs a role goes on in the background."""
        self.typed += 1
        command, more = self._command(machine, line)
        if " run --home" in line:
            self.start(machine, command, **more)
            return ""
        environment = {**self.environment(), **more, "TESSERA_FILING": str(ROOT / "docker" / "filing.toml")}
        done = subprocess.run(
            command, cwd=self.place(machine), env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, f"{machine}: {line}\n{done.stdout}\n{done.stderr}\n{self.log(machine)}"
        return done.stdout + done.stderr

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not re.match("TESSERA_|.*_proxy$", name, re.I)}
        return {**kept, "OMP_NUM_THREADS": "1"}

    def start(self, name: str, command: list[str], **more: str) -> None:
        log = (self.place(name) / "log").open("ab")
        with log:
            self.running[name] = subprocess.Popen(
                command, cwd=self.place(name), env={**self.environment(), **more}, stdout=log, stderr=log
            )

    def stop(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) is not None

    def log(self, name: str) -> str:
        path = self.place(name) / "log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def becomes(self, holds: Callable[[], object], what: str, seconds: float = 240.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            for name, process in self.running.items():
                assert process.poll() is None, f"{name} ended:\n{self.log(name)}"
            logs = "\n".join(f"{name}: {self.log(name)[-600:]}" for name in self.running)
            assert time.monotonic() < deadline, f"waited in vain for {what}\n{logs}"
            time.sleep(0.5)

    def study(self, name: str) -> dict[str, Any]:
        told = self.type("orchestrator", "tessera status --once --json --home /var/lib/tessera/home")
        found = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
        return next(
            (study for study in found["studies"] if study["study"] == name), {"state": "", "rounds_completed": 0}
        )

    def health(self, machine: str) -> str:
        command = [sys.executable, "-P", "-m", "datasites.node.health", str(self.home(machine).folder)]
        done = subprocess.run([*self.net.inside(machine), *command], cwd=ROOT, capture_output=True, text=True)
        return done.stderr.strip()

    def has_account(self, machine: str) -> bool:
        with contextlib.closing(AccountStore(self.home(machine).folder / "accounts.sqlite")) as accounts:
            return bool(accounts.accounts())

    def as_steward(self, machine: str, script: str, *arguments: str) -> str:
        """Do something in a portal, on its own machine, as the made-up steward there."""
        password = self.home(machine).identity().derive_secret("demo").hex()
        command = [*self.net.inside(machine), sys.executable, "-c", _SESSION + script, password, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


_SESSION = """
import sys, httpx
portal = httpx.Client(base_url="http://127.0.0.1:8080", timeout=60, trust_env=False)
person = {"name": "demo-steward", "password": sys.argv[1]}
headers = {"x-csrf-token": portal.post("/api/login", json=person).raise_for_status().json()["csrf"]}
"""
_COMPARE = """
import json
for party in json.loads(sys.argv[2]):
    key = party.pop("public_key")
    body = party | {"password": sys.argv[1]}
    portal.put(f"/api/fingerprints/{key}", json=body, headers=headers).raise_for_status()
"""
_CONFIRM = """
change = portal.get("/api/roster").json()
if change is not None:
    portal.put(f"/api/roster/{change['digest']}", json={"password": sys.argv[1]}, headers=headers).raise_for_status()
print(change and ",".join(p["name"] for p in change["joins"]))
"""
_WAITING = """
print(",".join(r["study"] for r in portal.get("/api/requests").json()))
"""


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Drill]:
    names = {"study.example": OUTSIDE["orchestrator"]}
    hosts = dict.fromkeys(MACHINES, names) | {"hospital-b": {"proxy.example": BEHIND["proxy"]}}
    with network({"outside": OUTSIDE, "behind": BEHIND}, hosts) as net:
        made = Drill(tmp_path, net)
        proxy = [*net.inside("proxy"), sys.executable, str(ROOT / "tests" / "support" / "connect_proxy.py"), "3128"]
        made.start("proxy", proxy, PROXY_USER="user", PROXY_PASSWORD="password")
        try:
            yield made
        finally:
            for process in made.running.values():
                process.kill()
                process.wait()


def found(drill: Drill) -> None:
    """Type the twelve commands; an invitation goes by mail, which is a copy here."""
    listed = "".join(f'[[hospitals]]\nname = "{name}"\ninstitution = "{name.title()}"\n' for name in HOSPITALS)
    keyholder = '[keyholder]\nname = "keyholder"\ninstitution = "Neutral keyholder"\n'
    (drill.place("orchestrator") / "consortium.toml").write_text(keyholder + listed)
    twelve = commands("### Twelve commands for five parties")
    assert len(twelve) <= 12 and {who for who, _ in twelve} == set(PARTIES.values())
    for machine, line in twelve:
        mailed = re.search(r"join (\S+)\.invitation", line)
        if mailed:
            drill.becomes(lambda: drill.health("orchestrator") == "", "the orchestrator to answer")
            sent = drill.place("orchestrator") / "invitations" / f"{mailed.group(1)}.invitation"
            shutil.copyfile(sent, drill.place(machine) / sent.name)
        drill.type(machine, line)
        if mailed and machine in HOSPITALS:
            prepare(drill, machine)


def prepare(drill: Drill, machine: str) -> None:
    """Put a hospital's tables there, which docs/own-data.md is about, and allow what this machine's kernel lacks."""
    home = drill.home(machine).folder
    if machine in HOSPITALS:
        place_dataset(Consortium.load(ROOT / "docker" / "three.toml"), machine, None, home / "datasets")
    offered = available_layers()
    kept = [name for name in ("rlimits", "no-new-privileges", "landlock", "seccomp") if offered[name]]
    with (home / "policy.toml").open("a") as policy:
        policy.write(f"\n[sandbox]\nminimum_layers = {json.dumps(kept)}\n")


def patched(drill: Drill) -> str:
    """The next patch release: the same packages, with one more line where no data are touched."""
    folder = drill.folder / "release"
    if folder.exists():
        return str(folder)
    for package in ("datasites", "orchestrator", "privacy", "models", "tessera"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "datasites" / "keyholder" / "record.py").open("a") as module:
        module.write("\n# a patch\n")
    here = distribution(DISTRIBUTION)
    facts = Path(str(here.locate_file(f"tessera_fl-{here.version}.dist-info")))
    made = folder / "tessera_fl-0.1.99.dist-info"
    shutil.copytree(facts, made)
    text = (made / "METADATA").read_text()
    (made / "METADATA").write_text(text.replace(f"\nVersion: {here.version}\n", "\nVersion: 0.1.99\n"))
    return str(folder)


def test_five_parties_found_train_grow_upgrade_and_restore(drill: Drill) -> None:
    found(drill)
    typed = drill.typed
    assert typed <= 12
    parties = ("orchestrator", "keyholder", *HOSPITALS)
    drill.becomes(lambda: all(drill.health(machine) == "" for machine in parties), "everybody to be well")
    assert drill.home("hospital-b").roster() == drill.home("orchestrator").roster()
    assert "study.example:8443" in drill.log("proxy")
    for machine, line in commands("## Backup and restore"):
        drill.type(machine, line)
    for machine in HOSPITALS:
        decide(drill, machine)
    propose(drill, "drill")
    drill.becomes(lambda: drill.study("drill")["rounds_completed"] >= 1, "the first round")

    grow(drill)
    upgrade(drill)
    assert drill.study("drill")["state"] == "running", "the study was over before the others had joined and upgraded"
    drill.becomes(lambda: drill.study("drill")["state"] == "finished", "the end of the study", 400)
    assert drill.study("drill")["rounds_completed"] == ROUNDS
    restore(drill)


def propose(drill: Drill, study: str) -> None:
    for machine, line in commands("**A study**", study):
        drill.type(machine, line)


def decide(drill: Drill, machine: str) -> None:
    """In place of a hospital's people, who would read in their portal: somebody who approves unread."""
    line = "tessera play-steward --demonstration --portal http://127.0.0.1:8080 --home /var/lib/tessera/home"
    drill.start(f"steward-{machine}", drill._command(machine, line)[0])
    compare(drill, machine)


def compare(drill: Drill, machine: str) -> None:
    """Confirm everybody's fingerprint in a portal, once its made-up steward has an account."""
    others = [party for party in drill.home(machine).roster().everybody if party.name != machine]
    drill.becomes(lambda: drill.has_account(machine), f"an account at {machine}")
    drill.as_steward(machine, _COMPARE, json.dumps([asdict(party) for party in others]))


def grow(drill: Drill) -> None:
    """A fourth hospital joins while the study trains: the operator and the hospital, then everybody confirms."""
    late = commands("**Somebody joins later**")
    for machine, (_, line) in zip(
        ("orchestrator", "hospital-d", "hospital-d", "orchestrator", "keyholder"), late, strict=True
    ):
        if " join " in line:
            sent = drill.place("orchestrator") / "hospital-d.invitation"
            shutil.copyfile(sent, drill.place("hospital-d") / sent.name)
        drill.type(machine, line)
        if " join " in line:
            prepare(drill, "hospital-d")
    for machine in HOSPITALS:
        drill.becomes(lambda m=machine: drill.as_steward(m, _CONFIRM) == "hospital-d", f"the new roster at {machine}")
    drill.becomes(lambda: drill.health("hospital-d") == "", "the fourth hospital to be well")
    for machine in ("keyholder", "hospital-d", *HOSPITALS):
        assert drill.home(machine).roster() == drill.home("orchestrator").roster(), machine


def upgrade(drill: Drill) -> None:
    """A hospital and the keyholder get a patch release in the middle of the study, after asking what it will do."""
    for machine, line in commands("## Upgrade\n"):
        if " backup " in line:
            drill.stop(machine)
        told = drill.type(machine, line)
        if "--check" in line:
            assert ": goes on" in told, told
        if " run --home" in line:
            drill.becomes(lambda m=machine: drill.health(m) == "", f"{machine} to be well again")


def restore(drill: Drill) -> None:
    """Hospital A comes back from a backup that is older than the study, and a newer proposal is offered again."""
    for machine in HOSPITALS:
        drill.stop(f"steward-{machine}")
    propose(drill, "later")
    drill.becomes(lambda: "later" in drill.as_steward("hospital-a", _WAITING), "the proposal that came later")
    drill.stop("hospital-a")
    shutil.rmtree(drill.home("hospital-a").folder)
    for machine, line in commands("**After a loss**", "later"):
        told = drill.type(machine, line)
        if " run --home" in line:
            drill.becomes(lambda: "restored: " in drill.health("hospital-a"), "the old folder to be noticed")
        if " import-gap " in line:
            drill.becomes(lambda: drill.health("hospital-a") == "", "hospital A to be well again")
            decide(drill, "hospital-a")
        if " resend " in line:
            drill.becomes(
                lambda: "later" in drill.as_steward("hospital-a", _WAITING), "the proposal to be offered again"
            )
    assert '"ok": true' in told
