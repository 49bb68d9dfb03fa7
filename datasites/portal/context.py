"""What the portal needs from the datasite it belongs to: stores, and functions that answer at this moment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasites.data.glance import Glance
from datasites.node.joining.changes import Change
from datasites.node.notices.absences import Absences
from datasites.review.accounts import AccountStore
from datasites.review.approvals import ApprovalStore
from datasites.review.budget_acts import BudgetActs
from datasites.review.budgets import Budget, BudgetDetails, CostPreview, StudyStatus
from datasites.review.environment import current_environment
from datasites.review.plain_jobs import PlainJobs
from datasites.review.records import Request
from datasites.study.proposal import Environment, Proposal
from datasites.study.recomputed.chain import voids
from privacy.errors import Refused
from privacy.ledger.journal import Journal
from privacy.ledger.views import Point
from privacy.sentences import say

if TYPE_CHECKING:
    from datasites.review.oidc import OidcProvider
    from datasites.worker.trainer import Trial


@dataclass(frozen=True, kw_only=True)
class ReportFile:
    """One report that may be downloaded from here."""

    name: str
    title: str
    path: Path
    created: str


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def nothing_offered(_: str) -> Change:
    """Refuse: no changed roster waits here.

    Raises:
        Refused: always.
    """
    raise Refused(say("no changed roster waits here"))


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
        preview: what a study would cost.
        budgets: of every patient population.
        budget_details: by population, what still fits, is reserved and came back.
        budget_acts: what people do to budgets by hand; None where nothing can be done.
        policy_problem: why the policy file as it is now is not in force, or empty.
        history: by population, its budget after every entry of the ledger, oldest first.
        studies: studies that run or ran here.
        reports: reports that may be downloaded.
        write_reports: writes the reports as of now; takes some seconds.
        dry_run: one round of a request on the mock data, in the sandbox; may take a minute. It calls its second
            argument with the path of the log, which grows meanwhile.
        unchecked: what a study leaves unchecked of its models, in one sentence; empty where each is recomputed here.
        glance: the dataset that a study asks for, as far as it is public; None where it is not here.
        absences: who is away and who stands in for them; None where nobody can say so.
        jobs: plain PySyft jobs that wait for a person, or None where none is taken in.
        layers: the sandbox layers that are active on this machine, name to whether.
        environment: the software of this process, compared with what a proposal names.
        error: why this datasite does no work at all; empty while it does.
        hospital_login: the hospital's own sign-in, where its owner has set one up.
        roster_change: how the consortium's roster would change, if people here confirm it; None where it would not.
        confirm_roster: puts the roster of this hash in force.
        folder: the datasite's, for figures of its disk and certificate; None where there is none.
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
    budgets: Callable[[], tuple[Budget, ...]]
    history: Callable[[], Mapping[str, tuple[Point, ...]]]
    studies: Callable[[], tuple[StudyStatus, ...]]
    reports: Callable[[], tuple[ReportFile, ...]]
    dry_run: Callable[[Request, Callable[[Path], object]], Trial]
    layers: Callable[[], Mapping[str, bool]]
    unchecked: Callable[[Proposal], str] = voids
    glance: Callable[[Proposal], Glance | None] = lambda _: None
    absences: Absences | None = None
    jobs: PlainJobs | None = None
    write_reports: Callable[[], object] = lambda: None
    budget_details: Callable[[], Mapping[str, BudgetDetails]] = dict
    budget_acts: BudgetActs | None = None
    policy_problem: Callable[[], str] = lambda: ""
    environment: Callable[[], Environment] = current_environment
    error: Callable[[], str] = lambda: ""
    hospital_login: OidcProvider | None = None
    roster_change: Callable[[], Change | None] = lambda: None
    confirm_roster: Callable[[str], Change] = nothing_offered
    folder: Path | None = None
    secure_cookies: bool = False
    public_url: str = ""
    clock: Callable[[], dt.datetime] = _utc_now
