"""A consortium whose every role can be killed, stopped, cut off and starved of disk, and comes back.

Each role is the product's own process on its own folder, which it is given as a relative path. With a standby, two
orchestrators share a PostgreSQL and a folder for their files. A supervisor starts again what ended, as ``restart:
unless-stopped`` would. Hospitals and keyholder dial the orchestrator through a link of :mod:`proxy`; each folder is a
tmpfs of its own, where the machine allows it, so that a full disk is the kernel's and not ours.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
from harness.ports import kept_port
from harness.postgres import postgres_server
from proxy import Link, Network

from datasites.node.home import Config, Home, address
from datasites.node.http import SignedClient
from datasites.node.roster import Roster
from datasites.review.accounts import AccountStore
from orchestrator.demo.consortium import prepare
from privacy.errors import TesseraError

ORCHESTRATOR, KEYHOLDER, STANDBY = "orchestrator", "keyholder", "standby"
_SITE_SCRIPT = Path(__file__).with_name("chaos_site.py")
_PASSWORD = "only for made-up patients"  # noqa: S105  nothing behind it is worth keeping
_READY_SECONDS = 120.0
_VANISH_SECONDS = 20.0
_DISK_MEGABYTES = 512
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")


@dataclass
class Role:
    """One role: its folder, its process and what was seen of it."""

    name: str
    home: Home
    command: list[str]
    log: Path
    link: Link | None = None
    shared: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    wanted: bool = False
    busy: bool = False
    exits_asked: int = 0
    exits_unasked: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Process id of the role's main process; 0 while there is none."""
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    @property
    def ready(self) -> bool:
        """Whether the process that runs now has announced itself."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            return self.pid != 0 and json.loads((self.home.folder / "address.json").read_bytes())["pid"] == self.pid
        return False

    def start(self) -> None:
        """Start the process; it ends when ours does."""
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**environment, **threads, **self.shared},
                cwd=self.home.folder.parent,
                process_group=0,
            )

    def descendants(self) -> set[psutil.Process]:
        """Return the processes below the role's."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return set(psutil.Process(self.pid).children(recursive=True)) if self.pid else set()
        return set()

    def kill(self) -> set[psutil.Process]:
        """Kill the main process as ``kill -9`` does; return the processes it leaves behind."""
        below = self.descendants()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        return below


