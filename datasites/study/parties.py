"""Who takes part in a study, and until when: checks that hospitals and the keyholder both make, each for itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

from datasites.language import mark
from datasites.study.messages import Approval
from datasites.study.proposal import Party, Proposal
from datasites.study.text import folded
from privacy.errors import Refused
from privacy.sentences import say

_CLOCK_APART = dt.timedelta(minutes=5)
_ORCHESTRATOR = mark(
    "the study's orchestrator is {named}; in the roster that was confirmed here it is {known}; refuse the study, or "
    "compare fingerprints and confirm the new roster"
)
_KEYHOLDER = mark(
    "the study's keyholder is {named}; in the roster that was confirmed here it is {known}; refuse the study, or "
    "compare fingerprints and confirm the new roster"
)


def check_parties(proposal: Proposal) -> None:
    """Check that nobody stands twice in a study, and that whoever holds the keys has no other part in it.

    Raises:
        Refused: a name or key twice, or a keyholder who orchestrates, takes part, or is of such an institution; or
            helpers of one institution, or of the orchestrator's or keyholder's.
    """
    orchestrator, keyholder, participants = proposal.orchestrator, proposal.keyholder, proposal.participants
    for what, values in (("name", [p.name for p in participants]), ("key", [p.public_key for p in participants])):
        if len(set(values)) < len(values):
            raise Refused(say("a participant's {what} stands twice in the proposal", what=what))
    if keyholder.public_key in {orchestrator.public_key, *(p.public_key for p in participants)}:
        raise Refused(say("the keyholder may neither orchestrate the study nor take part in it"))
    if folded(keyholder.institution) in {folded(p.institution) for p in (orchestrator, *participants)}:
        raise Refused(say("the keyholder's institution may neither orchestrate the study nor take part in it"))
    _check_helpers(proposal)


def _check_helpers(proposal: Proposal) -> None:
    """Check that keyholder, helpers and orchestrator are of different institutions; helpers may be of hospitals."""
    if not proposal.helpers:
        return
    apart = (proposal.orchestrator, proposal.keyholder, *proposal.helpers)
    if len({folded(party.institution) for party in apart}) < len(apart):
        raise Refused(
            say("expected two helpers of different institutions, neither the orchestrator's nor the keyholder's")
        )
    everybody = (*apart, *proposal.participants)
    for values in ([p.name for p in everybody], [p.public_key for p in everybody]):
        if len(set(values)) < len(values):
            raise Refused(say("a helper has a name or a key that somebody else in the study has, too"))


def check_officers(proposal: Proposal, *, orchestrator: Party, keyholder: Party) -> None:
    """Check that a study's orchestrator and keyholder are those of the roster, by name, key and institution.

    Any other party that people once confirmed, a scientist for example, would hold the keys of rounds whose sums the
    roster's keyholder would never decrypt.

    Raises:
        Refused: one is not.
    """
    for named, known, sentence in (
        (proposal.orchestrator, orchestrator, _ORCHESTRATOR),
        (proposal.keyholder, keyholder, _KEYHOLDER),
    ):
        if _who(named) != _who(known):
            raise Refused(say(sentence, named=_named(named), known=_named(known)))


def check_roster(proposal: Proposal, hospitals: Collection[Party], helpers: Collection[Party] = ()) -> None:
    """Check that every participant, and every helper, is in the roster, under its name and key and as its institution.

    Args:
        proposal: the study's.
        hospitals: those of the roster that this role's own people confirmed.
        helpers: its helpers, confirmed alike.

    Raises:
        Refused: somebody is not; a study of invented hospitals decrypts the update of the real one among them.
    """
    strangers = _missing(proposal.participants, hospitals)
    if strangers:
        named = ", ".join(map(_named, strangers[:5]))
        raise Refused(
            say(
                "{count} of the study's hospitals are not in the roster that was "
                "confirmed here: {named}; compare fingerprints and build the roster again, or refuse the study",
                count=len(strangers),
                named=named,
            )
        )
    unknown = _missing(proposal.helpers, helpers)
    if unknown:
        named = ", ".join(map(_named, unknown))
        raise Refused(
            say(
                "not in the roster that was confirmed here: the study's helpers {named}; compare fingerprints and "
                "build the roster again, or refuse the study",
                named=named,
            )
        )


def _missing(named: Collection[Party], known: Collection[Party]) -> list[Party]:
    there = {_who(party) for party in known}
    return [party for party in named if _who(party) not in there]


def _named(party: Party) -> str:
    return f"{party.name} ({party.institution})"


def _who(party: Party) -> tuple[str, str, str]:
    return party.name, party.public_key, folded(party.institution)


def check_time(proposal: Proposal, approval: Approval, now: dt.datetime) -> None:
    """Check that neither the proposal nor the approval has expired at ``now``.

    Raises:
        Refused: one has.
    """
    if now >= parse_time(proposal.expires):
        raise Refused(say("the proposal expired at {expires}; propose the study again", expires=proposal.expires))
    if now >= parse_time(approval.expires):
        raise Refused(say("the approval expired at {expires}; approve the study again", expires=approval.expires))


def clock_note(now: dt.datetime, high_water: dt.datetime | None) -> str:
    """Return what to add to a refusal when the clock may be its reason: the journal knows a much later time."""
    if high_water is None or high_water - now <= _CLOCK_APART:
        return ""
    times = f"the journal has an entry of {high_water:%Y-%m-%d %H:%M}, the clock says {now:%Y-%m-%d %H:%M}"
    return f"; {times}: it was set forward once or back now, and the later time counts (tessera doctor)"


def parse_time(text: str) -> dt.datetime:
    """Return an ISO 8601 time as an aware datetime; a time without zone is read as UTC.

    Raises:
        Refused: not a time.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise Refused(say("expected a time in ISO 8601, for example 2026-01-31T12:00:00+00:00")) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
