"""One study round encrypted and in the clear: the same orchestrator, messages, hospitals and training.

    python benchmarks/round.py --sites 9 --json                               the study of nine sites, with training
    python benchmarks/round.py --sites 9 --parameters 700000 --no-training --json
    python benchmarks/round.py --helpers 0,2 --sites 9 --parameters 700000 --no-training --json    with helpers, without

Orchestrator, keyholder and every hospital are processes of their own; a hospital trains in its sandboxed worker with
DP-SGD (``noise = "local"``, one epoch a round) on synthetic patients. A round lasts from one checkpoint to the next,
by the orchestrator's journal; both kinds take turns, and medians over all rounds but each study's first are given. In
the clear (``benchmarks/harness/plain.py``) float32 vectors stand for ciphertexts, and there is no keyholder and no tag.
With ``--helpers 0,2`` encrypted rounds without helpers and with two (and published sums) take turns instead:
``helpers_ratio`` is the median of the latter over that of the former.

With ``--json`` the last line of standard output is one JSON object; ``*_cpu_seconds`` are processor seconds a round of
all processes together, ``healthz_p99_ms`` what a health request takes while updates come in.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from harness.consortium import BOUND, Consortium, Hospital
from harness.plain import PlainParticipant

from datasites.data.dataset import fingerprint, read_schema
from datasites.data.ingest import ingest
from datasites.data.synthetic import generate
from datasites.hospital.rounds.taking_part import DatasetHere, RoundParticipant
from datasites.review.policy import SandboxPolicy
from datasites.study.proposal import Block, DatasetReference, Proposal
from datasites.study.recomputed.next_model import model_to_bytes
from datasites.study.signing import Signed, dump, parse, seal
from datasites.worker.job import Trainer, TrainingJob, TrainingResult
from datasites.worker.pool import WorkerPool
from datasites.worker.trainer import SandboxedTrainer
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.errors import TesseraError
from privacy.ledger.journal import Journal

SHARES = {"shared": 0.1, "mrna": 0.55, "image": 0.3, "clinical": 0.05}
KINDS = ("encrypted", "plain")
LINEAR_PARAMETERS = 2252
"""As many as the study's linear model has; so many are sent without training where nothing else is said."""
FEWEST_PARAMETERS = 20
"""So that every part of the model has one."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    sites: int
    parameters: int | None
    training: bool
    rounds: int
    studies: int
    helpers: bool = False

    @property
    def values(self) -> int:
        """How many values an update has that nobody trains."""
        return self.parameters or LINEAR_PARAMETERS

    @property
    def kinds(self) -> tuple[str, str]:
        """The two kinds of rounds that are compared: the one of interest, and what it is measured against."""
        return ("helped", "encrypted") if self.helpers else KINDS


# the hospitals ----------------------------------------------------------------------------------------------------


def random_update(site: int, parameters: int) -> Trainer:
    values = np.clip(np.random.default_rng(site).normal(0, 0.3, parameters), -BOUND, BOUND).astype(np.float32)

    def train(job: TrainingJob) -> TrainingResult:
        updates, start = {}, 0
        for block in job.proposal.blocks:
            updates[block.name] = values[start : start + block.length]
            start += block.length
        return TrainingResult(updates=updates, releases={})

    return train


def dataset_in(folder: Path, patients: int) -> DatasetHere:
    def here(_: str) -> tuple[DatasetReference, Path]:
        schema = read_schema(folder)
        found = DatasetReference(
            name=schema.name,
            version=schema.version,
            fingerprint=fingerprint(folder, b"k" * 32),
            schema_hash=schema.schema_hash,
            patients=patients,
        )
        return found, folder

    return here


def be_hospital(
    consortia: dict[str, Consortium], index: int, commands: Connection, settings: Settings, data: Path | None
) -> None:
    """Take part in both kinds of studies until the parent closes its end."""
    name = next(iter(consortia.values())).names[index]
    dataset = None if data is None else dataset_in(data, 100)
    train: Trainer = random_update(index, settings.values)
    pool = WorkerPool(SandboxPolicy())
    if settings.training:
        train = SandboxedTrainer(site=name, pool=pool, folder=Path(tempfile.mkdtemp()), code_of=lambda _: Path())
        pool.start()
    hospitals = {
        kind: Hospital.open(
            c.homes[name],
            train,
            url=c.url,
            dataset=dataset,
            part=PlainParticipant if kind == "plain" else RoundParticipant,
        )
        for kind, c in consortia.items()
    }
    ended = threading.Event()
    for hospital in hospitals.values():
        threading.Thread(target=hospital.run, args=(ended.is_set,), kwargs={"wait": 20.0}, daemon=True).start()
    commands.send("ready")
    try:
        while True:
            kind, document = commands.recv()
            hospitals[kind].approve(parse(Signed, document))
            commands.send("approved")
    except EOFError:
        pool.close()
        os._exit(0)


@contextmanager
def hospitals(consortia: dict[str, Consortium], settings: Settings, data: list[Path] | None) -> Iterator[list[Any]]:
    context = multiprocessing.get_context("fork")
    ends, processes = [], []
    for index in range(settings.sites):
        ours, theirs = context.Pipe()

        def work(index: int = index, theirs: Connection = theirs, ours: Connection = ours) -> None:
            for end in [*ends, ours]:
                end.close()
            be_hospital(consortia, index, theirs, settings, data[index] if data else None)

        process = context.Process(target=work)
        process.start()
        theirs.close()
        ends.append(ours)
        processes.append(process)
    try:
        for end in ends:
            end.recv()
        yield [ends, [p.pid for p in processes]]
    finally:
        for end in ends:
            end.close()
        for process in processes:
            process.join(20)
            if process.is_alive():
                process.kill()


# the studies ------------------------------------------------------------------------------------------------------


def untrained(consortium: Consortium, study: str, settings: Settings) -> tuple[Proposal, bytes]:
    total = settings.values
    lengths = {name: max(1, int(total * share)) for name, share in SHARES.items()}
    lengths["shared"] += total - sum(lengths.values())
    blocks = [Block(name=n, modality=None, length=length, parameters=(n,)) for n, length in lengths.items()]
    proposal = consortium.proposal(study, rounds=settings.rounds, blocks=blocks, deadline_seconds=300)
    return proposal, model_to_bytes({b.name: np.zeros(b.length, np.float32) for b in blocks})


def trained(consortium: Consortium, study: str, settings: Settings, data: list[Path]) -> tuple[Proposal, bytes]:
    offers = []
    for name, folder in zip(consortium.names, data, strict=True):
        schema = read_schema(folder)
        offers.append(
            Offer(
                party=consortium.homes[name].party(),
                cohort=schema.cohort,
                modalities=schema.modalities,
                dataset=dataset_in(folder, 100)(name)[0],
                features=schema.feature_counts(),
                cohorts=schema.cohorts,
                task=schema.task,
            )
        )
    wishes = StudySettings(
        study=study,
        purpose="To measure a round.",
        legal_basis="Synthetic patients.",
        task="early-late",
        rounds=settings.rounds,
        noise="local",
        sampling_rate=0.5,
        steps_per_round=2,
        deadline_seconds=300,
        architecture="linear" if settings.parameters is None else "mlp",
    )
    roster = consortium.roster
    return build_proposal(
        wishes, offers, orchestrator=roster.orchestrator, keyholder=roster.keyholder, helpers=roster.helpers, code={}
    )


def run_study(
    consortium: Consortium, kind: str, study: str, make: Callable[..., tuple[Proposal, bytes]], ends: Any
) -> None:
    proposal, model = make(consortium, study)
    consortium.register(proposal, model)
    document = dump(seal(consortium.identity, "proposal", proposal))
    for end in ends:
        end.send((kind, document))
    for end in ends:
        end.recv()
    consortium.wait(study, "finished", seconds=600, every=0.5)


def round_seconds(consortium: Consortium, study: str) -> list[float]:
    """Return how long each round but the first took, from checkpoint to checkpoint."""
    journal = consortium.journal()
    at = [dt.datetime.fromisoformat(e.at) for e in journal.entries(kind="round-finished") if e.body["study"] == study]
    journal.close()
    return [(b - a).total_seconds() for a, b in itertools.pairwise(at)]


def require_trained(consortium: Consortium, kind: str) -> None:
    """Refuse to report times of rounds in which a worker failed and only noise was sent."""
    for name in consortium.names:
        journal = Journal(consortium.homes[name].folder / "journal.sqlite", None)
        failures = list(journal.entries(kind="worker-failed"))
        journal.close()
        if failures:
            raise TesseraError(f"the worker of {name} failed in {len(failures)} {kind} rounds")


# what it costs ----------------------------------------------------------------------------------------------------


def cpu_seconds(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


class Peak(threading.Thread):
    """The largest memory of a process and its children, each at its own peak, in MB."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root, self._peaks, self._ended = psutil.Process(pid), dict[int, int](), threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            with contextlib.suppress(psutil.NoSuchProcess):
                self._look()

    def _look(self) -> None:
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                continue
            peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
            self._peaks[process.pid] = max(peak, self._peaks.get(process.pid, 0))

    def megabytes(self) -> float:
        self._ended.set()
        main = self._peaks.get(self._root.pid, 0)
        others = [peak for pid, peak in self._peaks.items() if pid != self._root.pid]
        return (main + max(others, default=0)) / 1024


