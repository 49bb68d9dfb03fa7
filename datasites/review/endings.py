"""Budgets that come back: what was reserved for a study and never charged is released once nothing can charge it.

Whatever ends a study here calls :meth:`Endings.study_ended` with the reason. :meth:`Endings.settle` finds every ending
that the datasite can see for itself, also one that a crash cut short: no approval, an approval that was denied, revoked
or has expired, two failures, the end that the orchestrator announced, a newer version of the dataset. Both may be
called again and again; what is charged stays charged.

    >>> endings.study_ended(proposal_hash, "withdrawn by the scientist: another cohort was found")
    (4, 5, 6)
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from datasites.language import mark
from datasites.review.approvals import ApprovalStore
from datasites.review.records import Request
from datasites.study.messages import Approval
from datasites.study.parties import parse_time
from datasites.study.signing import parse
from privacy.errors import InvalidInput, Refused
from privacy.ledger.journal import Entry, Journal
from privacy.ledger.ledger import Ledger, StudyAccount
from privacy.sentences import say

RETURNED = "budget-returned"
"""Kind of the journal's entries about budgets that came back; ``entry`` is the number of the ledger's entry."""
FINISHED = "study-finished"
"""Kind of the journal's entries about ends that the orchestrator announced."""
STUDY_REPORT = "study-report"
"""Kind of the journal's entries about what came of the report of a study that ended."""
FAILED = "worker-failed"
"""Kind of the journal's entries about rounds that were charged and whose worker failed."""
STOPPED = "worker-stopped"
"""Kind of the journal's entries about workers that ended without a result; they name the worker's log."""
CONTINUED = "study-continued"
"""Kind of the journal's entries about people who let a study go on after a failed round; ``rounds`` are those."""
FAILURES_UNTIL_END = 2
DATASITE = mark("datasite")


def failed_rounds(journal: Journal, study: str) -> tuple[int, ...]:
    """Return the rounds of a study whose worker failed here, ascending."""
    return tuple(sorted({e.body["round"] for e in journal.entries(kind=FAILED) if e.body["study"] == study}))


def held_rounds(journal: Journal, study: str) -> tuple[int, ...]:
    """Return the failed rounds after which nobody has let a study go on; until somebody does, nothing is charged."""
    seen = {n for e in journal.entries(kind=CONTINUED) if e.body["study"] == study for n in e.body["rounds"]}
    return tuple(n for n in failed_rounds(journal, study) if n not in seen)


