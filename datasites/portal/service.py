"""What the portal does for a signed-in person, whether a page or the machine API asks for it.

:class:`PortalService` also keeps dry runs in the background, the journal as it grows, and sign-ins under way.
"""

from __future__ import annotations

import datetime as dt
import hmac
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from starlette.exceptions import HTTPException

from datasites.data.glance import Glance
from datasites.node.web.events import Cached, Streams
from datasites.portal.context import PortalContext
from datasites.portal.people.desk import PeopleDesk
from datasites.portal.people.drafts import NOTHING, Draft, Drafts
from datasites.portal.people.proof import Proof
from datasites.portal.people.waiting import WaitingActs
from datasites.portal.report_writing import ReportWriting
from datasites.portal.shown.answers import data_use
from datasites.review.accounts import Account, Credential
from datasites.review.budgets import Budget, CostPreview, StudyStatus
from datasites.review.checks import others_of
from datasites.review.environment import Compared, compare
from datasites.review.people.acts import PersonAct
from datasites.review.policy import Violation, check
from datasites.review.records import Request
from datasites.study.data_use import Comparison
from datasites.study.proposal import Party
from privacy.errors import InvalidInput, Refused, TesseraError
from privacy.ledger.journal import Entry, Journal
from privacy.ledger.views import Point
from privacy.sentences import joined, say, sentence_of

if TYPE_CHECKING:
    from datasites.review.oidc import Begun
    from datasites.worker.trainer import Trial

Decision = Literal["deny", "ask", "revoke"]
SIGN_IN_SECONDS = 600
_MOST = 1000
_NO_MORE = frozenset({"denied", "revoked", "ended", "finished", "unused", "stopped"})


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A sign-in under way: its secrets, where the person wanted to go, and whose account is to be linked, if any."""

    begun: Begun
    browser: str
    to: str
    account: Account | None
    until: dt.datetime
    draft: Draft = NOTHING


class SignIns:
    """The sign-ins under way in one portal; forgotten after ten minutes, and when the portal restarts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[str, Pending] = {}

    def add(self, begun: Begun, *, to: str, account: Account | None, now: dt.datetime, draft: Draft = NOTHING) -> str:
        """Remember one and return the secret that its browser keeps in a cookie."""
        browser = secrets.token_urlsafe(32)
        until = now + dt.timedelta(seconds=SIGN_IN_SECONDS)
        made = Pending(begun=begun, browser=browser, to=to, account=account, until=until, draft=draft)
        with self._lock:
            while len(self._pending) >= _MOST:
                self._pending.pop(next(iter(self._pending)))
            self._pending[begun.state] = made
        return browser

    def take(self, state: str, browser: str, *, now: dt.datetime) -> Pending:
        """Return the sign-in of ``state`` once, to the browser that began it.

        Raises:
            Refused: unknown, finished, too late, or another browser's.
        """
        with self._lock:
            found = self._pending.get(state)
            if found is not None and hmac.compare_digest(found.browser.encode(), browser.encode()):
                del self._pending[state]
                if now < found.until:
                    return found
        raise Refused(say("this sign-in was not begun in this browser, is finished or took too long; begin again"))


_LOG_BYTES = 20_000


