"""A scientist's plain PySyft job runs at a hospital though nobody there looked at it.

Played: a job that is only sent; one whose files change after it was approved; an approval by a stolen cookie or machine
token alone, by an auditor, and a second time. The owner's rule, off by default, runs jobs and says so in the journal.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from support.mailbox_server import mailbox, mailbox_identity
from support.review_desk import PASSWORD, desk, new_context, new_desk, new_proposal, now

from datasites.hospital.proposals import Node
from datasites.portal.app import create_portal
from datasites.review.plain_jobs import PlainJobs
from datasites.review.policy import Policy
from datasites.syft.client import OwnerNode, ScientistNode
from datasites.syft.runner import MockOutcome, MockRun
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused

__all__ = ["desk", "mailbox", "mailbox_identity", "new_context", "new_desk", "new_proposal", "now"]
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


class Played:
    """A hospital's PySyft side and a scientist; ``runs`` are the jobs that were run."""

    def __init__(self, mailbox: Any, folder: Path, policy: str = "") -> None:
        self.runs: list[str] = []
        self.journal: list[tuple[str, dict[str, Any]]] = []
        self.jobs = PlainJobs(folder / "plain-jobs", record=lambda kind, body: self.journal.append((kind, body)))
        owner = OwnerNode(folder / "north", mailbox.postbox("north"), scientists=["lab"], sandbox=self._run)
        self.scientist = ScientistNode(folder / "lab", mailbox.postbox("lab"))
        (folder / "mock.csv").write_text("a\n")
        owner.publish_dataset("ages", mock_path=folder / "mock.csv", private_location="elsewhere")
        datasite: Any = SimpleNamespace(
            jobs=self.jobs,
            policy=Policy.parse(policy),
            journal=SimpleNamespace(append=lambda kind, body: self.journal.append((kind, body))),
        )
        self.node, self.owner = Node(datasite), owner
        vars(self.node)["_owner"], self.node._published = owner, True
        self.scientist.add_peer("north")
        owner.sync()
        self.scientist.sync()
        self._folder = folder

    def _run(self, run: MockRun) -> MockOutcome:
        self.runs.append((run.code / "main.py").read_text())
        return MockOutcome(exit_status=0, stdout=b"", stderr=b"", isolated=True)

    def send(self, name: str, code: str) -> None:
        tree = self._folder / f"tree-{name}"
        tree.mkdir()
        (tree / "main.py").write_text(code)
        self.scientist.submit("north", name, tree, entrypoint="main.py")

    def step(self) -> None:
        for _ in range(2):
            self.node.step()


@pytest.fixture
def played(mailbox: Any, tmp_path: Path) -> Played:
    return Played(mailbox, tmp_path)


def test_a_job_that_nobody_looked_at_is_not_run(played: Played) -> None:
    played.send("mean", "print(1)")
    played.step()
    assert not played.runs and not played.owner.approved_jobs()
    (job,) = played.jobs.waiting()
    assert (job.name, job.submitter) == ("mean", "lab")
    played.jobs.decide(job.job_id, "approved", person="anna", reason="", now=NOW)
    played.step()
    assert played.runs == ["print(1)"]
    assert [kind for kind, _ in played.journal] == ["plain-job-received", "plain-job-approved"]


def test_a_rejected_job_is_not_run_and_its_submitter_reads_why(played: Played) -> None:
    played.send("mean", "print(1)")
    played.step()
    played.jobs.decide(played.jobs.waiting()[0].job_id, "rejected", person="anna", reason="no purpose", now=NOW)
    played.step()
    played.scientist.sync()
    (sent,) = played.scientist.jobs()
    assert not played.runs and (sent.status, sent.reason) == ("rejected", "no purpose")


def test_an_approval_is_for_the_bytes_that_were_read(played: Played) -> None:
    played.send("mean", "print(1)")
    played.step()
    (job,) = played.jobs.waiting()
    played.jobs.decide(job.job_id, "approved", person="anna", reason="", now=NOW)
    (pending,) = played.owner.pending_jobs()
    (pending.folder / "main.py").write_text("print('changed')")
    played.node._undecided.clear()
    played.node._receive(played.owner.pending_jobs()[0])
    assert not played.runs and not played.owner.approved_jobs()
    assert [j.job_id != job.job_id for j in played.jobs.waiting()] == [True]
    assert (played.jobs.code(job.job_id) / "main.py").read_text() == "print(1)"