@dataclass(frozen=True, kw_only=True)
class Endings:
    """The endings of studies at one datasite.

    Args:
        ledger, journal, approvals: the datasite's own.
        newest: the newest version of a dataset here, None where there is none.
        held: why nothing may be released now (journal and ledger are older than what left), or empty.
    """

    ledger: Ledger
    journal: Journal
    approvals: ApprovalStore
    newest: Callable[[str], int | None] = lambda _: None
    held: Callable[[], str] = lambda: ""

    def study_ended(self, proposal_hash: str, reason: str, *, by: str = DATASITE) -> tuple[int, ...]:
        """Give back every round of a proposal that was reserved and never charged; return their numbers.

        Args:
            proposal_hash: the study's; one without a reservation changes nothing.
            reason: why, for the ledger, the journal, the budget page, the report and the scientist.
            by: the person who decides, or ``datasite`` for what follows from a rule. While nothing may be released,
                a rule waits for :meth:`settle`.

        Raises:
            Refused: a person asks while nothing may be released.
        """
        if self.held() and by != DATASITE:
            raise Refused(say("nothing is released now: {why}", why=self.held()))
        if self._study(proposal_hash) is None or self.held():
            return ()
        entry = self.ledger.release_reservation(proposal_hash, by=by, reason=reason)
        self._journal(entry)
        return () if entry is None else tuple(entry.body["rounds"])

    def finished(self, proposal_hash: str, study: str) -> bool:
        """Take note that the orchestrator announced the end of a study; return whether that is new."""
        known = any(e.body.get("proposal_hash") == proposal_hash for e in self.journal.entries(kind=FINISHED))
        if not known:
            self.journal.append(FINISHED, {"study": study, "proposal_hash": proposal_hash})
        self.study_ended(proposal_hash, "the study is finished: its last round was told")
        return not known

    def waiting(self, proposal_hash: str) -> tuple[int, ...]:
        """Return the failed rounds that hold up a study until a person lets it go on; none of an unknown proposal."""
        study = self._study(proposal_hash)
        return held_rounds(self.journal, study.study) if study is not None else ()

    def let_go_on(self, proposal_hash: str, reason: str, *, by: str) -> tuple[int, ...]:
        """Let a study charge again after a failed round, in a person's name; return the failed rounds."""
        study, rounds = self._study(proposal_hash), self.waiting(proposal_hash)
        if study is not None and rounds:
            about = {"study": study.study, "proposal_hash": proposal_hash, "rounds": list(rounds)}
            self.journal.append(CONTINUED, {**about, "by": by, "reason": reason})
            self.approvals.thread.say_continued(proposal_hash, rounds, by=by, reason=reason, now=self.journal.now())
        return rounds

    def settle(self, *, now: dt.datetime) -> None:
        """Release what no approved study can charge any more.

        Args:
            now: the present time; the journal's later time counts, as for approvals.
        """
        if self.held():
            return
        self._catch_up()
        later = max(now, self.journal.now())
        freed = []
        with self.approvals.undisturbed():  # an approval that is being sealed has its reservation already
            for study in self._open():
                reason = self.why_ended(study, later)
                if reason:
                    freed.append(self.ledger.release_reservation(study.proposal_hash, by=DATASITE, reason=reason))
        for entry in freed:
            self._journal(entry)

    def why_ended(self, study: StudyAccount, now: dt.datetime) -> str:
        """Return why a study can charge nothing here any more, or an empty text while it can."""
        try:
            request = self.approvals.request(study.proposal_hash)
        except InvalidInput:
            return str(say("no request of this proposal is here: nobody approved it"))
        why = self._undecided(request) or self._expired(request, now) or self._failed(request) or self._done(request)
        return str(why)  # ledger and journal keep English; pages recognise the sentence

    def _undecided(self, request: Request) -> str:
        if request.state == "approved" and request.approval is not None:
            return ""
        last = request.decisions[-1] if request.decisions else None
        if last is None or not last.reason:
            return say("the request is {state} here", state=request.state)
        return say(
            "the request is {state} here by {person}: {reason}",
            state=request.state,
            person=last.who,
            reason=last.reason,
        )

    def _expired(self, request: Request, now: dt.datetime) -> str:
        if request.approval is None:
            return ""
        approval = parse(Approval, dict(request.approval.payload))
        until = min(parse_time(approval.expires), parse_time(request.proposal.expires))
        return say("the approval expired at {until}", until=until.isoformat(timespec="seconds")) if now >= until else ""

    def _failed(self, request: Request) -> str:
        failed = failed_rounds(self.journal, request.proposal.study)
        if len(failed) < FAILURES_UNTIL_END:
            return ""
        rounds = ", ".join(map(str, failed))
        return say("the worker failed in rounds {rounds}: the study has ended here", rounds=rounds)

    def _done(self, request: Request) -> str:
        if any(e.body.get("proposal_hash") == request.proposal_hash for e in self.journal.entries(kind=FINISHED)):
            return say("the study is finished: its last round was told")
        for word in request.words:
            if (word.kind, word.to) == ("dropped", self.approvals.site):
                return word.sentence
        dataset = request.proposal.participant(self.approvals.site).dataset
        newest = self.newest(dataset.name)
        if newest is not None and newest > dataset.version:
            return say(
                "version {newest} of {dataset} has replaced version {version}, which was approved",
                newest=newest,
                dataset=dataset.name,
                version=dataset.version,
            )
        return ""

    def _open(self) -> list[StudyAccount]:
        accounts = (self.ledger.account(population) for population in self.ledger.populations())
        return [s for a in accounts for s in a.studies if len(s.charged_rounds) + len(s.freed_rounds) < s.rounds]

    def _study(self, proposal_hash: str) -> StudyAccount | None:
        accounts = (self.ledger.account(population) for population in self.ledger.populations())
        return next((s for a in accounts for s in a.studies if s.proposal_hash == proposal_hash), None)

    def _catch_up(self) -> None:
        """Journal what was released before a crash; the ledger's entry has the reason."""
        known = {e.body["entry"] for e in self.journal.entries(kind=RETURNED)}
        for entry in self.ledger.entries(kind="free"):
            if entry.index not in known:
                self._journal(entry)

    def _journal(self, entry: Entry | None) -> None:
        """Tell the scientist and the journal about a release, each once, however often and by whom this is called."""
        if entry is None:
            return
        body = entry.body
        self.approvals.thread.say_returned(
            body["proposal_hash"], body["rounds"], by=body["by"], reason=body["reason"], at=entry.at
        )
        told = ("study", "proposal_hash", "population", "rounds", "by", "reason")
        with self.approvals.undisturbed():  # the same release may be found by a start and by a command beside it
            if not any(known.body["entry"] == entry.index for known in self.journal.entries(kind=RETURNED)):
                self.journal.append(RETURNED, {"entry": entry.index, **{key: entry.body[key] for key in told}})
