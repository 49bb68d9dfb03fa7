"""A consortium on one machine for tests and benchmarks: real processes and messages, without PySyft and portal.

Orchestrator and keyholder are the product's own processes. A hospital is the product's own
:class:`~datasites.hospital.rounds.taking_part.RoundParticipant` with journal, ledger and approvals; only its trainer is
given, and its reviewer signs without being asked.

    with Consortium(folder, sites=3) as consortium:
        consortium.start()
        study = consortium.propose("pilot", length=5000)
        with consortium.working():
            consortium.wait(study, "finished")
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from datasites.hospital.rounds.taking_part import DatasetHere, RoundParticipant
from datasites.node.home import Config, Home, address
from datasites.node.http import SignedClient
from datasites.node.roster import Roster
from datasites.node.work import Witness, WorkQueue
from datasites.review.accounts import Account
from datasites.review.approvals import ApprovalStore
from datasites.review.environment import current_environment
from datasites.review.policy import Partner, Policy
from datasites.study.messages import WorkItem
from datasites.study.proposal import Block, Chain, Proposal
from datasites.study.recomputed.next_model import model_from_bytes, model_to_bytes
from datasites.study.signing import Signed, dump, open_sealed, parse, seal
from datasites.worker.job import Trainer, TrainingJob, TrainingResult
from harness.forking import role_starter
from harness.proposals import make_dataset, make_mechanism, make_participant, make_proposal
from orchestrator.demo.processes import Processes
from privacy.canonical import sha256_hex
from privacy.encryption.parameters import choose_parameters
from privacy.errors import TesseraError
from privacy.identity import Identity
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger, case_hash

LEVELS, BOUND = 512, 1.0
READY_SECONDS = 180.0
POLL_SECONDS = 20.0


def steps_of(site: int, block: str, length: int) -> np.ndarray:
    """Return the whole quantiser steps int64[length] that hospital ``site`` sends for a block when it only plays."""
    generator = np.random.default_rng([site, int(sha256_hex(block.encode())[:8], 16)])
    return generator.integers(-LEVELS, LEVELS + 1, length)


def playing(site: int) -> Trainer:
    """Return a trainer that sends :func:`steps_of`, so that rounding is exact and sums are known."""

    def train(job: TrainingJob) -> TrainingResult:
        blocks = job.proposal.blocks_of(job.proposal.participants[site].name)
        updates = {b.name: (steps_of(site, b.name, b.length) * BOUND / LEVELS).astype(np.float32) for b in blocks}
        return TrainingResult(updates=updates, releases={})

    return train


def zeros(proposal: Proposal) -> bytes:
    """Return the initial model of a study that only plays: zero in every block."""
    return model_to_bytes({b.name: np.zeros(b.length, np.float32) for b in proposal.blocks})


@dataclass
class Hospital:
    """One datasite's own parts, opened where its work is done."""

    home: Home
    url: str
    participant: RoundParticipant
    approvals: ApprovalStore

    @classmethod
    def open(
        cls,
        home: Home,
        train: Trainer,
        *,
        url: str = "",
        dataset: DatasetHere | None = None,
        part: type[RoundParticipant] = RoundParticipant,
        name: str = "",
    ) -> Hospital:
        """Open stores under ``home``; ``name`` keeps those of several orchestrators apart."""
        config, identity, roster = home.config(), home.identity(), home.roster()
        journal = Journal(home.folder / f"journal{name}.sqlite", identity)
        ledger = Ledger(home.folder / f"ledger{name}.sqlite", identity)
        here = dataset or (lambda _: (make_dataset(config.name), home.folder))

        def reserve(proposal: Proposal) -> None:
            asked = proposal.participant(config.name).dataset
            population = ledger.register_dataset(asked.name, asked.version, [case_hash(b"s" * 32, "case")])
            if ledger.account(population).cap is None:
                ledger.set_cap(population, epsilon=math.inf, delta=1e-5, by="test", reason="no cap in this play")
            ledger.reserve(
                population, study=proposal.study, proposal_hash=proposal.proposal_hash, plan=proposal.mechanism
            )

        approvals = ApprovalStore(
            home.folder / f"approvals{name}.sqlite",
            site=config.name,
            identity=identity,
            policy=_policy(roster),
            record=journal.append,
            reserve=reserve,
            roster=home.roster,
        )
        participant = part(
            site=config.name,
            home=home,
            client=SignedClient(identity, url or config.orchestrator_url, roster.orchestrator.public_key),
            approvals=approvals,
            ledger=ledger,
            journal=journal,
            train=train,
            dataset=here,
            build=getattr(train, "initial_model", zeros),
        )
        return cls(home=home, url=url or config.orchestrator_url, participant=participant, approvals=approvals)

    @property
    def client(self) -> SignedClient:
        """The signed client of this hospital."""
        return self.participant.client

    def approve(self, signed: Signed) -> None:
        """Receive, sign and send the approval of one proposal."""
        now = dt.datetime.now(dt.UTC)
        folder = self.home.folder / "code"
        folder.mkdir(exist_ok=True)
        request = self.approvals.receive(signed, folder, now=now)
        key = Identity.from_seed(bytes.fromhex(sha256_hex(self.participant.site.encode())))
        reviewer = Account(name=f"steward-{self.participant.site}", role="steward", public_key=key.public_key)
        if request.state != "approved":
            request = self.approvals.approve(request.proposal_hash, reviewer=reviewer, key=key, now=now)
        if request.approval is None:
            raise TesseraError("the approval was not sealed")
        self.client.post_json(f"/studies/{request.proposal.study}/approvals", dump(request.approval))

    def work(self, wait: float = POLL_SECONDS) -> list[WorkItem]:
        """Return what this hospital is asked to do now."""
        return [parse(WorkItem, i) for i in self.client.get_json("/work", params={"wait": wait}, wait_seconds=wait)]

    def run(self, ended: Callable[[], bool], *, wait: float = 1.0) -> None:
        """Do what is asked until ``ended``, as the datasite's own loop does."""
        witness = Witness(home=self.home, client=self.client, proposals=self.approvals.sealed_proposals)
        queue = WorkQueue(self.client, wait_seconds=wait, witness=witness)
        while not ended():
            with contextlib.suppress(TesseraError):
                for item in queue.ask():
                    self.participant.handle(item)
                queue.handled()

    def close(self) -> None:
        """Close all stores."""
        self.client.close()
        for store in (self.approvals, self.participant.ledger, self.participant.journal):
            store.close()


