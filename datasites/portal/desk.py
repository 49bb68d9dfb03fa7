"""What the portal does for a signed-in person, whether a page or the machine API asks for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict

from starlette.exceptions import HTTPException

from datasites.accounts import Account
from datasites.approval_records import Request
from datasites.contract import Party
from datasites.environment import differences
from datasites.policy import Violation, check
from datasites.portal.context import BudgetLine, CostPreview, PortalContext, StudyStatus
from datasites.portal.fresh import Fresh
from datasites.portal.live import DryRuns, JournalView
from datasites.portal.sign_ins import SignIns
from datasites.portal.streams import Streams
from privacy.errors import InvalidInput, Refused, TesseraError

_SECONDS = 1.0


class Desk:
    """One datasite's portal at work: the context, and what is remembered while it runs."""

    def __init__(self, context: PortalContext) -> None:
        self.context = context
        self.trials = DryRuns(context)
        self.streams = Streams()
        self.journal = JournalView(context.journal)
        self.studies: Fresh[tuple[StudyStatus, ...]] = Fresh(context.studies, seconds=_SECONDS)
        self.layers: Fresh[Mapping[str, bool]] = Fresh(context.layers, seconds=3600 * _SECONDS)  # tried once, for all
        self.budget: Fresh[tuple[BudgetLine, ...]] = Fresh(context.budget, seconds=_SECONDS)
        self.sign_ins = SignIns()
        self._writing = threading.Lock()
        self._costs: dict[str, Fresh[CostPreview | None]] = {}

    def find(self, proposal_hash: str) -> Request:
        """Return a request, or answer 404."""
        try:
            return self.context.approvals.request(proposal_hash)
        except InvalidInput as error:
            raise HTTPException(404, str(error)) from error

    def cost(self, request: Request) -> CostPreview | None:
        """Return what a study would cost, a few seconds old at most, or None where the ledger cannot say."""
        if request.proposal_hash not in self._costs:
            self._costs[request.proposal_hash] = Fresh(lambda: self._preview(request), seconds=5 * _SECONDS)
        return self._costs[request.proposal_hash]()

    def violations(self, request: Request) -> list[Violation]:
        """Return the rules of the policy that a request breaks, the cap included."""
        cost = self.cost(request)
        policy = self.context.approvals.policy
        return check(policy, request.proposal, self.context.site, epsilon=cost.after if cost else None)

    def unconfirmed(self, request: Request) -> list[Party]:
        """Return the parties of a study whose fingerprint nobody here has compared."""
        proposal, known = request.proposal, self.context.approvals.confirmed()
        others = [p for p in proposal.participants if p.name != self.context.site]
        return [p for p in (proposal.orchestrator, proposal.keyholder, *others) if p.public_key not in known]

    def differences(self, request: Request) -> list[str]:
        """Return where the software that a request names differs from what runs here."""
        return differences(request.proposal.environment, self.context.environment())

    def blocked(self, request: Request) -> str:
        """Return why a request cannot be approved now, or an empty text."""
        if self.violations(request):
            return "it breaks this hospital's policy"
        if self.unconfirmed(request):
            return "not everybody's fingerprint was compared"
        if self.differences(request):
            return "the software here is not what it names; the study has to be proposed again"
        cost = self.cost(request)
        if cost is None or not cost.fits:
            return "the privacy budget does not allow it" if cost else "the ledger cannot say what it costs"
        if request.proposal.plan.kind == "python" and not self.trials.state(request.proposal_hash).passed:
            return "a plan with its own Python code has to pass a dry run first"
        return ""

    def sign(self, proposal_hash: str, name: str, password: str) -> Request:
        """Unlock one person's key with their password and sign the proposal with it.

        Raises:
            Refused: the password, a rule or the budget says no.
        """
        request, now = self.find(proposal_hash), self.context.clock()
        account = self.context.accounts.authenticate(name, password, now=now)
        key = self.context.accounts.unlock(name, password)
        if request.proposal.plan.kind == "python" and not self.trials.state(proposal_hash).passed:
            raise Refused("a plan with its own Python code has to pass a dry run on mock data first")
        if self.differences(request):
            raise Refused(f"the software is not what the proposal names: {'; '.join(self.differences(request)[:3])}")
        cost = self.context.preview(request.proposal)
        return self.context.approvals.approve(proposal_hash, reviewer=account, key=key, now=now, epsilon=cost.after)

    def register(self, token: str, name: str, password: str) -> Account:
        """Use up a one-time link and journal the new account with its public key."""
        account = self.context.accounts.register(token, name, password, now=self.context.clock())
        self.context.journal.append("account-created", asdict(account))
        return account

    def write_reports(self) -> None:
        """Write the reports as of now, one writer at a time.

        Raises:
            Refused: they are being written.
        """
        if not self._writing.acquire(blocking=False):
            raise Refused("the reports are being written already; look again in a moment")
        try:
            self.context.write_reports()
        finally:
            self._writing.release()

    def confirm(self, public_key: str, person: Account) -> None:
        """Confirm the key of a party of one of the studies here.

        Raises:
            InvalidInput: no study here names this key.
        """
        for party in self.parties():
            if party.public_key == public_key:
                self.context.approvals.confirm(
                    public_key,
                    name=party.name,
                    institution=party.institution,
                    person=person,
                    now=self.context.clock(),
                )
                return
        raise InvalidInput("no study here names this key; nothing was confirmed")

    def parties(self) -> list[Party]:
        """Return everybody but this site who is named in a study here, each key once."""
        found: dict[str, Party] = {}
        for request in self.context.approvals.requests():
            proposal = request.proposal
            for party in (proposal.orchestrator, proposal.keyholder, *proposal.participants):
                if party.public_key != self.context.public_key:
                    found.setdefault(party.public_key, party)
        return list(found.values())

    def _preview(self, request: Request) -> CostPreview | None:
        try:
            return self.context.preview(request.proposal)
        except TesseraError:
            return None
