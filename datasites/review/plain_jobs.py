"""Plain PySyft jobs that wait for a person: what was sent, kept where nobody can change it, and what was decided.

A decision is about one submitter, name and file by file content; a job with another byte is another job. A job runs on
mock data only, in the sandbox (docs/pysyft.md): what is decided is whether somebody's code is run here at all.

    >>> jobs = PlainJobs(home / "plain-jobs", record=journal.append)
    >>> job = jobs.receive("mean-age", "lab", folder, files, now=now)
    >>> jobs.decide(job.job_id, "approved", person="anna", reason="", now=now)
"""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from datasites.node.files import write_atomically
from datasites.study.signing import Message, dump, parse
from privacy.canonical import canonical_hash, sha256_hex
from privacy.errors import InvalidInput, Refused
from privacy.sentences import say

Decided = Literal["waiting", "approved", "rejected"]
_DECIDED = {"waiting": say("waiting"), "approved": say("approved"), "rejected": say("rejected")}
_MOST_WAITING = 200
_JOB = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class PlainJob(Message):
    """One job: ``files`` are relative path and SHA-256 of what was sent; ``person`` decided it, for ``reason``."""

    job_id: str
    name: str
    submitter: str
    files: Mapping[str, str]
    received: str
    decision: Decided = "waiting"
    person: str = ""
    reason: str = ""
    at: str = ""


class PlainJobs:
    """The plain jobs of one datasite, a folder each; safe to share between threads.

    Args:
        folder: made when missing.
        record: the journal's ``append``.
    """

    def __init__(self, folder: Path, *, record: Callable[[str, dict[str, Any]], object]) -> None:
        self._folder = folder
        self._record = record
        self._lock = threading.RLock()

    def receive(self, name: str, submitter: str, code: Path, files: Mapping[str, str], *, now: dt.datetime) -> PlainJob:
        """Keep a job for people to look at; receiving it again changes nothing.

        Args:
            name: as its submitter calls it.
            submitter: a participant.
            code: the tree as it arrived.
            files: relative path and SHA-256 of each of its files.
            now: the present time.

        Raises:
            Refused: too many jobs wait, or the files in ``code`` are others.
        """
        job_id = canonical_hash({"name": name, "submitter": submitter, "files": dict(files)}, 2)
        with self._lock:
            known = self._read(job_id)
            if known is not None:
                return known
            if len(self.waiting()) >= _MOST_WAITING:
                raise Refused(
                    say(
                        "{most} plain jobs wait for a decision here; send yours again later",
                        most=_MOST_WAITING,
                    )
                )
            self._keep_code(job_id, code, files)
            job = PlainJob(job_id=job_id, name=name, submitter=submitter, files=dict(files), received=now.isoformat())
            self._write(job)
            self._record("plain-job-received", {"job": job_id, "name": name, "submitter": submitter})
            return job

    def decide(
        self, job_id: str, decision: Literal["approved", "rejected"], *, person: str, reason: str, now: dt.datetime
    ) -> PlainJob:
        """Write down what a person decided about a job; it is decided once.

        Raises:
            InvalidInput: there is no such job.
            Refused: it was decided already.
        """
        with self._lock:
            job = self.job(job_id)
            if job.decision != "waiting":
                raise Refused(
                    say("this job is {decision} already; a changed one is another job", decision=_DECIDED[job.decision])
                )
            decided = replace(job, decision=decision, person=person, reason=reason, at=now.isoformat())
            self._write(decided)
            self._record(f"plain-job-{decision}", {"job": job_id, "name": job.name, "person": person, "reason": reason})
            return decided

    def job(self, job_id: str) -> PlainJob:
        """Return one job.

        Raises:
            InvalidInput: there is none of this id.
        """
        found = self._read(job_id) if _JOB.fullmatch(job_id) else None
        if found is None:
            raise InvalidInput(say("no such plain job was received here"))
        return found

    def jobs(self) -> tuple[PlainJob, ...]:
        """Return all jobs, the newest first."""
        with self._lock:
            found = [self.job(path.parent.name) for path in self._folder.glob("*/job.json")]
        return tuple(sorted(found, key=lambda job: (job.received, job.job_id), reverse=True))

    def waiting(self) -> tuple[PlainJob, ...]:
        """Return the jobs that nobody decided yet, the newest first."""
        return tuple(job for job in self.jobs() if job.decision == "waiting")

    def code(self, job_id: str) -> Path:
        """Return where a job's code lies."""
        return self._folder / self.job(job_id).job_id / "code"

    def _keep_code(self, job_id: str, code: Path, files: Mapping[str, str]) -> None:
        target = self._folder / job_id / "code"
        shutil.rmtree(target, ignore_errors=True)
        for name, digest in files.items():
            content = (code / name).read_bytes()
            if sha256_hex(content) != digest:
                raise Refused(say("the job's files changed while they were received; send it again"))
            write_atomically(target / name, content)

    def _read(self, job_id: str) -> PlainJob | None:
        path = self._folder / job_id / "job.json"
        return parse(PlainJob, json.loads(path.read_bytes())) if path.exists() else None

    def _write(self, job: PlainJob) -> None:
        write_atomically(self._folder / job.job_id / "job.json", json.dumps(dump(job)).encode())
