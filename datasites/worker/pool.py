"""The daemon's end of the workers: starts the fork server, sends jobs past it, and reads how they ended.

>>> with WorkerPool(policy.sandbox) as pool:
...     outcome = pool.run(job)
>>> outcome.status
'ok'
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from datasites.node.warm import Child, start_module
from datasites.review.environment import code_hash
from datasites.review.policy import Layer, SandboxPolicy
from datasites.study.signing import dump
from datasites.worker.job import (
    EXIT_MEMORY,
    EXIT_REFUSED,
    RESULT_NAME,
    Launch,
    OpenJob,
    Outcome,
    RuleJob,
    ScriptJob,
    Status,
    WorkerJob,
)
from privacy.errors import Refused

FOR_SCRIPTS: tuple[Layer, ...] = ("rlimits", "no-new-privileges", "landlock", "seccomp")
"""Without these no file of somebody else's is run: what it prints and writes leaves."""


def script_layers(limits: SandboxPolicy) -> tuple[Layer, ...]:
    """Return the layers that somebody else's file needs; ``disk`` hides sizes, and an owner may waive it."""
    return FOR_SCRIPTS if limits.jobs_may_measure else (*FOR_SCRIPTS, "disk")


_START_SECONDS = 120.0
_GRACE_SECONDS = 10.0
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class WorkerPool:
    """One fork server and its workers; safe to use from several threads.

    The server starts with the first job (about three seconds) and is started again should it die.

    Args:
        limits: the policy's limits and minimum layers.
        hidden: the role's home; a worker reads nothing in it but what its job names.
    """

    def __init__(self, limits: SandboxPolicy, *, hidden: Sequence[Path] = ()) -> None:
        self.limits = limits
        self._hidden = tuple(map(str, hidden))
        self._lock = threading.Lock()
        self._server: Child | None = None
        self._control: socket.socket | None = None
        self._closings = 0

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the server now, so that the first round does not wait for its imports.

        Raises:
            Refused: it did not come up.
        """
        with self._lock:
            self._started()

    def close(self) -> None:
        """End the server and every worker; whoever waits for one of them hears that the pool was closed."""
        with self._lock:
            self._closings += 1
            if self._control is not None:
                self._control.close()
            if self._server is not None:
                self._server.kill()
                self._server.wait()
            self._control = self._server = None

    @property
    def server_pid(self) -> int | None:
        """Process id of the server, while it runs."""
        return self._server.pid if self._server is not None and self._server.poll() is None else None

    def run(self, job: WorkerJob) -> Outcome:
        """Run one job to its end; the caller's thread waits.

        Args:
            job: ``job.output`` must be an empty folder of its own.

        Returns:
            how it ended; ``result`` is set only with status ``ok``.
        """
        readable = [p.resolve() for p in (job.schema, job.part, job.model, job.code) if p is not None]
        log = log_of(job)
        return _with_result(self._ran(_encoded(job), readable, job.output, self.limits, [log]), job.output)

    def run_script(self, job: ScriptJob, *, stdout: Path, stderr: Path) -> Outcome:
        """Run somebody else's Python file to its end, in the same sandbox; the layers that protect are demanded.

        Args:
            job: ``job.output`` must be an empty folder of its own.
            stdout: where its standard output goes.
            stderr: where its errors go.
        """
        limits = self.limits
        limits = limits.model_copy(
            update={
                "time_seconds": min(job.seconds, limits.time_seconds),
                "minimum_layers": tuple(dict.fromkeys((*limits.minimum_layers, *script_layers(limits)))),
            }
        )
        value = {"script": {**vars(job), "code": str(job.code), "data": str(job.data), "output": str(job.output)}}
        return self._ran(json.dumps(value).encode(), [job.code, job.data], job.output, limits, [stdout, stderr])

    def run_open(self, job: OpenJob) -> Outcome:
        """Open files in the sandbox of a round without reading them; status ``ok`` says that a worker could."""
        files = [path.resolve() for path in job.files]
        value = {"open": [str(path) for path in files]}
        return self._ran(json.dumps(value).encode(), files, job.output, self.limits, [log_of(job)])

    def run_rule(self, job: RuleJob) -> Outcome:
        """Take one step of a study's own server's rule, in the sandbox of a round; ``job.output`` must be empty."""
        code, given = job.code.resolve(), job.input.resolve()
        value = {"rule": {"code": str(code), "given": str(given), "output": str(job.output.resolve())}}
        ran = self._ran(json.dumps(value).encode(), [code, given], job.output, self.limits, [log_of(job)])
        return _with_result(ran, job.output)

    def _ran(
        self, job: bytes, readable: Sequence[Path], output: Path, limits: SandboxPolicy, logs: Sequence[Path]
    ) -> Outcome:
        started, closings = time.monotonic(), self._closings
        launch = Launch(
            readable=tuple(map(str, readable)), writable=str(output.resolve()), hidden=self._hidden, limits=limits
        )
        merged: dict[str, Any] = {}
        for line in self._launched(launch, job, logs):
            merged |= json.loads(line)
        if self._closings != closings:  # the work did not fail: it was cut short with its datasite
            raise Refused("the datasite ends, and its workers with it; the same work is done again after a start")
        status, reason = _judged(merged)
        ended = status != "timed-out" and "exit" in merged
        return Outcome(
            status=status,
            reason=reason,
            exit_status=int(merged["exit"]) if ended else -1,
            seconds=float(merged.get("seconds", time.monotonic() - started)),
            peak_memory_bytes=int(merged.get("peak_memory_bytes", 0)),
            layers=tuple(merged.get("layers", ())),
            log=logs[0],
            result=None,
        )

    def _launched(self, launch: Launch, job: bytes, logs: Sequence[Path]) -> list[bytes]:
        reading, writing = os.pipe()
        descriptors = [_in_memory(job), writing, *map(_new_log, logs)]
        try:
            with self._lock:
                socket.send_fds(self._started(), [launch.encode()], descriptors)
        except BaseException:
            os.close(reading)
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return _lines(reading, launch.limits.time_seconds + _GRACE_SECONDS)

    def _started(self) -> socket.socket:
        if self._control is not None and self.server_pid is not None:
            return self._control
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server = start_module(
            "datasites.worker.server", [str(theirs.fileno())], pass_fds=[theirs.fileno()], env=_ENVIRONMENT, folder="/"
        )
        theirs.close()
        ours.settimeout(_START_SECONDS)
        try:
            word, _, code = ours.recv(128).decode().partition(" ")
        except OSError:
            word, code = "", ""
        if word != "ready" or code != code_hash():
            ours.close()
            self._server.kill()
            self._server.wait()
            reason = "did not start; its messages are in the log" if word != "ready" else "has other source code"
            raise Refused(f"the worker server {reason}; restart the datasite")
        ours.settimeout(None)
        self._control = ours
        return ours


def _with_result(outcome: Outcome, output: Path) -> Outcome:
    """Return how a job ended, with its result where it ended well."""
    result = output / RESULT_NAME
    if outcome.status == "ok" and not result.is_file():
        return replace(outcome, status="failed", reason="the worker ended without a result")
    return replace(outcome, result=result if outcome.status == "ok" else None)


def log_of(job: WorkerJob | OpenJob | RuleJob) -> Path:
    """Return where a job's standard output and error go, beside its folder of output."""
    return job.output.parent / f"{job.output.name}.log"