class ChaosConsortium:
    """Roles, links and disks under one folder; leaving the ``with`` block ends and unmounts everything.

    Args:
        pristine: made by :func:`make_homes`; copied, so that several consortia begin alike.
        folder: where this one lives.
        sites: names of the hospitals.
        helpers: names of the helpers.
        disks: whether every folder gets a tmpfs of its own.
        standby: whether a second orchestrator stands by.
    """

    def __init__(
        self,
        pristine: Path,
        folder: Path,
        sites: list[str],
        *,
        disks: bool,
        helpers: Sequence[str] = (),
        standby: bool = False,
    ) -> None:
        self._standby, self.database = standby, ""
        self.folder, self.sites, self.helpers, self._disks = folder, sites, tuple(helpers), disks
        self._pristine = pristine
        self._stack = contextlib.ExitStack()
        self._ended = threading.Event()
        self._port = kept_port()
        self.roles: dict[str, Role] = {}
        self.client: SignedClient

    def __enter__(self) -> ChaosConsortium:
        try:
            network = self._stack.enter_context(Network())
            self._stack.callback(self._unmount)
            if self._standby:
                self.database = self._stack.enter_context(postgres_server())("chaos")
            leaders = (ORCHESTRATOR, STANDBY) if self._standby else (ORCHESTRATOR,)
            for name in (*leaders, KEYHOLDER, *self.helpers, *self.sites):
                self.roles[name] = self._role(name, network)
            supervisor = threading.Thread(target=self._supervise, daemon=True)
            for role in self.roles.values():
                role.start()
                role.wanted = True
            supervisor.start()
            home = self.roles[ORCHESTRATOR].home
            self.wait_until_ready()
            self.client = self._stack.enter_context(
                SignedClient(home.identity(), f"http://127.0.0.1:{self._port}", home.identity().public_key)
            )
            for site in self.sites:
                _register(self.roles[site].home, site)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._stack.close()

    def end(self) -> int:
        """Ask every role to end; return how many processes are left over, which are then killed."""
        self._ended.set()
        left: set[psutil.Process] = set()
        for role in self.roles.values():
            role.wanted = False
            if role.link is not None:
                role.link.heal()
            left |= role.descendants()
            if role.process is not None and role.process.poll() is None:
                role.process.terminate()
        for role in self.roles.values():
            if role.process is not None:
                try:
                    role.process.wait(15)
                except subprocess.TimeoutExpired:
                    left.add(psutil.Process(role.process.pid))
        return len(_left_of(left, _VANISH_SECONDS))

    def wait_until_ready(self, *names: str) -> None:
        """Wait until roles have announced themselves.

        Raises:
            TesseraError: one did not.
        """
        deadline = time.monotonic() + _READY_SECONDS
        for name in names or tuple(self.roles):
            while not self._ready(name):
                if time.monotonic() > deadline:
                    raise TesseraError(f"{name} is not ready after {_READY_SECONDS:g} s; see {self.roles[name].log}")
                time.sleep(0.05)

    def _ready(self, name: str) -> bool:
        """Whether a role works; of two orchestrators one does."""
        if name in (ORCHESTRATOR, STANDBY):
            return any(self.roles[leader].ready for leader in (ORCHESTRATOR, STANDBY) if leader in self.roles)
        return self.roles[name].ready

    @property
    def store(self) -> Path:
        """Where the orchestrator's files are."""
        return (self.folder / "shared" if self._standby else self.roles[ORCHESTRATOR].home.folder) / "store"

    def check_orphans(self, role: Role, below: set[psutil.Process]) -> None:
        """Count those of a killed role's processes that outlive it."""
        role.orphans += _left_of(below, _VANISH_SECONDS)

    def fill_disk(self, name: str) -> None:
        """Leave no room on a role's disk: the kernel says ENOSPC from now on."""
        folder = self.roles[name].home.folder
        for _ in range(50):  # what is written between the look and the remount makes it fail
            status = os.statvfs(folder)
            used = (status.f_blocks - status.f_bfree) * status.f_frsize // 1024
            command = ["mount", "-o", f"remount,size={used}k", str(folder)]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.02)
        raise TesseraError(f"the disk of {name} could not be filled")

    def free_disk(self, name: str) -> None:
        """Make room again."""
        options = f"remount,size={_DISK_MEGABYTES}m"
        subprocess.run(["mount", "-o", options, str(self.roles[name].home.folder)], check=True)

    def _role(self, name: str, network: Network) -> Role:
        folder = self.folder / name
        folder.mkdir(parents=True)
        if self._disks:
            options = f"size={_DISK_MEGABYTES}m,mode=0700"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tessera-chaos", str(folder)], check=True)
        shutil.copytree(self._pristine / (ORCHESTRATOR if name == STANDBY else name), folder, dirs_exist_ok=True)
        home = Home(folder=folder)
        link = None
        shared: dict[str, str] = {}
        if name in (ORCHESTRATOR, STANDBY):
            if self._standby:
                shared = {"DATABASE_URL": self.database, "STORE_FOLDER": str(self.folder / "shared")}
            Home.create(folder, replace(home.config(), port=self._port))
        else:
            link = network.link(self._port)
            Home.create(folder, replace(home.config(), orchestrator_url=f"http://127.0.0.1:{link.port}"))
        command = [
            sys.executable,
            "-m",
            "orchestrator.cli.main",
            {STANDBY: ORCHESTRATOR, **dict.fromkeys(self.helpers, "helper")}.get(name, name),
            "run",
            "--home",
            name,
            "--end-with-parent",
        ]
        if name in self.sites:
            self.witness(name).mkdir(parents=True)
            command = [sys.executable, str(_SITE_SCRIPT), name, str(self.witness(name))]
        log = self.folder / "logs" / f"{name}.log"
        return Role(name=name, home=home, command=command, log=log, link=link, shared=shared)

    def witness(self, site: str) -> Path:
        """Return where a hospital's witness writes."""
        return self.folder / "witness" / site

    def _supervise(self) -> None:
        """Start again what ended by itself."""
        while not self._ended.wait(0.1):
            for role in self.roles.values():
                if role.wanted and role.process is not None and role.process.poll() is not None:
                    if role.exits_asked:
                        role.exits_asked -= 1
                    else:
                        role.exits_unasked.append(f"code {role.process.returncode}")
                    role.start()
                    self._ended.wait(0.4)

    def _unmount(self) -> None:
        if self._disks:
            for name in self.roles:
                subprocess.run(["umount", "--lazy", str(self.folder / name)], check=False)


