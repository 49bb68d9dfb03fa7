"""Simulated studies side by side: one in this process, several in processes of their own.

The processes are started by their module's name and told what to do in JSON. They import nothing of the caller's: a
script needs no ``if __name__ == "__main__"``, and a notebook works as well.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from datasites.node.files import write_atomically
from datasites.study.signing import dump
from orchestrator.simulation.runs import SimulationRequest, run_one
from orchestrator.simulation.sites import SimulatedStudy
from privacy import errors
from privacy.errors import InvalidInput, TesseraError
from tessera._engine import ROOT

OnRound = Callable[[int, int, float], None]
_TAIL = 400


@dataclass(frozen=True, kw_only=True)
class Job:
    """One seed of one request; its result and model lie in ``folder`` once it is done.

    ``key`` says what the result depends on: a result with another key is an old one, and is run again.
    """

    request: SimulationRequest
    seed: int
    key: str
    folder: Path

    @property
    def facts_file(self) -> Path:
        """Where the result lies, and beside it the model."""
        return self.folder / f"seed-{self.seed}.json"

    @property
    def model_file(self) -> Path:
        """Where the last model lies (safetensors)."""
        return self.folder / f"seed-{self.seed}.safetensors"

    @property
    def done(self) -> bool:
        """Whether a result of this very request is there."""
        return self.model_file.exists() and self.facts().get("key") == self.key

    def facts(self) -> dict[str, Any]:
        """Return everything that was written of this seed; nothing if there is no readable file."""
        try:
            found = json.loads(self.facts_file.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def result(self) -> dict[str, Any]:
        """Return the result as ``tessera simulate --json`` prints it."""
        found: dict[str, Any] = self.facts()["result"]
        return found

    def run(self, on_round: OnRound) -> None:
        """Run it here and write result and model."""
        kept: dict[str, Any] = {}

        def on_end(study: SimulatedStudy, model: bytes) -> None:
            write_atomically(self.model_file, model)
            kept.update(proposal=dump(study.proposal), names=study.names, partly=study.partly)

        result = run_one(self.request, self.request.methods[0], self.seed, on_round=on_round, on_end=on_end)
        write_atomically(self.facts_file, json.dumps({"key": self.key, "result": result, **kept}).encode())

    def encode(self) -> str:
        """Return one line of JSON that :meth:`decode` reads."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def decode(cls, line: str) -> Job:
        """Read a line that :meth:`encode` wrote."""
        value: dict[str, Any] = json.loads(line)
        request = value["request"]
        request |= {name: request[name] and Path(request[name]) for name in ("data", "plan", "schema")}
        request |= {name: tuple(request[name]) for name in ("methods", "evaluation_by")}
        return cls(
            request=SimulationRequest(**request), seed=value["seed"], key=value["key"], folder=Path(value["folder"])
        )


def run_jobs(jobs: Sequence[Job], *, processes: int, show: bool) -> None:
    """Run jobs in up to ``processes`` processes; one alone runs in this one.

    Raises:
        TesseraError: what a job raised; the others are ended.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not show) as bar:
        if min(processes, len(jobs)) > 1:
            _in_processes(jobs, min(processes, len(jobs)), lambda job: _bar(bar, job))
        else:
            for job in jobs:
                job.run(_bar(bar, job))


def _bar(bar: Progress, job: Job) -> OnRound:
    task = bar.add_task(f"seed {job.seed}", total=None)

    def moved(number: int, rounds: int, auroc: float) -> None:
        bar.update(task, total=rounds, completed=number, description=f"seed {job.seed}: AUROC {auroc:.3f}")

    return moved


def _in_processes(jobs: Sequence[Job], count: int, bar: Callable[[Job], OnRound]) -> None:
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    with tempfile.TemporaryFile() as log:
        workers = [_start(log) for _ in range(count)]
        try:
            with ThreadPoolExecutor(count) as threads:
                work = [threads.submit(_feed, worker, waiting, bar, log) for worker in workers]
                try:
                    wait(work, return_when=FIRST_EXCEPTION)
                finally:
                    _end(workers)  # a thread that still reads gets the end of its stream
                for done in sorted(work, key=lambda future: isinstance(future.exception(), _EndedError)):
                    done.result()
        finally:
            _end(workers)


class _EndedError(TesseraError):
    """A process of a simulation ended before its job was done."""


def _start(log: IO[bytes]) -> subprocess.Popen[str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tessera.running"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def _end(workers: Sequence[subprocess.Popen[str]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    for worker in workers:
        worker.wait()
        for stream in (worker.stdin, worker.stdout):
            if stream is not None:
                stream.close()


def _feed(
    worker: subprocess.Popen[str], waiting: queue.SimpleQueue[Job], bar: Callable[[Job], OnRound], log: IO[bytes]
) -> None:
    while True:
        try:
            job = waiting.get_nowait()
        except queue.Empty:
            return
        if worker.stdin is None or worker.stdout is None:
            raise _EndedError("a process of the simulation has no streams")
        moved = bar(job)
        try:
            worker.stdin.write(job.encode() + "\n")
            worker.stdin.flush()
        except OSError:
            raise _EndedError(_last_words(log)) from None
        for line in worker.stdout:
            told = json.loads(line)
            if "error" in told:
                raise _known(told["error"])(told["message"])
            if "done" in told:
                break
            moved(told["round"], told["rounds"], told["auroc"])
        else:
            raise _EndedError(_last_words(log))


def _known(name: str) -> type[TesseraError]:
    found = getattr(errors, name, None)
    return found if isinstance(found, type) and issubclass(found, TesseraError) else TesseraError


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    said = log.read()[-_TAIL:].decode(errors="replace").strip().splitlines()
    return f"a process of the simulation ended by itself; it said last: {said[-1] if said else 'nothing'}"


def main() -> None:
    """Run jobs that come in on standard input, one a line, and tell on standard output how far they are."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is none of our lines

    def tell(**what: object) -> None:
        told.write(json.dumps(what) + "\n")
        told.flush()

    for line in sys.stdin:
        try:
            Job.decode(line).run(lambda number, rounds, auroc: tell(round=number, rounds=rounds, auroc=auroc))
            tell(done=True)
        except (TesseraError, InvalidInput) as error:
            tell(error=type(error).__name__, message=str(error))


if __name__ == "__main__":
    main()
