"""What the portal needs from the datasite it belongs to: stores, and functions that answer at this moment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasites.review.accounts import AccountStore
from datasites.review.approvals import ApprovalStore
from datasites.review.environment import current_environment
from datasites.review.records import Request
from datasites.study.proposal import Environment, Proposal
from privacy.ledger.journal import Journal

if TYPE_CHECKING:
    from datasites.review.oidc import OidcProvider


@dataclass(frozen=True, kw_only=True)
class CostPreview:
    """What a study would cost at the owner's delta: epsilon before, the worst case of the study, and after.

    ``after`` comes from the accountant and is not the sum of the other two. ``fits`` says whether the ledger would
    reserve it. ``accountant`` says how epsilon is computed, adjacency included. Of a study that is ``reserved``
    already, ``before`` is what is spent now and ``after`` what all approved studies may spend, this one included.
    """

    population: str
    delta: float
    cap: float
    before: float
    cost: float
    after: float
    accountant: str
    fits: bool
    reserved: bool = False


@dataclass(frozen=True, kw_only=True)
class Spending:
    """One step of a population's budget over time: what happened and the epsilon spent after it."""

    at: str
    study: str
    event: str
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class BudgetLine:
    """The privacy budget of one patient population and the datasets that share it."""

    population: str
    datasets: tuple[str, ...]
    cap: float
    delta: float
    spent: float
    reserved: float
    timeline: tuple[Spending, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """A study that runs or ran here; ``state`` is a short word such as running, waiting, stopped or finished."""

    study: str
    proposal_hash: str
    state: str
    rounds_done: int
    rounds: int
    epsilon_spent: float
    delta: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportFile:
    """One report that may be downloaded from here."""

    name: str
    title: str
    path: Path
    created: str


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What one round did on the mock data: outcome, log, and the shapes of what would leave.

    ``checks`` are sentences about what was tried, each with whether it held.
    """

    outcome: str
    seconds: float
    memory_bytes: int
    log: str
    leaves: tuple[tuple[str, str], ...]
    checks: tuple[tuple[str, bool], ...] = ()
    layers: tuple[str, ...] = ()


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, kw_only=True)
class PortalContext:
    """One datasite as its portal sees it.

    Args:
        site: the datasite's name in proposals.
        institution: its institution's name.
        public_key: its identity, shown to be compared out of band.
        accounts: the people.
        approvals: requests and decisions.
        journal: the datasite's journal.
        preview: the ledger's answer to "what would this cost?".
        budget: the ledger's lines.
        studies: studies that run or ran here.
        reports: reports that may be downloaded.
        write_reports: writes the reports as of now; takes some seconds.
        dry_run: one round of a request on the mock data, in the sandbox; may take a minute. It is told whom to tell
            where the log grows meanwhile.
        layers: the sandbox layers that are active on this machine, name to whether.
        environment: the software of this process, compared with what a proposal names.
        trouble: why this datasite does no work at all; empty while it does.
        hospital_login: the hospital's own sign-in, where its owner has set one up.
        secure_cookies: True when the portal is served over HTTPS.
        public_url: where people reach the portal; empty: wherever they say they did.
        clock: the present time.
    """

    site: str
    institution: str
    public_key: str
    accounts: AccountStore
    approvals: ApprovalStore
    journal: Journal
    preview: Callable[[Proposal], CostPreview]
    budget: Callable[[], tuple[BudgetLine, ...]]
    studies: Callable[[], tuple[StudyStatus, ...]]
    reports: Callable[[], tuple[ReportFile, ...]]
    dry_run: Callable[[Request, Callable[[Path], object]], DryRun]
    layers: Callable[[], Mapping[str, bool]]
    write_reports: Callable[[], object] = lambda: None
    environment: Callable[[], Environment] = current_environment
    trouble: Callable[[], str] = lambda: ""
    hospital_login: OidcProvider | None = None
    secure_cookies: bool = False
    public_url: str = ""
    clock: Callable[[], dt.datetime] = _utc_now