def _judged(report: dict[str, Any]) -> tuple[Status, str]:
    if "refused" in report:
        return "refused", str(report["refused"])
    if "exit" not in report:
        return "crashed", "the worker's supervisor ended without a word"
    if report["timed_out"]:
        return "timed-out", "the worker ran past its time limit and was ended"
    if report.get("too_much"):
        return "disk", "the worker wrote more than the policy allows and was ended"
    code = int(report["exit"])
    if code == 0:
        return "ok", ""
    if code == EXIT_MEMORY:
        return "failed", "the worker asked for more memory than the policy allows"
    if code == EXIT_REFUSED:
        return "refused", "the worker could not be confined"
    if code < 0:
        return "crashed", f"the worker was ended by signal {-code}"
    return "failed", "the worker's code failed"


def _encoded(job: WorkerJob) -> bytes:
    value = {
        "proposal": dump(job.proposal),
        "plan": dump(job.plan),
        "checks": job.checks,
        "bits": job.bits,
    }
    for name in ("site", "seed", "membership"):
        value[name] = getattr(job, name)
    for name in ("schema", "part", "model", "code", "output"):
        path = getattr(job, name)
        value[name] = str(path.resolve()) if path is not None else None  # the worker runs in another folder
    return json.dumps(value).encode()


def _in_memory(data: bytes) -> int:
    """Return a descriptor that reads ``data``, which never touches a disk."""
    descriptor = os.memfd_create("job", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _new_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _lines(descriptor: int, seconds: float) -> list[bytes]:
    """Return the report's lines; stop at its end or after ``seconds``."""
    data, deadline = b"", time.monotonic() + seconds
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            part = pipe.read(65536) if ready else b""
            if not part:
                return data.splitlines()
            data += part
