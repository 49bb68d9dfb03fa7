"""What an approval binds: each check here compares one thing the proposal hash covers with what is really there.

Every function raises :class:`~privacy.errors.Refused` with the reason, or returns nothing.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

from datasites.review.accounts import Account
from datasites.review.environment import compare
from datasites.review.policy import Policy
from datasites.review.records import Confirmation, Request
from datasites.study.messages import Approval, ReviewerSignature
from datasites.study.parties import parse_time
from datasites.study.proposal import DatasetReference, Environment, Party, Proposal
from datasites.study.recomputed.checks import exchanges_nothing
from datasites.study.signing import open_sealed
from datasites.study.text import folded
from privacy.errors import Refused, TesseraError, Withheld
from privacy.identity import Identity, verify
from privacy.sentences import joined, say

REVIEW = "review"
UNDECIDED = frozenset({"pending", "changes-requested"})
"""States of a request that can still be approved or denied."""
_SETTLED = {
    "approved": say("this request is approved already, so nothing was changed; to stop it, revoke it"),
    "denied": say("this request is denied already, so nothing was changed; the scientist may propose a new version"),
    "revoked": say("this request is revoked already, so nothing was changed; the scientist may propose a new version"),
    "ended": say("this request has ended already, so nothing was changed; the scientist may propose a new version"),
}
_NOT_APPROVED = say("this request is not approved here, so there is nothing to revoke")


def review_payload(
    proposal_hash: str,
    study: str,
    site: str,
    reviewer: str,
    role: str,
    conditions: str = "",
    full_name: str = "",
    function: str = "",
) -> dict[str, str]:
    """Return what a reviewer signs (kind ``review``): this person, in this role, approves this hash at this site.

    Conditions, full name and function are part of it where they are not empty; without, it is what was signed before
    there were any.
    """
    signed = {"proposal_hash": proposal_hash, "study": study, "site": site, "reviewer": reviewer, "role": role}
    later = {"conditions": conditions, "full_name": full_name, "function": function}
    return signed | {name: text for name, text in later.items() if text}


def sign_review(proposal: Proposal, site: str, reviewer: Account, key: Identity, conditions: str) -> ReviewerSignature:
    """Sign a proposal in one person's name, with the conditions they set."""
    titles = {"full_name": reviewer.full_name, "function": reviewer.function}
    hashed, study = proposal.proposal_hash, proposal.study
    payload = review_payload(hashed, study, site, reviewer.name, reviewer.role, conditions, **titles)
    return ReviewerSignature(
        reviewer=reviewer.name,
        role=reviewer.role,
        public_key=key.public_key,
        signature=key.sign(REVIEW, payload, 1),
        conditions=conditions,
        **titles,
    )


def approval_of(
    proposal: Proposal, site: str, signatures: tuple[ReviewerSignature, ...], *, days: int, now: dt.datetime
) -> Approval:
    """Return the approval of a proposal at a site, valid for some days and never longer than the proposal."""
    return Approval(
        study=proposal.study,
        proposal_hash=proposal.proposal_hash,
        site=site,
        reviewers=signatures,
        approved=now.isoformat(),
        expires=min(now + dt.timedelta(days=days), parse_time(proposal.expires)).isoformat(),
    )


def check_state(state: str, allowed: Collection[str]) -> None:
    """Refuse a decision that came too late or too early: another tab, person or hospital was faster.

    Raises:
        Refused: the request's state is not one of those allowed.
    """
    if state not in allowed:
        raise Refused(_SETTLED.get(state, _NOT_APPROVED))


def check_exchange(proposal: Proposal) -> None:
    """Refuse a study in which no hospital can learn from another, or one as an older version proposes it."""
    check_protocol(proposal)
    reason = exchanges_nothing(proposal)
    if reason:
        raise Refused(say("the study would spend privacy for nothing: {reason}", reason=reason))


def check_protocol(proposal: Proposal) -> None:
    """Refuse a new study in which a keyholder could choose its keys, or a restored hospital send a second update.

    Raises:
        Refused: it is a proposal as an older version makes them. What was approved before goes on as it was approved.
    """
    if proposal.protocol < (3 if proposal.helpers else 2):
        raise Refused(
            say(
                "the proposal is of an older version, which protects single updates less; propose the study again with "
                "the present one"
            )
        )


def with_partners(confirmed: tuple[Confirmation, ...], policy: Policy) -> tuple[Confirmation, ...]:
    """Return confirmed keys and those of the partners that the owner wrote into the policy."""
    known = {one.public_key for one in confirmed}
    return confirmed + tuple(
        Confirmation(public_key=p.public_key, name=p.name, institution=p.institution, person="policy file", at="")
        for p in policy.partners
        if p.public_key not in known
    )


def check_signatures(approval: Approval, *, required: int, roles: Collection[str] = ()) -> None:
    """Check every reviewer's signature, that they are different people with different keys, and that they suffice.

    Raises:
        Refused: a signature that does not hold, a person or key that appears twice, too few, or a role missing.
    """
    people = [r.reviewer for r in approval.reviewers]
    keys = [r.public_key for r in approval.reviewers]
    if len(set(people)) < len(people) or len(set(keys)) < len(keys):
        raise Refused(say("the same reviewer stands twice in the approval; another person has to sign"))
    if len(people) < required:
        raise Refused(say("{required} reviewers are needed, {people} signed", required=required, people=len(people)))
    for signature in approval.reviewers:
        check_signature(approval.proposal_hash, approval.study, approval.site, signature)
    missing = sorted(set(roles) - {r.role for r in approval.reviewers})
    if missing:
        raise Refused(say("the signature of a {missing} is missing", missing=" and a ".join(missing)))