class JournalView:
    """The journal's entries, read from the file once and then only what is new."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._entries: list[Entry] = []

    def entries(self, *, search: str = "", kind: str = "") -> list[Entry]:
        """Return the entries of one kind that contain a text, the newest first."""
        with self._lock:
            last = self._entries[-1].index if self._entries else 0
            self._entries.extend(self._journal.entries(since=last))
            known = list(reversed(self._entries))
        text = search.casefold()
        return [
            e for e in known if (not kind or e.kind == kind) and (not text or text in f"{e.kind} {e.body}".casefold())
        ]

    def kinds(self) -> list[str]:
        """Return every kind of entry there is."""
        return sorted({e.kind for e in self._entries})


@dataclass(frozen=True, kw_only=True)
class DryRunProgress:
    """A dry run of one request: not begun, running (with its log so far), ended, or failed to run at all."""

    state: Literal["none", "running", "done", "failed"] = "none"
    since: str = ""
    result: Trial | None = None
    problem: str = ""
    log: str = ""

    @property
    def passed(self) -> bool:
        """Whether the run ended well and everything that was tried held."""
        return self.result is not None and self.result.passed


class DryRuns:
    """Dry runs, one at a time; the last one of every request is remembered until the portal restarts."""

    def __init__(self, context: PortalContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._states: dict[str, DryRunProgress] = {}
        self._logs: dict[str, Path] = {}

    def state(self, proposal_hash: str) -> DryRunProgress:
        """Return how far the dry run of a request is."""
        state = self._states.get(proposal_hash, DryRunProgress())
        log = self._logs.get(proposal_hash)
        return replace(state, log=_tail(log)) if state.state == "running" and log is not None else state

    def start(self, request: Request) -> None:
        """Begin a dry run in the background.

        Raises:
            Refused: another one is going on.
        """
        self._begin(request.proposal_hash)
        threading.Thread(target=self._run, args=(request,), name="dry-run", daemon=True).start()

    def run(self, request: Request) -> DryRunProgress:
        """Do a dry run and wait for its end.

        Raises:
            Refused: another one is going on.
        """
        self._begin(request.proposal_hash)
        self._run(request)
        return self.state(request.proposal_hash)

    def _begin(self, proposal_hash: str) -> None:
        with self._lock:
            if any(s.state == "running" for s in self._states.values()):
                raise Refused(say("another dry run is going on; wait until it has ended"))
            since = self._context.clock().strftime("%H:%M:%S UTC")
            self._states[proposal_hash] = DryRunProgress(state="running", since=since)

    def _run(self, request: Request) -> None:
        state = self._states[request.proposal_hash]
        try:
            watch = partial(self._logs.__setitem__, request.proposal_hash)
            ended = replace(state, state="done", result=self._context.dry_run(request, watch))
        except TesseraError as error:
            ended = replace(state, state="failed", problem=sentence_of(error))
        except BaseException:
            self._states[request.proposal_hash] = replace(state, state="failed", problem=say("it could not be run"))
            raise
        self._states[request.proposal_hash] = ended


def _tail(path: Path) -> str:
    """Return the end of a log that still grows, or nothing when it is not there yet or no more."""
    try:
        return path.read_bytes()[-_LOG_BYTES:].decode(errors="replace")
    except OSError:
        return ""


_SECONDS = 1.0


class PortalService:
    """One datasite's portal: its context, and what it remembers while it runs."""

    def __init__(self, context: PortalContext) -> None:
        self.context = context
        self.dry_runs = DryRuns(context)
        self.streams = Streams()
        self.journal = JournalView(context.journal)
        self.studies: Cached[tuple[StudyStatus, ...]] = Cached(context.studies, seconds=_SECONDS)
        self.layers: Cached[Mapping[str, bool]] = Cached(context.layers, seconds=3600 * _SECONDS)  # tried once, for all
        self.budgets: Cached[tuple[Budget, ...]] = Cached(context.budgets, seconds=_SECONDS)
        self.history: Cached[Mapping[str, tuple[Point, ...]]] = Cached(context.history, seconds=_SECONDS)
        self.sign_ins = SignIns()
        self.people = PeopleDesk(context)
        self.acts = WaitingActs(context, self.people)
        self.drafts = Drafts()
        self.writing = ReportWriting(context)
        self._costs: dict[str, Cached[CostPreview | None]] = {}

    def find(self, proposal_hash: str) -> Request:
        """Return a request, or answer 404."""
        try:
            return self.context.approvals.request(proposal_hash)
        except InvalidInput as error:
            raise HTTPException(404, sentence_of(error)) from error

    def over(self, request: Request) -> str:
        """Return how a request is over, as a state of the request or of its study here, or an empty text."""
        states = (s.state for s in self.studies() if s.proposal_hash == request.proposal_hash)
        return next((state for state in (request.state, *states) if state in _NO_MORE), "")

    def dry_run_wanted(self, proposal_hash: str) -> Request:
        """Return a request of which something can still come, for a dry run.

        Raises:
            Refused: it is over.
        """
        if self.over(found := self.find(proposal_hash)):
            raise Refused(say("this request is over, so a dry run would decide nothing"))
        return found

    def cost(self, request: Request) -> CostPreview | None:
        """Return what a study would cost, a few seconds old at most, or None where the ledger cannot say."""
        if request.proposal_hash not in self._costs:
            self._costs[request.proposal_hash] = Cached(lambda: self._preview(request), seconds=5 * _SECONDS)
        return self._costs[request.proposal_hash]()

    def violations(self, request: Request) -> list[Violation]:
        """Return the rules of the policy that a request breaks, the cap included."""
        cost = self.cost(request)
        policy = self.context.approvals.policy
        return check(policy, request.proposal, self.context.site, epsilon=cost.after if cost else None)

    def unconfirmed(self, request: Request) -> list[Party]:
        """Return the parties of a study whose fingerprint nobody here has compared."""
        known, others = self.context.approvals.confirmed(), others_of(request.proposal, self.context.site)
        return [p for p in others if p.public_key not in known]

    def glance(self, request: Request) -> Glance | None:
        """Return the dataset that a request asks for, as far as it is public."""
        try:
            return self.context.glance(request.proposal)
        except InvalidInput:
            return None

    def data_use(self, request: Request) -> tuple[Comparison, ...]:
        """Return where a request's purpose does not fit the dataset's terms."""
        return data_use(request.proposal, self.glance(request))

    def scales(self, request: Request) -> str:
        """Return why the scales of the dataset's inputs forbid a request, or an empty text.

        A request that does not say that values are scaled by a hospital's own patients states an epsilon that is not
        true; one that says so breaks the policy, unless the policy allows an infinite epsilon.
        """
        glance, proposal = self.glance(request), request.proposal
        asked = set(proposal.participant(self.context.site).modalities)
        own = (set(glance.self_scaled) & asked) - set(proposal.model.self_scaled) if glance else set()
        if not own:
            return ""
        return say(
            "{modalities}: the dataset's values are scaled by statistics of this hospital's own patients, which the "
            "request does not say; no epsilon can be stated",
            modalities=", ".join(sorted(own)),
        )

    def software(self, request: Request) -> Compared:
        """Return how the software that a request names differs from what runs here."""
        return compare(request.proposal.environment, self.context.environment())

    def blocked(self, request: Request) -> str:
        """Return why a request cannot be approved now, or an empty text."""
        if self.violations(request):
            return say("it breaks this hospital's policy")
        if any(found.conflict for found in self.data_use(request)):
            return say("its purpose does not fit the terms of the dataset")
        if scales := self.scales(request):
            return scales
        if self.unconfirmed(request):
            return say("not everybody's fingerprint was compared")
        try:
            self.context.approvals.check_people(request.proposal)
        except Refused as error:
            return sentence_of(error)
        if self.software(request).refused:
            return say("the software here is not what it names; the study has to be proposed again")
        cost = self.cost(request)
        if cost is None or not cost.fits:
            return say("the privacy budget does not allow it") if cost else say("the ledger cannot say what it costs")
        if request.proposal.plan.kind == "python" and not self.dry_runs.state(request.proposal_hash).passed:
            return say("a plan with its own Python code has to pass a dry run first")
        return ""

    def sign(self, proposal_hash: str, caller: Credential, proof: Proof, conditions: str = "") -> Request:
        """Unlock one person's key with their password and sign the proposal with it, under conditions or none.

        Raises:
            Refused: the password, a rule or the budget says no.
        """
        request, now = self.find(proposal_hash), self.context.clock()
        account, key = caller.account, self.people.prove(caller, proof)
        self.people.check_reviewer(account, request, signs=True)
        if request.proposal.plan.kind == "python" and not self.dry_runs.state(proposal_hash).passed:
            raise Refused(say("a plan with its own Python code has to pass a dry run on mock data first"))
        conflicts = [found.sentence for found in self.data_use(request) if found.conflict]
        if conflicts:
            raise Refused(
                say("the purpose does not fit the terms of the dataset: {conflicts}", conflicts=joined(conflicts))
            )
        if scales := self.scales(request):
            raise Refused(scales)
        if differing := self.software(request).refused:
            raise Refused(
                say("the software is not what the proposal names: {differences}", differences=joined(differing[:3]))
            )
        cost = self.context.preview(request.proposal)
        return self.context.approvals.approve(
            proposal_hash, reviewer=account, key=key, now=now, epsilon=cost.after, conditions=conditions
        )

    def decide(self, decision: Decision, proposal_hash: str, caller: Credential, reason: str, proof: Proof) -> Request:
        """Deny a request, ask for changes, or revoke its approval; the scientist reads the reason.

        Raises:
            Refused: its state does not allow that, or a security key is asked for and has not answered.
        """
        request, person = self.find(proposal_hash), caller.account
        self.people.check_key(caller, proof)
        if decision != "revoke":  # stopping a study is anybody's who decides here
            self.people.check_reviewer(person, request)
        approvals = self.context.approvals
        act = {"deny": approvals.deny, "ask": approvals.ask, "revoke": approvals.revoke}[decision]
        return act(proposal_hash, reviewer=person, reason=reason, now=self.context.clock())

    def confirm(self, public_key: str, caller: Credential, proof: Proof) -> bool:
        """Confirm the key of a party of one of the studies here; return whether it is done or waits for others.

        Raises:
            InvalidInput: no study here names this key.
            Refused: a machine token, the wrong password, or too few people.
        """
        for party in self.parties():
            if party.public_key == public_key:
                act = PersonAct(kind="fingerprint", target=public_key, name=party.name, institution=party.institution)
                return bool(self.people.act(act, caller, proof))
        self.people.prove_in_person(caller, proof)  # whoever only has a cookie learns nothing here
        raise InvalidInput(say("no study here names this key; nothing was confirmed"))

    def confirm_roster(self, digest: str, caller: Credential, proof: Proof) -> bool:
        """Put a changed roster in force; return whether it is done or waits for others.

        Raises:
            Refused: a machine token, the wrong password, too few people, or another roster than is offered.
        """
        change = self.context.roster_change()
        if change is None or change.digest != digest:
            self.people.prove_in_person(caller, proof)
            raise Refused(say("the roster that you looked at is not the one that is offered now; look again"))
        return bool(self.people.act(PersonAct(kind="roster", target=digest, name=change.title), caller, proof))

    def parties(self) -> list[Party]:
        """Return everybody but this site who is named in a study here, each key once."""
        found: dict[str, Party] = {}
        for request in self.context.approvals.requests():
            for party in others_of(request.proposal, ""):
                if party.public_key != self.context.public_key:
                    found.setdefault(party.public_key, party)
        return list(found.values())

    def _preview(self, request: Request) -> CostPreview | None:
        try:
            return self.context.preview(request.proposal)
        except TesseraError:
            return None
