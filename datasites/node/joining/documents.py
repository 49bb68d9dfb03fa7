"""What travels when a party joins: the invitation, the answer, and editions of the roster.

The orchestrator signs invitations and editions with the key that everybody knows it by; who is invited signs the answer
with the key that it will be known by. An invitation does not name that key: people compare fingerprints afterwards.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasites.node.consortium import check_address, check_member
from datasites.node.home import Role
from datasites.node.keys.handover import follows, line
from datasites.node.roster import Roster
from datasites.study.proposal import Party
from datasites.study.signing import Message, Signed, dump, open_sealed, parse
from privacy.canonical import canonical_hash
from privacy.errors import InvalidInput, Refused
from privacy.identity import check_public_key

INVITATION, ANSWER, EDITION = "invitation", "invitation-answer", "roster"
MOST_BYTES = 4 * 1024**2
"""No invitation is longer: a roster of a thousand hospitals and the largest schema need a quarter of it."""
_NUMBER = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Invitation(Message):
    """What a party needs to take part.

    ``number`` (32 hexadecimal digits) is secret and good for one party: the first key that answers. ``ca`` is the
    certificate that vouches for the orchestrator's server (PEM), empty where machines trust it anyway. ``study_schema``
    is the schema of the consortium's studies, ``roster`` who takes part already; both may be missing.
    """

    number: str
    role: Role
    name: str
    institution: str
    orchestrator_url: str
    orchestrator: Party
    made: str
    expires: str
    ca: str = ""
    study_schema: Mapping[str, Any] | None = None
    roster: Roster | None = None


@dataclass(frozen=True, kw_only=True)
class Answer(Message):
    """What the invited party says, signed with its new key; ``certificate_request`` is a PKCS #10 request or empty."""

    number: str
    role: Role
    name: str
    institution: str
    certificate_request: str = ""


@dataclass(frozen=True, kw_only=True)
class Edition(Message):
    """A roster as the orchestrator signed it: each has the next ``serial`` and names the hash of the one before.

    ``handovers`` are all by which a party's key became another one, since the consortium began.
    """

    serial: int
    previous: str
    made: str
    roster: Roster
    handovers: tuple[Signed, ...] = ()

    @property
    def digest(self) -> str:
        """The hash that people confirm."""
        return canonical_hash(dump(self))


def read_invitation(data: bytes) -> tuple[Signed, Invitation]:
    """Check an invitation's signature and everything in it that others will rely on; not whether it has expired.

    Raises:
        InvalidInput: no invitation, or one with a name or an address that no roster takes.
        Tampered: it was changed after it was signed.
    """
    if len(data) > MOST_BYTES:
        raise InvalidInput(f"expected an invitation of at most {MOST_BYTES} bytes, got {len(data)}")
    try:
        signed = parse(Signed, data)
        if signed.kind != INVITATION:
            raise InvalidInput(f"a signed {signed.kind[:40]}")
        party = parse(Party, json.loads(json.dumps(dict(signed.payload["orchestrator"]))))
    except (InvalidInput, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            "expected an invitation, as `tessera invite` writes it; ask the operator for another"
        ) from error
    check_public_key(party.public_key)
    invitation = open_sealed(signed, INVITATION, party.public_key, Invitation)
    if not _NUMBER.fullmatch(invitation.number):
        raise InvalidInput("expected 32 hexadecimal digits as the invitation's number")
    check_member(invitation.role, invitation.name, invitation.institution)
    check_member("orchestrator", party.name, party.institution)
    check_address(invitation.orchestrator_url)
    if invitation.roster is not None:
        check_own(invitation.roster, party)
    return signed, invitation


def check_own(roster: Roster, orchestrator: Party) -> None:
    """Check a roster that came from elsewhere: everybody's name and key, and our orchestrator as it was.

    Raises:
        InvalidInput: not so.
    """
    roster.check()
    roles: Mapping[Role, tuple[Party, ...]] = {
        "orchestrator": (roster.orchestrator,),
        "keyholder": (roster.keyholder,),
        "datasite": roster.sites,
        "helper": roster.helpers,
    }
    for role, parties in roles.items():
        for party in parties:
            check_member(role, party.name, party.institution)
    if roster.orchestrator != orchestrator:
        raise InvalidInput("expected a roster of the orchestrator that sent it, got another orchestrator's")


def check_time(invitation: Invitation, now: dt.datetime) -> None:
    """Check that an invitation is good at ``now``.

    Raises:
        Refused: it has expired.
        InvalidInput: it says no time.
    """
    try:
        expires = dt.datetime.fromisoformat(invitation.expires)
        over = now >= expires
    except (ValueError, TypeError) as error:
        raise InvalidInput("expected the invitation's end as a time with zone") from error
    if over:
        raise Refused(f"the invitation expired on {expires:%Y-%m-%d}; ask the consortium's operator for another")


def open_edition(signed: Signed, orchestrator: Party) -> Edition:
    """Return the roster that our orchestrator signed, with the key we know or one that this key has handed over to.

    Raises:
        InvalidInput, Tampered: not by it, or no roster or no hand-over that holds.
    """
    edition = open_sealed(signed, EDITION, signed.public_key, Edition)
    key = signed.public_key
    if not follows(line(edition.handovers), orchestrator.name, orchestrator.public_key, key):
        raise InvalidInput("the signed roster carries another key than our orchestrator's; tell its operator")
    check_own(edition.roster, replace(orchestrator, public_key=key))
    return edition


def read_signed(path: Path) -> Signed:
    """Read a signed document that this role keeps.

    Raises:
        InvalidInput: missing or malformed.
    """
    try:
        return parse(Signed, path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"expected a signed document in {path.name}; restore it from the backup") from error
