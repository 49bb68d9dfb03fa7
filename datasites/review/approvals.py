"""Who decided what about which proposal, and whether a round may run now.

A proposal is received once, by hash. People approve it with keys of their own; when enough have signed, the
datasite's identity seals an :class:`~datasites.study.messages.Approval`. Before every round everything the hash covers
is compared again with what is really there (:meth:`ApprovalStore.check_before_round`). Every decision and every
refusal goes to the journal through the ``record`` callback, in the same transaction as the decision itself.

    received -> pending -> approved -> revoked
                   |  \\-> changes-requested -> approved
                   \\----> denied

Any of these but denied and revoked becomes "ended" when the scientist or another hospital ends the study. Every
decision is also sealed as a word for the scientist; :class:`datasites.review.thread.ThreadHere` hears what comes back.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from datasites.node.roster import Roster
from datasites.review import checks
from datasites.review.accounts import Account
from datasites.review.policy import Policy, check
from datasites.review.records import Confirmation, Decision, Request, ReviewRecords, State, open_proposal, word
from datasites.review.rules.automatic import rule_of
from datasites.review.thread import ThreadHere
from datasites.study import parties
from datasites.study.messages import Approval, ReviewerSignature
from datasites.study.proposal import DatasetReference, Environment, Proposal
from datasites.study.signing import Signed, dump, open_sealed, seal
from datasites.study.thread import accepted, check_text, conditions_of
from privacy.errors import BudgetExceeded, Refused, TesseraError
from privacy.identity import Identity
from privacy.sentences import joined, say

Record = Callable[[str, dict[str, Any]], object]
APPROVAL = "approval"


class ApprovalStore:
    """The requests and decisions of one datasite, in one SQLite file.

    Args:
        path: the file, made when it is missing.
        site: this datasite's name in proposals.
        identity: the datasite's key, which seals approvals.
        policy: the owner's rules, or a function that returns them as they are now.
        record: the journal's ``append``.
        reserve: the ledger's reservation of a proposal's worst case, made before the approval is sealed; must
            change nothing when it is called again.
        release: gives back what was reserved for a proposal and never charged, with the reason, once nothing can run
            under it any more; must change nothing when it is called again.
        roster: what the owner's people confirmed, as it is now; None checks fingerprints alone.
    """

    def __init__(
        self,
        path: Path,
        *,
        site: str,
        identity: Identity,
        policy: Policy | Callable[[], Policy],
        record: Record,
        reserve: Callable[[Proposal], object] | None = None,
        release: Callable[[str, str], object] | None = None,
        roster: Callable[[], Roster] | None = None,
    ) -> None:
        self.site = site
        self._reserve = reserve
        self._roster = roster
        self._policy = policy
        self._identity = identity
        self._record = record
        self._records = ReviewRecords(path)
        self.thread = ThreadHere(self._records, site=site, identity=identity, record=record, release=release)

    def close(self) -> None:
        """Close the file."""
        self._records.close()

    @property
    def policy(self) -> Policy:
        """The owner's rules at this moment."""
        return self._policy() if callable(self._policy) else self._policy

    @policy.setter
    def policy(self, policy: Policy | Callable[[], Policy]) -> None:
        self._policy = policy

    def undisturbed(self) -> AbstractContextManager[None]:
        """Keep every decision waiting until the block ends: what is read inside stays as it is."""
        return self._records.transaction()

    def receive(self, signed: Signed, folder: Path, *, now: dt.datetime) -> Request:
        """Keep a proposal for review; receiving it again changes nothing.

        Args:
            signed: the proposal sealed (kind ``proposal``) by the orchestrator that it names.
            folder: the code tree as it arrived; it must hold exactly the files the proposal lists.
            now: the present time, with zone.

        Raises:
            InvalidInput, Tampered: not a proposal, or not signed by its orchestrator.
            Refused: this site does not take part, the code differs, or the proposal has expired.
        """
        proposal = open_proposal(signed)
        if self.site not in {p.name for p in proposal.participants}:
            raise Refused(f"{self.site} does not take part in study {proposal.study!r}")
        if self._identity.public_key != proposal.participant(self.site).public_key:
            raise Refused(f"the proposal lists {self.site} under another key; propose the study again")
        proposal_hash = proposal.proposal_hash
        with self._records.transaction():
            if self._records.add_request(signed, proposal, folder, now.isoformat()):
                checks.check_protocol(proposal)
                checks.check_code(proposal, folder)
                if now >= parties.parse_time(proposal.expires):
                    raise Refused(f"the proposal expired at {proposal.expires}; propose the study again")
                self._record("proposal-received", {"study": proposal.study, "proposal_hash": proposal_hash})
                self._approve_by_rule(proposal, now)
        return self.request(proposal_hash)

    def request(self, proposal_hash: str) -> Request:
        """Return one request.

        Raises:
            InvalidInput: no proposal of this hash was received.
        """
        return self._records.request(proposal_hash)

    def requests(self) -> tuple[Request, ...]:
        """Return all requests, the newest first."""
        return self._records.requests()

    def sealed_proposals(self) -> tuple[Signed, ...]:
        """Return every received proposal as its orchestrator signed it."""
        return self._records.sealed_proposals()

    def approve(
        self,
        proposal_hash: str,
        *,
        reviewer: Account,
        key: Identity,
        now: dt.datetime,
        epsilon: float | None = None,
        conditions: str = "",
    ) -> Request:
        """Sign a proposal as one person; when enough have signed, the datasite approves it.

        Args:
            proposal_hash: what is approved.
            reviewer: who approves; an auditor cannot.
            key: the reviewer's own key, unlocked by their password.
            now: the present time.
            epsilon: what would be spent after the study at its worst, at the policy's delta, checked against the cap.
            conditions: what the scientist has to accept before the study may run here; empty for none.

        Raises:
            InvalidInput: conditions that do not read as they are.
            Refused: by the policy, the separation of duties, an earlier decision, or a second signature.
        """
        request = self.request(proposal_hash)
        proposal = request.proposal
        if not reviewer.decides or key.public_key != reviewer.public_key:
            raise Refused(
                say("{name} cannot approve: a steward or privacy officer signs with their own key", name=reviewer.name)
            )
        checks.check_state(request.state, checks.UNDECIDED)
        checks.check_separation(proposal, reviewer.name, reviewer.public_key)
        violations = check(self.policy, proposal, self.site, epsilon=epsilon)
        if violations:
            raise Refused(say("the policy forbids it: {why}", why=joined(v.message for v in violations)))
        checks.check_exchange(proposal)
        self.check_people(proposal)
        conditions = check_text(conditions, required=bool(conditions.strip()))
        signature = checks.sign_review(proposal, self.site, reviewer, key, conditions)
        with self._records.transaction():
            checks.check_state(self.request(proposal_hash).state, checks.UNDECIDED)  # it may have changed meanwhile
            self._records.add_signature(proposal_hash, signature)
            self._decide(proposal, "signed", reviewer.name, conditions, now, titled=reviewer.title)
            self._seal_when_complete(proposal, now)
        return self.request(proposal_hash)

    def deny(self, proposal_hash: str, *, reviewer: Account, reason: str, now: dt.datetime) -> Request:
        """Say no for ever to this hash, with the reason the scientist will read.

        Raises:
            Refused: the reviewer may not decide, or it is decided already.
            InvalidInput: no reason.
        """
        return self._say(proposal_hash, "denied", checks.UNDECIDED, reviewer, reason, now)

    def ask(self, proposal_hash: str, *, reviewer: Account, reason: str, now: dt.datetime) -> Request:
        """Ask the scientist for changes or an explanation; the proposal stays open.

        Raises:
            Refused, InvalidInput: as for :meth:`deny`.
        """
        return self._say(proposal_hash, "changes-requested", checks.UNDECIDED, reviewer, reason, now)

    def revoke(self, proposal_hash: str, *, reviewer: Account, reason: str, now: dt.datetime) -> Request:
        """Take an approval back: the study stops here before its next round.

        Raises:
            Refused, InvalidInput: as for :meth:`deny`, or it was not approved.
        """
        return self._say(proposal_hash, "revoked", frozenset({"approved"}), reviewer, reason, now)

    def check_before_round(
        self,
        proposal_hash: str,
        *,
        now: dt.datetime,
        environment: Environment,
        dataset: DatasetReference,
        code_folder: Path | None = None,
        clock_high_water: dt.datetime | None = None,
    ) -> Proposal:
        """Compare everything the hash covers with what is here, and return the proposal that may run.

        Args:
            proposal_hash: the study's proposal.
            now: the present time.
            environment: the software of this process.
            dataset: the dataset as it is now, fingerprinted again.
            code_folder: the code tree the worker will read; by default the one that was received.
            clock_high_water: the latest time the journal knows; a clock set back does not revive an approval.

        Raises:
            Refused: with the reason, which is journaled as ``round-refused``.
        """
        try:
            request = self.request(proposal_hash)
            self._check_decision(request, max(now, clock_high_water or now))
            checks.check_as_approved(request.proposal, code_folder or request.folder, self.site, dataset, environment)
        except TesseraError as error:
            raise self._round_refused(proposal_hash, error, now, clock_high_water) from error
        return request.proposal

    def check_decision(
        self, proposal_hash: str, *, now: dt.datetime, clock_high_water: dt.datetime | None = None
    ) -> Proposal:
        """Check again that the approval holds, as before anything is signed in a round; not the data and the software.

        Raises:
            Refused: with the reason, which is journaled as ``round-refused``.
        """
        try:
            request = self.request(proposal_hash)
            self._check_decision(request, max(now, clock_high_water or now))
        except TesseraError as error:
            raise self._round_refused(proposal_hash, error, now, clock_high_water) from error
        return request.proposal

    def confirm(
        self, public_key: str, *, name: str, institution: str, person: Account, now: dt.datetime, by: str = ""
    ) -> Confirmation:
        """Write down that ``person`` (``by``: several, where it takes more) compared this fingerprint, out of band.

        Raises:
            Refused: an auditor cannot confirm.
        """
        if not person.decides:
            raise Refused(say("an auditor reads and never decides; a steward or privacy officer confirms fingerprints"))
        value = Confirmation(
            public_key=public_key, name=name, institution=institution, person=by or person.name, at=now.isoformat()
        )
        with self._records.transaction():
            if self._records.add_confirmation(value):
                self._record("fingerprint-confirmed", dump(value) | person.signed)
        return value

    def confirmations(self) -> tuple[Confirmation, ...]:
        """Return all confirmed keys; partners that the owner wrote into the policy count as confirmed."""
        return checks.with_partners(self._records.confirmations(), self.policy)

    def confirmed(self) -> frozenset[str]:
        """Return the public keys that count as confirmed."""
        return frozenset(c.public_key for c in self.confirmations())

    def check_people(self, proposal: Proposal) -> None:
        """Check that everybody in a study has its part in the roster, was confirmed here, and stands in it once.

        Raises:
            Refused: somebody is not.
        """
        parties.check_parties(proposal)
        if self._roster is not None:
            known = self._roster()
            parties.check_officers(proposal, orchestrator=known.orchestrator, keyholder=known.keyholder)
            parties.check_roster(proposal, known.sites, known.helpers)
        checks.check_confirmed(proposal, self.site, self.confirmations())

    def _round_refused(
        self, proposal_hash: str, error: TesseraError, now: dt.datetime, high_water: dt.datetime | None
    ) -> Refused:
        """Journal why a round is refused, and say so when the clock may be the reason."""
        reason = str(error) + parties.clock_note(now, high_water)
        self._record("round-refused", {"proposal_hash": proposal_hash, "reason": reason})
        return type(error)(reason) if isinstance(error, Refused) else Refused(reason)

    def _check_decision(self, request: Request, now: dt.datetime) -> None:
        if request.state != "approved" or request.approval is None:
            raise Refused(say("the proposal is not approved here: it is {state}", state=word(request.state)))
        proposal = request.proposal
        approval = open_sealed(request.approval, APPROVAL, self._identity.public_key, Approval)
        if approval.proposal_hash != proposal.proposal_hash or approval.site != self.site:
            raise Refused(say("the approval is for another proposal; approve this one"))
        parties.check_time(proposal, approval, now)
        if any(d.kind == "approved-automatically" for d in request.decisions):
            self._check_rule(proposal, now)
        else:
            required = self.policy.required_reviewers(proposal)
            checks.check_signatures(approval, required=required, roles=self.policy.review.required_roles)
        violations = check(self.policy, proposal, self.site)
        if violations:
            raise Refused(say("the policy forbids it now: {why}", why=joined(v.message for v in violations)))
        self.check_people(proposal)
        if not accepted(request.words, self.site):
            raise Refused(say("the scientist has not accepted the conditions of the approval here yet"))

    def _check_rule(self, proposal: Proposal, now: dt.datetime) -> None:
        if not self._rule(proposal, now):
            raise Refused(say("such a study is not approved automatically any more; approve this one"))

    def _rule(self, proposal: Proposal, now: dt.datetime) -> str:
        known, key = self._records.same_plan(proposal), self._identity.public_key
        return rule_of(self.policy, proposal, lambda: checks.holding(known, APPROVAL, key, now))

    def _approve_by_rule(self, proposal: Proposal, now: dt.datetime) -> None:
        reason = "" if check(self.policy, proposal, self.site) else self._rule(proposal, now)
        with contextlib.suppress(Refused):  # of unconfirmed parties: people look at it
            self.check_people(proposal)
            if reason and self._fits(proposal):
                self._store_approval(proposal, (), now)
                self._decide(proposal, "approved-automatically", "policy", reason, now)

    def _fits(self, proposal: Proposal) -> bool:
        """Reserve the worst case; False when the budget has no room, so that people look at it."""
        try:
            if self._reserve is not None:
                self._reserve(proposal)
        except BudgetExceeded:
            return False
        return True

    def _seal_when_complete(self, proposal: Proposal, now: dt.datetime) -> None:
        signatures = self._records.signatures(proposal.proposal_hash)
        roles = {s.role for s in signatures}
        if len(signatures) < self.policy.required_reviewers(proposal):
            return
        if set(self.policy.review.required_roles) - roles:
            return
        if self._reserve is not None:
            self._reserve(proposal)  # the whole worst case, or BudgetExceeded and no approval
        self._store_approval(proposal, signatures, now)
        conditions = conditions_of({"reviewers": [dump(s) for s in signatures]})
        people, titled = ", ".join(s.reviewer for s in signatures), "; ".join(s.titled for s in signatures)
        known = any(s.full_name or s.function for s in signatures)
        self._decide(proposal, "approved", people, conditions, now, titled=titled if known else "")

    def _store_approval(self, proposal: Proposal, signatures: tuple[ReviewerSignature, ...], now: dt.datetime) -> None:
        approval = checks.approval_of(proposal, self.site, signatures, days=self.policy.review.approval_days, now=now)
        self._records.add_approval(proposal.proposal_hash, seal(self._identity, APPROVAL, approval))

    def _say(
        self,
        proposal_hash: str,
        kind: State,
        allowed_from: frozenset[str],
        reviewer: Account,
        reason: str,
        now: dt.datetime,
    ) -> Request:
        reason = check_text(reason)
        if not reviewer.decides:
            raise Refused(say("an auditor reads and never decides; a steward or privacy officer has to"))
        with self._records.transaction():
            request = self.request(proposal_hash)
            checks.check_state(request.state, allowed_from)
            if (last := request.decisions[-1:]) and last[0].says(kind, reviewer.name, reason):
                return request  # the second click of two
            self._decide(request.proposal, kind, reviewer.name, reason, now, titled=reviewer.title)
        if kind in {"denied", "revoked"}:
            self.thread.release(proposal_hash, f"{kind} by {reviewer.titled}: {reason}")
        return self.request(proposal_hash)

    def _decide(
        self, proposal: Proposal, kind: str, person: str, reason: str, now: dt.datetime, *, titled: str = ""
    ) -> None:
        decision = Decision(kind=kind, person=person, reason=reason, at=now.isoformat(), titled=titled)
        self._records.add_decision(proposal.proposal_hash, decision)
        body = {"study": proposal.study, "proposal_hash": proposal.proposal_hash, "person": person, "reason": reason}
        self._record(f"proposal-{kind}", body | ({"titled": titled} if titled else {}))
        self.thread.say(proposal, decision)
