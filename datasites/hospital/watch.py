"""What a hospital's people should know, read from the datasite's own stores and queued as notices.

Each notice has a key that follows from what happened, so looking again queues nothing twice. Of the journal, what is
older than a day when the datasite starts is not told.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from datasites.node.notices.outbox import Notice, Outbox, last_before
from datasites.node.notices.settings import Kind, NoticeSettings
from datasites.review.approvals import ApprovalStore
from datasites.review.budgets import Budget
from datasites.review.records import Request
from datasites.study.parties import parse_time
from privacy.ledger.chain import Entry
from privacy.ledger.journal import Journal

_WAITING = ("pending", "changes-requested")
_ENTRIES: dict[str, tuple[Kind, str]] = {
    "round-refused": ("refused-round", "A round was refused here"),
    "refused": ("refused-round", "A round was refused here"),
    "worker-failed": (
        "stopped-worker",
        "A charged round failed here: nothing more is charged before one of you lets the study go on",
    ),
    "models-unconfirmed": ("refused-round", "The last model does not follow from what the keyholder signed: use none"),
    "other-plan-shown": ("refused-round", "The orchestrator showed two plans of one round: ask it why"),
}


@dataclass(kw_only=True)
class Watch:
    """Looks at one datasite.

    Args:
        site: its name.
        url: where its portal is, for the link in a notice; may be empty.
        approvals, journal, budgets: what is looked at.
        settings, outbox: where notices go.
    """

    site: str
    url: str
    approvals: ApprovalStore
    journal: Journal
    budgets: Callable[[], tuple[Budget, ...]]
    settings: NoticeSettings
    outbox: Outbox
    _since: int = field(init=False)

    def __post_init__(self) -> None:
        self._since = last_before(self.journal, self.journal.now() - dt.timedelta(days=1))

    def look(self, now: dt.datetime) -> int:
        """Queue every notice that is new at ``now``; return how many were."""
        return sum(self.outbox.add(notice, self.settings, now) for notice in self._notices(now))

    def _notices(self, now: dt.datetime) -> Iterator[Notice]:
        for request in self.approvals.requests():
            if request.state in _WAITING:
                yield from self._waiting(request, now)
            yield from self._said(request)
        yield from self._happened()
        yield from self._marks()

    def _waiting(self, request: Request, now: dt.datetime) -> Iterator[Notice]:
        study, hashed = request.proposal.study, request.proposal_hash
        asks = f"{request.proposal.orchestrator.institution} asks: {request.proposal.purpose}"
        yield self._notice("new-request", f"request:{hashed}", f"New request: {study}", asks, hashed)
        signed = len(request.signatures)
        if signed:
            needed = self.approvals.policy.required_reviewers(request.proposal)
            text = f"{signed} of {needed} needed signatures are there. Another person has to sign or say no."
            yield self._notice(
                "signature-wanted", f"signature:{hashed}:{signed}", f"Signature wanted: {study}", text, hashed
            )
        days = self.settings.reminder_days
        waited = (now - parse_time(request.received)).days
        if days and waited >= days:
            text = f"The request has waited for {waited} days. The scientist and the other hospitals wait too."
            yield self._notice(
                "reminder", f"reminder:{hashed}:{waited // days}", f"Still waiting: {study}", text, hashed
            )

    def _said(self, request: Request) -> Iterator[Notice]:
        hashed = request.proposal_hash
        for word in request.words:
            if word.author != self.site and word.kind not in ("finished", "approved"):
                key = f"word:{hashed}:{word.author}:{word.number}"
                yield self._notice("decision", key, f"{request.proposal.study}: {word.kind}", word.sentence, hashed)

    def _happened(self) -> Iterator[Notice]:
        for entry in self.journal.entries(since=self._since):
            if entry.kind in _ENTRIES:
                kind, text = _ENTRIES[entry.kind]
                yield self._notice(
                    kind, f"journal:{entry.hash}", f"{text}{_study(entry)}", str(entry.body.get("reason", text))
                )
            self._since = entry.index

    def _marks(self) -> Iterator[Notice]:
        for budget in self.budgets():
            share = budget.spent / budget.cap if budget.cap else 0.0
            for mark in self.settings.budget_marks:
                if share >= mark:
                    names = ", ".join(budget.datasets) or budget.population
                    text = (
                        f"Epsilon {budget.spent:.3g} of {budget.cap:.3g} at delta {budget.delta:g} is spent on {names}."
                    )
                    key = f"budget:{budget.population}:{budget.cap:g}:{mark:g}"
                    yield self._notice("budget-mark", key, f"{mark:.0%} of a privacy budget is spent", text)

    def _notice(self, kind: Kind, key: str, subject: str, text: str, proposal_hash: str = "") -> Notice:
        page = f"/requests/{proposal_hash}" if proposal_hash else "/inbox"
        link = f"\n\n{self.url.rstrip('/')}{page}" if self.url else ""
        return Notice(key=key, kind=kind, subject=f"[{self.site}] {subject}", body=f"{text}{link}")


def _study(entry: Entry) -> str:
    study = entry.body.get("study")
    return f": {study}" if study else ""