class Consortium:
    """Orchestrator, keyholder and hospitals under one folder; leaving the ``with`` block ends every process."""

    def __init__(
        self,
        folder: Path,
        *,
        sites: int,
        names: Sequence[str] = (),
        institutions: Sequence[str] = (),
        trainers: Mapping[int, Trainer] | None = None,
        script: Path | None = None,
        helpers: int = 0,
    ) -> None:
        self.folder, self._script = folder, script
        current_environment()  # read once, so that hospitals forked later agree on it
        self.processes = Processes(logs=folder / "logs")
        self._trainers = dict(trainers or {})
        self.homes = {
            "orchestrator": _home(folder, "orchestrator", "Study office", "orchestrator"),
            "keyholder": _home(folder, "keyholder", "Notary", "keyholder"),
        }
        self.names = list(names) or [f"site-{i}" for i in range(sites)]
        self.helpers = [f"helper-{i}" for i in range(helpers)]
        for i, name in enumerate(self.names):
            self.homes[name] = _home(folder, name, institutions[i] if institutions else f"Hospital {i}", "datasite")
        for i, name in enumerate(self.helpers):  # the first hospitals run them
            self.homes[name] = _home(folder, name, self.homes[self.names[i]].config().institution, "helper")
        self.roster = Roster(
            orchestrator=self.homes["orchestrator"].party(),
            keyholder=self.homes["keyholder"].party(),
            sites=tuple(self.homes[n].party() for n in self.names),
            helpers=tuple(self.homes[n].party() for n in self.helpers),
        )
        for home in self.homes.values():
            self.roster.save(home.folder / "roster.json")
        self.hospitals: list[Hospital] = []
        self.client: SignedClient

    def __enter__(self) -> Consortium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hospital in self.hospitals:
            hospital.close()
        if hasattr(self, "client"):
            self.client.close()
        self.processes.end()

    @property
    def url(self) -> str:
        """Where the orchestrator listens."""
        return address(self.homes["orchestrator"].folder)

    @property
    def identity(self) -> Identity:
        """The orchestrator's identity."""
        return self.homes["orchestrator"].identity()

    def start(self, *, keyholder: bool = True, hospitals: bool = True) -> None:
        """Start orchestrator and keyholder, and open the hospitals in this process."""
        home = self.homes["orchestrator"]
        self.processes.warm = role_starter()
        if self._script is None:
            self.processes.start("orchestrator", ["orchestrator", "run", "--home", str(home.folder)])
        else:
            command = [sys.executable, str(self._script), str(home.folder)]
            self.processes.children["orchestrator"] = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)
        self.processes.wait_until_ready([home.folder], READY_SECONDS)
        self.settle(self.url)
        if keyholder:
            self.start_keyholder()
        for name in self.helpers:
            self.start_helper(name)
        self.client = SignedClient(self.identity, self.url, self.identity.public_key)
        if hospitals:
            self.open_hospitals()

    def settle(self, url: str) -> None:
        """Write the orchestrator's address into everybody's settings."""
        for name, home in self.homes.items():
            if name != "orchestrator":
                Home.create(home.folder, replace(home.config(), orchestrator_url=url))

    def start_keyholder(self) -> None:
        """Start the keyholder's process."""
        home = self.homes["keyholder"]
        self.processes.start("keyholder", ["keyholder", "run", "--home", str(home.folder)])
        self.processes.wait_until_ready([home.folder], READY_SECONDS)

    def start_helper(self, name: str) -> None:
        """Start a helper's process."""
        home = self.homes[name]
        self.processes.start(name, ["helper", "run", "--home", str(home.folder)])
        self.processes.wait_until_ready([home.folder], READY_SECONDS)

    def open_hospitals(self) -> None:
        """Open every hospital in this process."""
        self.hospitals = [
            Hospital.open(self.homes[name], self._trainers.get(i) or playing(i)) for i, name in enumerate(self.names)
        ]

    def among(self, sites: int) -> Consortium:
        """Return this running consortium as a study of its first ``sites`` hospitals sees it."""
        some = copy.copy(self)
        some.names, some.hospitals = self.names[:sites], self.hospitals[:sites]
        return some

    def pid(self, role: str) -> int:
        """Return the process id of orchestrator or keyholder."""
        return self.processes.children[role].pid

    def journal(self) -> Journal:
        """Return the orchestrator's journal, for reading."""
        return Journal(self.homes["orchestrator"].folder / "journal.sqlite", None)

    # studies ---------------------------------------------------------------------------------------------------

    def proposal(
        self,
        study: str,
        *,
        length: int = 2000,
        rounds: int = 1,
        min_sites: int = 3,
        deadline_seconds: int = 30,
        blocks: Sequence[Block] = (),
        modalities: Mapping[int, tuple[str, ...]] | None = None,
        **changes: Any,
    ) -> Proposal:
        """Return a proposal of all hospitals with one block of ``length`` values, or with ``blocks``."""
        chosen = tuple(blocks) or (Block(name="shared", modality=None, length=length, parameters=("shared",)),)
        held, everybody = modalities or {}, ("mrna", "clinical")
        fields: dict[str, Any] = {
            "participants": tuple(
                make_participant(self.homes[name].party(), modalities=held.get(i, everybody))
                for i, name in enumerate(self.names)
            ),
            "mechanism": make_mechanism(rounds=rounds, steps_per_round=1),
            "rounds": rounds,
            "min_sites": min_sites,
            "blocks": chosen,
            "encryption": choose_parameters(
                sites=max(3, len(self.names)), levels=LEVELS, length=max(b.length for b in chosen)
            ),
            "deadline_seconds": deadline_seconds,
            "environment": current_environment(),
            "helpers": self.roster.helpers,
            "published": bool(self.helpers),
            "chain": Chain(
                model_hash=sha256_hex(model_to_bytes({b.name: np.zeros(b.length, np.float32) for b in chosen}))
            ),
        }
        return make_proposal(
            study=study,
            orchestrator=self.roster.orchestrator,
            keyholder=self.roster.keyholder,
            created=dt.datetime.now(dt.UTC).replace(microsecond=0),
            days=1,
            **(fields | changes),
        )

    def propose(self, study: str, *, approve: bool = True, **settings: Any) -> Proposal:
        """Register a study whose model is zero, and have every hospital approve it."""
        proposal = self.proposal(study, **settings)
        self.register(proposal, zeros(proposal))
        if approve:
            signed = seal(self.identity, "proposal", proposal)
            for hospital in self.hospitals:
                hospital.approve(signed)
        return proposal

    def register(self, proposal: Proposal, model: bytes) -> None:
        """Give the orchestrator a study and its first model."""
        digest = sha256_hex(model)
        self.client.put_bytes(f"/blobs/{digest}", model)
        signed = seal(self.identity, "proposal", proposal)
        self.client.post_json("/studies", {"proposal": dump(signed), "model_hash": digest})

    def status(self, study: str) -> dict[str, Any]:
        """Return the study as its orchestrator shows it."""
        found: dict[str, Any] = self.client.get_json(f"/studies/{study}")
        return found

    def wait(self, study: str, state: str, seconds: float = 240.0, *, every: float = 0.1) -> dict[str, Any]:
        """Return the study once it is in ``state``.

        Raises:
            TesseraError: it came to another end, or took too long.
        """
        deadline = time.monotonic() + seconds
        while True:
            status = self.status(study)
            if status["state"] == state:
                return status
            if status["state"] in ("failed", "paused", "finished") or time.monotonic() > deadline:
                raise TesseraError(f"expected {study} to be {state}, got {status['state']}: {status['reason']}")
            time.sleep(every)

    def model(self, status: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the last model of a study."""
        digest = status["checkpoints"][-1]["model_hash"]
        return model_from_bytes(self.client.get_bytes(f"/blobs/{digest}"))

    @contextlib.contextmanager
    def working(self, *sites: int, wait: float = 1.0) -> Iterator[None]:
        """Let some hospitals (default: all) work in threads meanwhile; each question for work lasts ``wait`` s."""
        ended = threading.Event()
        threads = [
            threading.Thread(target=self.hospitals[i].run, args=(ended.is_set,), kwargs={"wait": wait}, daemon=True)
            for i in (sites or range(len(self.hospitals)))
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join(30)


def opened_proposal(signed: Signed, orchestrator: str) -> Proposal:
    """Return the proposal in a signed message."""
    return open_sealed(signed, "proposal", orchestrator, Proposal)


def _home(folder: Path, name: str, institution: str, role: Any) -> Home:
    config = Config(name=name, institution=institution, role=role, orchestrator_url="http://127.0.0.1:9")
    return Home.create(folder / name, config)


def _policy(roster: Roster) -> Policy:
    partners = tuple(Partner(name=p.name, public_key=p.public_key) for p in roster.everybody)
    rules = '[noise]\nmodes = ["local", "shared"]\nallow_public_seed = true\nallow_infinite_epsilon = true'
    return Policy.parse(rules).model_copy(update={"partners": partners})
