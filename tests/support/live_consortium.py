"""A running consortium with all its people: PySyft, portals, dashboard and commands; only the training is played.

Orchestrator and keyholder are processes of their own. Every hospital is the product's own datasite with all its loops
and its portal, in this process: no hospital has to load PySyft and torch for itself, and no report is written at the
end of a study (both are shown elsewhere, and take most of a consortium's time). At the first hospital two people sign.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from harness.forking import role_starter
from support.live_study import WorkersHere
from support.review_desk import PASSWORD
from support.waiting import until

from datasites.hospital import daemon, facts
from datasites.hospital.datasite import Datasite
from datasites.hospital.proposals import Node
from datasites.node.home import Config, Home, address
from datasites.node.http import SignedClient
from datasites.node.process import Loop, announce, bind, stop_loops
from datasites.portal.app import create_portal
from datasites.review.accounts import AccountStore
from datasites.review.budget_acts import open_rounds
from datasites.worker.job import Trainer, TrainingJob, TrainingResult
from datasites.worker.pool import WorkerPool
from datasites.worker.preflight import Preflight
from orchestrator.cli import main
from orchestrator.dashboard.access import new_link
from orchestrator.demo.consortium import Homes, prepare
from orchestrator.demo.processes import Processes
from orchestrator.studies.status import proposal_of

SITES, READY_SECONDS = 4, 240.0
FILING = Path(__file__).parents[2] / "docker" / "filing.toml"
STEWARD, OFFICER = "anna", "bela"
SCIENTIST = "ada.example"


def idle(site: str) -> Trainer:
    """Return a trainer that learns nothing: zeros are an update under every kind of noise."""

    def train(job: TrainingJob) -> TrainingResult:
        blocks = job.proposal.blocks_of(site)
        return TrainingResult(updates={b.name: np.zeros(b.length, np.float32) for b in blocks}, releases={})

    return train


class LiveHospital:
    """One datasite with its loops and its portal, as :func:`datasites.hospital.daemon.run` puts them together."""

    def __init__(self, home: Home, model: Callable[[str], bytes], *, trains: bool = False) -> None:
        made = Datasite.open(home)
        part = replace(
            made.participant,
            train=idle(home.config().name),
            build=lambda p: model(p.chain.model_hash),
            preflight=lambda _: None,
        )
        if trains:
            trainer = replace(made.trainer, pool=WorkersHere())
            tried = Preflight(trainer=trainer)
            part = replace(made.participant, train=trainer, build=trainer.initial_model, preflight=tried)
        self.datasite = replace(made, participant=part)
        self._worker = daemon.Worker(self.datasite, lambda _: None)
        self._loops = [
            Loop("syft", Node(self.datasite).step),
            Loop("approvals", daemon.Messenger(self.datasite).step),
            Loop("work", self._worker.step),
        ]
        app = create_portal(facts.context(self.datasite))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        listener = bind("127.0.0.1", 0)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        announce(home.folder, listener, "datasite")
        for thread in (*self._loops, self._thread):
            thread.start()

    @property
    def policy(self) -> Path:
        return self.datasite.policies.path

    def close(self) -> None:
        self._server.should_exit = True
        stop_loops(self._loops, seconds=5.0)
        self._worker.lanes.close(5.0)
        self._thread.join(120)
        self.datasite.close()


@dataclass
class Person:
    """Somebody with an account at one hospital, who uses its machine API."""

    name: str
    portal: httpx.Client
    csrf: str

    def get(self, path: str) -> Any:
        return _answered(self.portal.get(f"/api/{path}"))

    def post(self, path: str, **body: str) -> Any:
        return _answered(self.portal.post(f"/api/{path}", json=body, headers={"x-csrf-token": self.csrf}))

    def has(self, proposal_hash: str) -> dict[str, Any]:
        """Return the request once it has arrived."""
        until(lambda: any(r["proposal_hash"] == proposal_hash for r in self.get("requests")), "the request arrives")
        found: dict[str, Any] = self.get(f"requests/{proposal_hash}")
        return found

    def approve(self, proposal_hash: str, conditions: str = "") -> None:
        self.has(proposal_hash)
        self.post(f"requests/{proposal_hash}/approve", password=PASSWORD, conditions=conditions)

    def sees(self, proposal_hash: str, state: str) -> dict[str, Any]:
        """Return a request once it is in a state."""
        until(
            lambda: self.get(f"requests/{proposal_hash}")["state"] == state,
            lambda: f"{self.name} sees {state}, and not {self.get(f'requests/{proposal_hash}')['state']}",
        )
        return self.has(proposal_hash)


@dataclass
class LiveConsortium:
    """Orchestrator, keyholder and hospitals; leaving the ``with`` block ends them all.

    With ``trains`` hospitals train as they do, but in this process and without a sandbox.
    """

    folder: Path
    count: int = SITES
    trains: bool = False
    processes: Processes = field(init=False)
    homes: Homes = field(init=False)
    scientist: Home = field(init=False)
    client: SignedClient = field(init=False)
    hospitals: dict[str, LiveHospital] = field(default_factory=dict)
    stewards: dict[str, Person] = field(default_factory=dict)
    officer: Person = field(init=False)
    officers: dict[str, Person] = field(default_factory=dict)
    _closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> LiveConsortium:
        with self._closing:
            self._start()
            self._closing = self._closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _start(self) -> None:
        data = prepare(None, self.folder, federation="tri-modal", task="early-late", sites=self.count, seed=0)
        config = Config(name=SCIENTIST, institution="Example Institute", role="scientist", orchestrator_url="")
        self.scientist = Home.create(self.folder / SCIENTIST, config)
        self.homes = Homes.make(self.folder, data, 8.0, helpers=0, scientists=[self.scientist.party()])
        self.homes.orchestrator.roster().save(self.scientist.folder / "roster.json")
        links = {steward.site: steward.invitation for steward in self.homes.invite()}
        with (self.homes.hospitals[self.sites[0]].folder / "policy.toml").open("a") as policy:
            policy.write("[review]\nrequired_reviewers = 2\n[study]\nallow_own_evaluation = true\n")
        self.processes = self._closing.enter_context(Processes(logs=self.folder / "logs", warm=role_starter()))
        home = self.homes.orchestrator
        self.processes.start("orchestrator", ["orchestrator", "run", "--home", str(home.folder)])
        self.processes.wait_until_ready([home.folder], READY_SECONDS)
        others = {"keyholder": self.homes.keyholder, **self.homes.hospitals}
        for other in others.values():
            Home.create(other.folder, replace(other.config(), orchestrator_url=address(home.folder)))
        self.processes.start("keyholder", ["keyholder", "run", "--home", str(self.homes.keyholder.folder)])
        key = home.identity().public_key
        self.client = self._closing.enter_context(SignedClient(home.identity(), address(home.folder), key))
        patch = self._closing.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(daemon, "write_reports_apart", lambda *_, **__: None)
        patch.setattr(WorkerPool, "start", lambda _: None)
        for site, place in self.homes.hospitals.items():
            self.hospitals[site] = LiveHospital(
                place, lambda digest: self.client.get_bytes(f"/blobs/{digest}"), trains=self.trains
            )
            self._closing.callback(self.hospitals[site].close)
        for site, token in links.items():
            self.stewards[site] = self.join(site, STEWARD, token)
        self.officer = self.invite(self.sites[0], OFFICER, "privacy-officer")
        self.processes.wait_until_ready([self.homes.keyholder.folder], READY_SECONDS)

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.homes.hospitals)

    @property
    def home(self) -> Home:
        """The scientists' folder."""
        return self.homes.orchestrator

    def portal(self, site: str) -> str:
        return address(self.homes.hospitals[site].folder)

    def invite(self, site: str, name: str, role: Any) -> Person:
        """Invite one more person, as whoever runs commands on the hospital's machine."""
        accounts = AccountStore(self.homes.hospitals[site].folder / "accounts.sqlite")
        with contextlib.closing(accounts):
            token = accounts.invite(role, now=self.hospitals[site].datasite.journal.now())
        return self.join(site, name, token)

    def join(self, site: str, name: str, token: str) -> Person:
        """Make an account from a one-time link and open a session of the machine API."""
        portal = self._closing.enter_context(httpx.Client(base_url=self.portal(site), timeout=120.0, trust_env=False))
        who = {"name": name, "password": PASSWORD}
        _answered(portal.post("/api/register", json={"token": token, **who}))
        return Person(name=name, portal=portal, csrf=_answered(portal.post("/api/login", json=who))["csrf"])

    def approve(self, proposal_hash: str, *sites: str) -> None:
        """Have everybody who has to sign at some hospitals (all without names) approve."""
        for site in sites or self.sites:
            self.stewards[site].approve(proposal_hash)
            if site == self.sites[0]:
                self.officer.approve(proposal_hash)

    def allow_own_code(self) -> None:
        """Let every hospital take studies that bring Python, which two people have to approve; see ``approve_code``."""
        for site in self.sites:
            policy = self.hospitals[site].policy
            if "allow_free_python" not in policy.read_text():
                rules, _, study = policy.read_text().partition("[study]\n")
                policy.write_text(f"{rules}\n[study]\nallow_free_python = true\n{study}")
                self.officers[site] = (
                    self.officer if site == self.sites[0] else self.invite(site, OFFICER, "privacy-officer")
                )

    def approve_code(self, proposal_hash: str) -> dict[str, Any]:
        """Have both people of every hospital approve a study with own code, after its dry run; return each dry run."""
        tried = {}
        for site in self.sites:
            self.stewards[site].has(proposal_hash)
            tried[site] = self.stewards[site].post(f"requests/{proposal_hash}/dry-run")
            for person in (self.stewards[site], self.officers[site]):
                person.approve(proposal_hash)
        return tried

    def reserved(self, site: str, study: str) -> int:
        """Return how many rounds of a study are reserved at a hospital and neither charged nor given back."""
        ledger = self.hospitals[site].datasite.ledger
        accounts = (ledger.account(population) for population in ledger.populations())
        return sum(open_rounds(s) for a in accounts for s in a.studies if s.study == study)

    def dashboard(self) -> str:
        """Return a link that opens the scientists' dashboard once."""
        return new_link(self.home)

    def status(self, study: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get_json(f"/studies/{study}")
        return found

    def hash_of(self, study: str) -> str:
        return proposal_of(self.status(study)).proposal_hash

    def becomes(self, study: str, *states: str) -> dict[str, Any]:
        """Return the study once it is in one of these states."""
        until(lambda: self.status(study)["state"] in states, lambda: f"{study} to be {states}: {self._told(study)}")
        return self.status(study)

    def _told(self, study: str) -> str:
        status = self.status(study)
        return ", ".join(str(status[name]) for name in ("state", "reason", "waiting", "rounds_completed"))


class Scientist:
    """Types ``tessera`` commands in the scientists' folder."""

    def __init__(
        self, consortium: LiveConsortium, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.consortium, self._capsys, self._monkeypatch = consortium, capsys, monkeypatch

    def tessera(self, *arguments: object, code: int = 0) -> str:
        """Run one command in this process, check its exit code, and return what it printed on both streams."""
        home = ("--home", str(self.consortium.home.folder))
        self._monkeypatch.setattr(sys, "argv", ["tessera", *map(str, arguments), *home])
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = self._capsys.readouterr()
        assert ended.value.code == code, f"{arguments}: exit code {ended.value.code}: {out} {err}"
        return " ".join(f"{out} {err}".split())

    def propose(self, study: str, *options: object, rounds: int = 1) -> str:
        """Propose a small study and return its hash."""
        small = ("--filing", FILING, "--noise", "local", "--epsilon", 1.5, "--rounds", rounds, "--min-sites", 3)
        self.tessera("propose", study, *small, *options)
        return self.consortium.hash_of(study)


def _answered(response: httpx.Response) -> Any:
    assert response.is_success, f"{response.request.url}: {response.status_code} {response.text}"
    return json.loads(response.content or b"null")