class HealthProbe(threading.Thread):
    """Asks for the server's health all the time and keeps how long each answer took."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self._ended = url, threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False) as client:
            while not self._ended.wait(0.02):
                started = time.perf_counter()
                client.get("/healthz")
                self.seconds.append(time.perf_counter() - started)

    def p99_ms(self) -> float:
        self._ended.set()
        self.join(10)
        return 1000 * float(np.quantile(self.seconds, 0.99)) if self.seconds else float("nan")


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    data: list[Path] | None = None
    if settings.training:
        federation = ingest(
            generate(seed=1), folder / "data", federation="tri-modal", task="early-late", seed=1, sites=settings.sites
        )
        data = [folder / "data" / "sites" / s.name for s in federation.sites]
    make = (
        (lambda c, s: trained(c, s, settings, data or []))
        if settings.training
        else lambda c, s: untrained(c, s, settings)
    )
    with started(folder, settings) as consortia:
        measured = consortia[settings.kinds[0]]
        seconds: dict[str, list[float]] = {kind: [] for kind in settings.kinds}
        processor: dict[str, list[float]] = {kind: [] for kind in settings.kinds}
        with hospitals(consortia, settings, data) as (ends, pids):
            peak = Peak(measured.pid("orchestrator"))
            peak.start()
            for turn in range(settings.studies):
                for kind, consortium in consortia.items():
                    roots = [*pids, *(p.pid for p in consortium.processes.children.values())]
                    study, before = f"study-{turn}", cpu_seconds(roots)
                    run_study(consortium, kind, study, make, ends)
                    processor[kind].append((cpu_seconds(roots) - before) / settings.rounds)
                    seconds[kind] += round_seconds(consortium, study)
            probe = HealthProbe(measured.url)
            probe.start()
            run_study(measured, settings.kinds[0], "probed", make, ends)
            health = probe.p99_ms()
            status = measured.status("study-0")
            for kind, consortium in consortia.items():
                require_trained(consortium, kind)
    proposal = status["proposal"]["payload"]
    ours, other = settings.kinds
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    spread = {
        f"{kind}_quartiles": [round(q, 3) for q in statistics.quantiles(seconds[kind])] for kind in settings.kinds
    }
    load = [round(each, 2) for each in os.getloadavg()]
    return {
        f"{ours}_seconds": round(medians[ours], 3),
        f"{other}_seconds": round(medians[other], 3),
        "helpers_ratio" if settings.helpers else "ratio": round(medians[ours] / medians[other], 3),
        "upload_bytes_per_site": status["checkpoints"][-1]["uplink_bytes"] // len(status["checkpoints"][-1]["sites"]),
        "orchestrator_peak_mb": round(peak.megabytes(), 1),
        f"{ours}_best_seconds": round(min(seconds[ours]), 3),
        f"{other}_best_seconds": round(min(seconds[other]), 3),
        f"{ours}_cpu_seconds": round(min(processor[ours]), 3),
        f"{other}_cpu_seconds": round(min(processor[other]), 3),
        "healthz_p99_ms": round(health, 1),
        "sites": settings.sites,
        "parameters": sum(b["length"] for b in proposal["blocks"]),
        "training": settings.training,
        "rounds": len(seconds[ours]),
        **spread,
        "load": load,
    }


@contextmanager
def started(folder: Path, settings: Settings) -> Iterator[dict[str, Consortium]]:
    """Yield the two running consortia that are compared, by kind, without their hospitals."""
    script = Path(__file__).parent / "harness" / "plain.py"
    with contextlib.ExitStack() as running:
        consortia = {}
        for kind in settings.kinds:
            own = {"script": script} if kind == "plain" else {"helpers": 2} if kind == "helped" else {}
            consortia[kind] = running.enter_context(Consortium(folder / kind, sites=settings.sites, **own))
            consortia[kind].start(keyholder=kind != "plain", hospitals=False)
        yield consortia


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parameters", type=int, help="values in an update (default: those of the study's linear model)"
    )
    parser.add_argument("--sites", type=int, default=9)
    parser.add_argument("--no-training", action="store_true", help="hospitals send random updates at once")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of a study, its first not counted")
    parser.add_argument("--studies", type=int, default=2, help="studies of either kind, taking turns")
    parser.add_argument(
        "--helpers", choices=["0,2"], help="compare rounds without helpers and with two, in place of plain ones"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    if arguments.parameters is not None and arguments.parameters < FEWEST_PARAMETERS:
        parser.error(f"expected --parameters of at least {FEWEST_PARAMETERS}, got {arguments.parameters}")
    settings = Settings(
        sites=arguments.sites,
        parameters=arguments.parameters,
        training=not arguments.no_training,
        rounds=max(3, arguments.rounds),
        studies=max(1, arguments.studies),
        helpers=arguments.helpers is not None,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="tessera-round-") as folder:
            result = measure(settings, Path(folder))
    except TesseraError as error:
        raise SystemExit(f"the round did not run: {error}") from error
    if arguments.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