def test_the_owners_rule_runs_jobs_and_says_so(mailbox: Any, tmp_path: Path) -> None:
    played = Played(mailbox, tmp_path, "[review]\nauto_approve_plain_jobs = true")
    played.send("mean", "print(1)")
    played.step()
    assert played.runs == ["print(1)"]
    assert dict(played.journal)["plain-job-approved"]["person"] == "the policy's auto_approve_plain_jobs"


def test_files_that_changed_while_they_were_received_are_refused(tmp_path: Path) -> None:
    jobs = PlainJobs(tmp_path / "jobs", record=lambda *_: None)
    (tmp_path / "main.py").write_text("other")
    with pytest.raises(Refused, match="changed while"):
        jobs.receive("mean", "lab", tmp_path, {"main.py": "0" * 64}, now=NOW)
    for strange in ("../x", "A" * 64, "", "0" * 63):
        with pytest.raises(InvalidInput):
            jobs.job(strange)


@pytest.fixture
def waiting(tmp_path: Path) -> PlainJobs:
    jobs = PlainJobs(tmp_path / "jobs", record=lambda *_: None)
    (tmp_path / "main.py").write_text("import socket\nx = '<script>'\n")
    digest = sha256_hex((tmp_path / "main.py").read_bytes())
    jobs.receive("mean", "lab", tmp_path, {"main.py": digest}, now=NOW)
    return jobs


def csrf(portal: TestClient, name: str) -> str:
    answer = portal.post("/login", data={"name": name, "password": PASSWORD, "to": "/jobs"})
    found = re.search(r'name="csrf" value="([^"]+)"', answer.text)
    return found.group(1) if found else ""


def test_a_cookie_or_a_token_alone_approves_no_job(desk: Any, new_context: Any, waiting: PlainJobs) -> None:
    (job,) = waiting.waiting()
    address = f"/jobs/{job.job_id}"
    with TestClient(create_portal(replace(new_context(desk), jobs=waiting)), headers={"accept": "text/html"}) as portal:
        assert portal.post(address, data={"decision": "approved", "password": PASSWORD}).url.path == "/login"
        token = csrf(portal, "anna")
        page = portal.get("/jobs").text
        assert "talks to a network" in page and "<script>'" not in page
        for form in ({}, {"password": ""}, {"password": "wrong"}):
            answer = portal.post(address, data={"csrf": token, "decision": "approved", **form})
            assert answer.status_code in (403, 422)
        assert portal.post(address, data={"decision": "approved", "password": PASSWORD}).status_code == 403  # no CSRF
        for body in ({"decision": "approved"}, {"decision": "approved", "password": "wrong"}):
            answer = portal.post(f"/api{address}/decision", json=body, headers={"x-csrf-token": token})
            assert answer.status_code in (403, 422)
        assert waiting.waiting()
        answer = portal.post(address, data={"csrf": token, "decision": "approved", "password": PASSWORD})
        assert answer.status_code == 200 and not waiting.waiting()
        again = portal.post(address, data={"csrf": token, "decision": "rejected", "password": PASSWORD})
        assert again.status_code == 403 and waiting.job(job.job_id).decision == "approved"
        assert [j["decision"] for j in portal.get("/api/jobs").json()] == ["approved"]


def test_an_auditor_approves_no_job(desk: Any, new_context: Any, waiting: PlainJobs) -> None:
    (job,) = waiting.waiting()
    with TestClient(create_portal(replace(new_context(desk), jobs=waiting)), headers={"accept": "text/html"}) as portal:
        csrf(portal, "otto")
        assert portal.get("/jobs").status_code == 200
        form = {"decision": "approved", "password": PASSWORD, "csrf": ""}
        assert portal.post(f"/jobs/{job.job_id}", data=form).status_code == 403
    assert waiting.waiting()
