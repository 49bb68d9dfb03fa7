"""One complete proposal and the people around it, for the tests of review, worker and portal."""

import contextlib
import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import proposals

from datasites.portal.context import PortalContext, ReportFile
from datasites.review.accounts import AccountStore
from datasites.review.approvals import ApprovalStore
from datasites.review.budgets import Budget, CostPreview, StudyStatus
from datasites.review.key_wrapping import Hardness
from datasites.review.policy import Policy
from datasites.study.proposal import Participant, Party, Plan, Proposal
from datasites.study.signing import Signed, seal
from datasites.worker.job import Outcome
from datasites.worker.trainer import Trial
from privacy.canonical import sha256_hex
from privacy.identity import Identity
from privacy.ledger.journal import Journal

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
PASSWORD = "correct horse battery staple"
CODE = {"plan.toml": b"architecture = 'linear'\n"}


def identity(label: str) -> Identity:
    return Identity.from_seed(bytes.fromhex(sha256_hex(label.encode())))


def party(name: str, institution: str, label: str = "") -> Party:
    return Party(name=name, institution=institution, public_key=identity(label or name).public_key)


def participant(name: str, **dataset: object) -> Participant:
    return proposals.make_participant(party(name, f"Hospital {name.title()}"), **dataset)


def make_proposal(*, code: dict[str, bytes] = CODE, kind: str = "declarative", **changes: object) -> Proposal:
    """A small study of three hospitals; any field can be replaced."""
    people = {
        "participants": tuple(participant(name) for name in ("alba", "bruna", "corva")),
        "orchestrator": party("dr-lang", "University", "orchestrator"),
        "keyholder": party("notary", "Notary office", "keyholder"),
    }
    plan = Plan(kind=kind, code={name: sha256_hex(data) for name, data in code.items()})
    return proposals.make_proposal(**{"study": "lung-staging", "created": NOW, "plan": plan, **people, **changes})


@dataclass
class ReviewDesk:
    """One datasite ("alba") with two reviewers and an auditor, everybody's key confirmed."""

    folder: Path
    journal: Journal
    accounts: AccountStore
    store: ApprovalStore

    def submit(self, proposal: Proposal, code: dict[str, bytes] = CODE) -> str:
        return self.submit_at(proposal, NOW, code)

    def submit_at(self, proposal: Proposal, now: dt.datetime, code: dict[str, bytes] = CODE) -> str:
        folder = self.folder / "code" / proposal.proposal_hash[:12]
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in code.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        self.store.receive(self.sealed(proposal), folder, now=now)
        return proposal.proposal_hash

    def sealed(self, proposal: Proposal) -> Signed:
        return seal(identity("orchestrator"), "proposal", proposal)

    def approve(self, proposal_hash: str, name: str = "anna", *, now: dt.datetime = NOW) -> None:
        self.store.approve(
            proposal_hash,
            reviewer=self.accounts.account(name),
            key=self.accounts.unlock(name, PASSWORD),
            now=now,
        )

    def confirm(self, proposal: Proposal) -> None:
        for party in (proposal.orchestrator, proposal.keyholder, *proposal.participants):
            self.store.confirm(
                party.public_key,
                name=party.name,
                institution=party.institution,
                person=self.accounts.account("anna"),
                now=NOW,
            )

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.journal.entries()]

    def close(self) -> None:
        self.store.close()
        self.accounts.close()
        self.journal.close()


def make_desk(folder: Path, policy: Policy | None = None, parties: Proposal | None = None) -> ReviewDesk:
    journal = Journal(folder / "journal.sqlite", identity("alba"), clock=lambda: NOW)
    accounts = AccountStore(folder / "accounts.sqlite", hardness=Hardness(passes=1, memory_kib=64, lanes=1))
    for name, role in (("anna", "steward"), ("bela", "privacy-officer"), ("otto", "auditor")):
        accounts.register(accounts.invite(role, now=NOW), name, PASSWORD, now=NOW)
    store = ApprovalStore(
        folder / "approvals.sqlite",
        site="alba",
        identity=identity("alba"),
        policy=policy or Policy(),
        record=journal.append,
    )
    desk = ReviewDesk(folder=folder, journal=journal, accounts=accounts, store=store)
    desk.confirm(parties or make_proposal())
    return desk


def make_context(
    desk: ReviewDesk, now: dt.datetime, folder: Path, *, after: float = 4.0, held: bool = True
) -> PortalContext:
    report = folder / "privacy-report.pdf"
    report.write_bytes(b"%PDF-1.4 sample")
    return PortalContext(
        site="alba",
        institution="Hospital Alba",
        public_key=desk.journal.public_key,
        accounts=desk.accounts,
        approvals=desk.store,
        journal=desk.journal,
        preview=lambda _: CostPreview(
            population="lung",
            delta=1e-5,
            cap=10.0,
            before=1.0,
            cost=3.5,
            after=after,
            accountant="RDP",
            fits=after <= 10,
        ),
        budgets=lambda: (
            Budget(population="lung", datasets=("alba-lung",), cap=10.0, delta=1e-5, spent=1.0, reserved=4.0),
        ),
        history=dict,
        studies=lambda: (
            StudyStatus(
                study="lung-staging",
                proposal_hash="a" * 64,
                state="running",
                rounds_done=2,
                rounds=5,
                epsilon_spent=1.0,
                delta=1e-5,
            ),
        ),
        reports=lambda: (ReportFile(name=report.name, title="Privacy report", path=report, created=now.isoformat()),),
        dry_run=lambda _request, _watch: Trial(
            outcome=Outcome(
                status="ok",
                reason="",
                seconds=0.2,
                peak_memory_bytes=10**8,
                layers=("seccomp",),
                log=folder / "out.log",
                result=None,
            ),
            log="line one",
            leaves=(("mrna", "float32 [6]"),),
            checks=(("no state", held),),
        ),
        layers=lambda: {"seccomp": True, "landlock": False},
        environment=lambda: make_proposal().environment,
        clock=lambda: now,
    )


@pytest.fixture
def new_context(now, tmp_path):
    def make(desk: ReviewDesk, **changes: object) -> PortalContext:
        return make_context(desk, now, tmp_path, **changes)

    return make


@pytest.fixture
def new_proposal():
    return make_proposal


@pytest.fixture
def new_desk(tmp_path):
    with contextlib.ExitStack() as open_desks:

        def make(policy: str = "", name: str = "desk") -> ReviewDesk:
            (tmp_path / name).mkdir()
            desk = make_desk(tmp_path / name, Policy.parse(policy))
            open_desks.callback(desk.close)
            return desk

        yield make


@pytest.fixture
def desk(new_desk):
    return new_desk()


@pytest.fixture
def now():
    return NOW