def make_homes(folder: Path, *, sites: int, seed: int, helpers: int = 0) -> tuple[list[str], list[str]]:
    """Make the homes of a consortium with synthetic patients; return the hospitals' names and the helpers'.

    The first hospitals run the helpers.
    """
    prepared = prepare(None, folder, federation="upper-bound", task="early-late", sites=sites, seed=seed)
    names = [site.name for site in prepared.sites]
    helping = {f"helper-{site.name}": site.institution for site in prepared.sites[:helpers]}
    institutions = {ORCHESTRATOR: "Study office", KEYHOLDER: "Notary", **helping}
    institutions |= {s.name: s.institution for s in prepared.sites}
    homes: dict[str, Home] = {}
    for name, institution in institutions.items():
        role: Any = name if name in (ORCHESTRATOR, KEYHOLDER) else "helper" if name in helping else "datasite"
        config = Config(name=name, institution=institution, role=role, orchestrator_url="http://127.0.0.1:9")
        homes[name] = Home.create(folder / name, config)
    roster = Roster(
        orchestrator=homes[ORCHESTRATOR].party(),
        keyholder=homes[KEYHOLDER].party(),
        sites=tuple(homes[name].party() for name in names),
        helpers=tuple(homes[name].party() for name in helping),
    )
    for home in homes.values():
        roster.save(home.folder / "roster.json")
    for name in names:
        _write_policy(homes[name], roster)
    return names, [*helping]


def _write_policy(home: Home, roster: Roster) -> None:
    """Allow what a test needs: a public seed, many studies, and updates that leave at once."""
    lines = ["[budget]", "epsilon_cap = inf", "delta = 1e-4", "[study]", "maximum_rounds = 1000", "[noise]"]
    lines += ['modes = ["local", "shared"]', "minimum_multiplier = 0.1"]
    lines += ["allow_public_seed = true", "allow_infinite_epsilon = true", "[sandbox]", "round_seconds = 0.0"]
    for party in roster.everybody:
        if party.public_key != home.identity().public_key:
            lines += ["[[partners]]", f"name = {json.dumps(party.name)}", f'public_key = "{party.public_key}"']
            lines += [f"institution = {json.dumps(party.institution)}"]
    (home.folder / "policy.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _register(home: Home, site: str) -> None:
    store = AccountStore(home.folder / "accounts.sqlite")
    try:
        token = store.invite("steward", now=dt.datetime.now(dt.UTC))
    finally:
        store.close()
    with httpx.Client(base_url=address(home.folder), timeout=60.0, trust_env=False) as portal:
        person = {"token": token, "name": f"steward-{site}", "password": _PASSWORD}
        portal.post("/api/register", json=person).raise_for_status()


def approve(home: Home, site: str, proposal_hash: str) -> bool:
    """Sign a proposal in a hospital's portal; False when it has not arrived yet.

    Raises:
        httpx.HTTPError, OSError, ValueError: the portal is not there at this moment.
    """
    with httpx.Client(base_url=address(home.folder), timeout=20.0, trust_env=False) as portal:
        person = {"name": f"steward-{site}", "password": _PASSWORD}
        session = portal.post("/api/login", json=person).raise_for_status().json()
        found = {r["proposal_hash"]: r["state"] for r in portal.get("/api/requests").raise_for_status().json()}
        if found.get(proposal_hash) == "approved":
            return True
        if proposal_hash not in found:
            return False
        headers = {"x-csrf-token": session["csrf"]}
        path = f"/api/requests/{proposal_hash}/approve"
        portal.post(path, json={"password": _PASSWORD}, headers=headers).raise_for_status()
        return True


def _left_of(processes: set[psutil.Process], seconds: float) -> list[str]:
    """Wait for processes to end; kill those that do not and return what they were."""
    deadline = time.monotonic() + seconds
    while any(map(_lives, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [name for process in processes for name in _killed(process)]


def _killed(process: psutil.Process) -> Iterator[str]:
    with contextlib.suppress(psutil.NoSuchProcess):
        if _lives(process):
            yield " ".join(process.cmdline())[:200] or process.name()
            process.kill()


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something that a fault may delay.

    Raises:
        TesseraError: it did not come.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TesseraError(f"{what} did not happen in {seconds:g} s")
        time.sleep(0.2)


def may_mount(folder: Path) -> bool:
    """Tell whether this machine lets us mount a tmpfs."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tessera-chaos", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
    if done:
        subprocess.run(["umount", str(folder)], check=True)
    return done