def check_signature(proposal_hash: str, study: str, site: str, signature: ReviewerSignature) -> None:
    """Check one reviewer's signature under a proposal hash.

    Raises:
        Refused: it does not hold.
    """
    later = (signature.conditions, signature.full_name, signature.function)
    payload = review_payload(proposal_hash, study, site, signature.reviewer, signature.role, *later)
    try:
        verify(signature.public_key, REVIEW, payload, signature.signature, 1)
    except TesseraError as error:
        raise Refused(
            say("the signature of {reviewer} does not hold under this proposal", reviewer=signature.reviewer)
        ) from error


def check_as_approved(
    proposal: Proposal, folder: Path, site: str, dataset: DatasetReference, environment: Environment
) -> None:
    """Compare code, dataset and software that are here with those that were approved.

    Raises:
        Withheld: something differs. The message is for the own people: that the dataset differs tells others that its
            files were changed, which no budget was charged for.
    """
    try:
        check_code(proposal, folder)
        check_dataset(proposal, site, dataset)
        check_environment(proposal, environment)
    except Refused as error:
        raise Withheld(str(error)) from error


def check_code(proposal: Proposal, folder: Path, *, besides: Collection[str] = ()) -> None:
    """Compare every file of the code tree with the hash that was approved.

    Args:
        proposal: lists the files and their hashes.
        folder: the tree.
        besides: names of files that may lie in it beside the code.

    Raises:
        Refused: a file is changed, missing, added, or not a plain file.
    """
    present = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Refused(say("the code tree has a link or a special file, which no approval covers; send it again"))
        if path.is_file():
            present[path.relative_to(folder).as_posix()] = path
    expected = proposal.plan.code
    for name in sorted(set(expected) - set(present)):
        raise Refused(say("the file {name} of the approved plan is missing", name=name))
    for name in sorted(set(present) - set(expected) - set(besides)):
        raise Refused(say("the file {name} was added after the approval", name=name))
    for name, digest in expected.items():
        if hashlib.sha256(present[name].read_bytes()).hexdigest() != digest:
            raise Refused(say("the file {name} was changed after the approval", name=name))


def check_dataset(proposal: Proposal, site: str, dataset: DatasetReference) -> None:
    """Compare the dataset that is here with the one that was approved.

    Raises:
        Refused: another dataset, version, schema, content or count.
    """
    approved = proposal.participant(site).dataset
    for field in ("name", "version", "fingerprint", "schema_hash", "patients"):
        wanted, actual = getattr(approved, field), getattr(dataset, field)
        if wanted != actual:
            what = f"{field.replace('_', ' ')} {wanted}" if field in {"name", "version"} else field.replace("_", " ")
            raise Refused(
                say(
                    "the dataset is not the approved one: another {what} was approved; propose the study again",
                    what=what,
                )
            )


def check_environment(proposal: Proposal, environment: Environment) -> None:
    """Compare the software that is here with the one that was approved.

    Raises:
        Refused: something differs that may not differ (:func:`datasites.review.environment.compare`).
    """
    found = compare(proposal.environment, environment).refused
    if found:
        raise Refused(
            say("the software is not the approved one: {found}; propose the study again", found=joined(found[:3]))
        )


def others_of(proposal: Proposal, site: str) -> tuple[Party, ...]:
    """Return everybody whom a study names besides this site; the scientist who asks for it comes first."""
    others = [p for p in proposal.participants if p.name != site]
    return (*proposal.asker, proposal.orchestrator, proposal.keyholder, *proposal.helpers, *others)


def check_confirmed(proposal: Proposal, site: str, confirmed: Collection[Confirmation]) -> None:
    """Check that the owner has confirmed the key of everybody in the study out of band, as whose it is named.

    A key that was confirmed as one institution's does not count as another's: ``min_sites`` counts institutions.

    Raises:
        Refused: somebody's fingerprint is not confirmed yet, or was confirmed as somebody else's.
    """
    known = {c.public_key: c for c in confirmed}
    parties = others_of(proposal, site)
    missing = [f"{p.name} ({p.institution})" for p in parties if p.public_key not in known]
    if missing:
        raise Refused(
            say(
                "fingerprints not confirmed yet: {missing}; compare them on the fingerprints page",
                missing=", ".join(missing),
            )
        )
    for party in parties:
        owner = known[party.public_key]
        if owner.institution and folded(owner.institution) != folded(party.institution):
            raise Refused(
                say(
                    "the key of {name} was confirmed as that of {institution}, not of "
                    "{other}; the study has to name everybody as they are",
                    name=party.name,
                    institution=owner.institution,
                    other=party.institution,
                )
            )


def check_separation(proposal: Proposal, reviewer: str, public_key: str) -> None:
    """Check that who approves is not who proposes, takes part elsewhere or holds the key.

    Raises:
        Refused: the reviewer's name or key is that of the proposer or of another party of the study.
    """
    asking = {proposal.orchestrator.name} | ({proposal.scientist.name} if proposal.scientist else set())
    if public_key in {p.public_key for p in others_of(proposal, "")} or reviewer in asking:
        raise Refused(say("who proposed a study, or takes part in it as an institution, cannot approve it"))
    if reviewer in proposal.custody.downloaders:
        raise Refused(say("who will receive the trained model cannot approve the study; another person has to"))


def holding(requests: Iterable[Request], kind: str, public_key: str, now: dt.datetime) -> Request | None:
    """Return the first request that people signed and whose approval (sealed as ``kind``) holds at ``now``."""
    for request in requests:
        if request.state != "approved" or request.approval is None or not request.signatures:
            continue
        if now < parse_time(open_sealed(request.approval, kind, public_key, Approval).expires):
            return request
    return None
