"""Invitations and their answers, in the orchestrator's folder; commands and the orchestrator's process share them.

::

    joining/NUMBER/invitation.json    signed by the orchestrator; NUMBER is secret
    joining/NUMBER/answer.json        signed by whoever answered first; never replaced
    joining/NUMBER/portal.pem         the certificate of the party's portal, once it is admitted
    roster.json  roster.signed.json   the present roster, and the same as its newest signed edition
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from datasites.node.consortium import Enrolled, build_roster, check_address, check_member, publish
from datasites.node.credentials.tls import ascii_host, ends_soon, ensure_authority
from datasites.node.files import write_atomically
from datasites.node.home import Home, Role
from datasites.node.joining.certificates import answer_request, requested_names
from datasites.node.joining.codes import Code
from datasites.node.joining.documents import (
    ANSWER,
    EDITION,
    INVITATION,
    MOST_BYTES,
    Answer,
    Edition,
    Invitation,
    check_time,
    read_invitation,
    read_signed,
)
from datasites.node.joining.entering import EDITION_FILE, FOLDER
from datasites.node.roster import Roster
from datasites.study.proposal import Party
from datasites.study.signing import Signed, dump, open_sealed, seal
from privacy.canonical import plain_json, sha256_hex
from privacy.errors import InvalidInput, Refused, TesseraError
from privacy.identity import check_public_key, fingerprint

_NUMBER = re.compile(r"[0-9a-f]{32}")
_log = logging.getLogger(__name__)
_INVITATION, _ANSWER, _CERTIFICATE = "invitation.json", "answer.json", "portal.pem"
_CA_BYTES = 1 << 20
ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Member:
    """Somebody to be invited."""

    role: Role
    name: str
    institution: str


@dataclass(frozen=True, kw_only=True)
class Issued:
    """An invitation as it is handed out, and its code."""

    invitation: Invitation
    data: bytes
    code: Code


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far one invitation has come: ``party`` is who answered, ``names`` what its certificate is asked for."""

    invitation: Invitation
    party: Party | None
    names: tuple[str, ...] = ()
    admitted: bool = False
    problem: str = ""

    @property
    def fingerprint(self) -> str:
        """The key's fingerprint, to be compared by telephone; empty before there is an answer."""
        return fingerprint(self.party.public_key) if self.party else ""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The operator's side of joining, on the orchestrator's folder."""

    home: Home

    def invite(
        self,
        members: Sequence[Member],
        *,
        days: float,
        now: dt.datetime,
        schema: Mapping[str, Any] | None = None,
        ca: Path | None = None,
    ) -> list[Issued]:
        """Make invitations; whoever was invited before and has not answered gets a new one in its place.

        Args:
            members: whom.
            days: how long they are good.
            now: the present time, with zone.
            schema: of the consortium's studies.
            ca: who vouches for the orchestrator's server; by default its own authority, if it has one.

        Raises:
            InvalidInput: a name that no roster takes or that somebody has, or an orchestrator without an address.
        """
        config = self.home.config()
        if config.role != "orchestrator":
            raise InvalidInput(f"expected the orchestrator's folder, got that of a {config.role}; invite from there")
        url = check_address(config.public_url or config.orchestrator_url or self._listens())
        if len({member.name for member in members}) < len(members):
            raise InvalidInput("expected every name once among the invited parties")
        present, roster = {one.invitation.name: one for one in self.standings()}, self.roster()
        taken = {party.name for party in roster.known} if roster else {self.home.config().name}
        for member in members:
            check_member(member.role, member.name, member.institution)
            answered = member.name in present and present[member.name].party is not None
            if member.name in taken or answered:
                raise InvalidInput(
                    f"expected a new name, but {member.name!r} is in the consortium or has answered already"
                )
        issued = []
        for member in members:
            if member.name in present:
                shutil.rmtree(self._place(present[member.name].invitation.number))
            invitation = Invitation(
                number=secrets.token_hex(16),
                role=member.role,
                name=member.name,
                institution=member.institution,
                orchestrator_url=url,
                orchestrator=self.home.party(),
                made=now.isoformat(timespec="seconds"),
                expires=(now + dt.timedelta(days=days)).isoformat(timespec="seconds"),
                ca=self._ca(ca),
                study_schema=schema,
                roster=roster,
            )
            issued.append(self._issue(invitation))
        return issued

    def _issue(self, invitation: Invitation) -> Issued:
        data = plain_json(dump(seal(self.home.identity(), INVITATION, invitation)))
        if len(data) > MOST_BYTES:
            raise InvalidInput(
                f"expected an invitation of at most {MOST_BYTES} bytes, got {len(data)}; shorten the schema"
            )
        write_atomically(self._place(invitation.number) / _INVITATION, data)
        address = f"{invitation.orchestrator_url.rstrip('/')}/invitations/{invitation.number}"
        return Issued(invitation=invitation, data=data, code=Code(address=address, sha256=sha256_hex(data)))

    def _listens(self) -> str:
        config = self.home.config()
        return f"http{'s' * bool(config.tls_certificate)}://{config.host}:{config.port}"

    def _ca(self, given: Path | None) -> str:
        own = self.home.folder / "tls" / "ca.pem"
        path = given or (own if own.exists() else None)
        if path is None:
            return ""
        try:
            with path.open("rb") as file:
                return file.read(_CA_BYTES).decode("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"expected a certificate (PEM) at {path}") from error

    # what the process answers --------------------------------------------------------------------------------------

    def invitation(self, number: str) -> bytes:
        """Return the bytes of an invitation, for whoever has its code.

        Raises:
            Refused: there is none with this number.
        """
        path = self._known(number) / _INVITATION
        return path.read_bytes()

    def take(self, number: str, signed: Signed, *, now: dt.datetime) -> dict[str, Any]:
        """Keep the first answer to an invitation, and say whether its party is admitted.

        Raises:
            Refused: no such invitation, an expired one, or one that another key has answered.
            InvalidInput, Tampered: an answer that does not fit, or does not hold.
        """
        place = self._known(number)
        _, invitation = read_invitation((place / _INVITATION).read_bytes())
        party = _answered(invitation, signed)
        kept = place / _ANSWER
        if not kept.exists():
            check_time(invitation, now)
            with contextlib.suppress(Refused):  # another answer came first
                publish(place, _ANSWER, plain_json(dump(signed)))
        first = read_signed(kept).public_key
        if first != signed.public_key:
            raise Refused(
                f"the invitation for {invitation.name} was used already, by the key {fingerprint(first)}; "
                "if that is not yours, tell the consortium's operator, who invites you again"
            )
        if not self._is_in_roster(party):
            return {"state": "waiting"}
        return {
            "state": "admitted",
            "roster": dump(read_signed(self.home.folder / EDITION_FILE)),
            "certificate": self._lasting(Standing(invitation=invitation, party=party), now),
        }

    # what the operator decides -------------------------------------------------------------------------------------

    def standings(self) -> list[Standing]:
        """Return every invitation, the oldest first."""
        return sorted(self._standings(), key=lambda one: (one.invitation.made, one.invitation.name))

    def admit(self, names: Collection[str], *, without: Collection[str] = (), now: dt.datetime) -> Edition:
        """Put parties that have answered into the roster, take others out, and sign the new edition.

        Raises:
            InvalidInput: nobody of this name has answered, or no roster can be made of them.
        """
        answered = {one.invitation.name: one for one in self.standings() if one.party is not None}
        missing = [name for name in names if name not in answered]
        if missing:
            raise InvalidInput(f"expected somebody who has answered an invitation, got {', '.join(missing)}")
        chosen = [answered[name] for name in names]
        roster = self._roster_with(chosen, set(without))
        certificates = {one.invitation.number: self._certificate(one) for one in chosen}
        for number, text in certificates.items():
            if text:
                write_atomically(self._place(number) / _CERTIFICATE, text.encode(), mode=0o644)
        return self.sign(roster, now=now)

    def sign(self, roster: Roster, *, now: dt.datetime) -> Edition:
        """Sign a roster as the next edition and put it in force here."""
        path = self.home.folder / EDITION_FILE
        before = None
        if path.exists():
            before = open_sealed(read_signed(path), EDITION, self.home.orchestrator_keys(), Edition)
        edition = Edition(
            serial=before.serial + 1 if before else 1,
            previous=before.digest if before else "",
            made=now.isoformat(timespec="seconds"),
            roster=roster,
            handovers=self.home.handovers(),
        )
        write_atomically(path, plain_json(dump(seal(self.home.identity(), EDITION, edition))))
        roster.save(self.home.folder / "roster.json")
        return edition

    def roster(self) -> Roster | None:
        """Return the present roster, or None before there is one."""
        return self.home.roster() if (self.home.folder / "roster.json").exists() else None

    def _roster_with(self, chosen: Sequence[Standing], without: set[str]) -> Roster:
        there = self.roster()
        if there is None:
            present = [Enrolled(role="orchestrator", party=self.home.party())]
        else:
            present = [
                Enrolled(role="orchestrator", party=there.orchestrator),
                Enrolled(role="keyholder", party=there.keyholder),
                *(Enrolled(role="helper", party=p) for p in there.helpers),
                *(Enrolled(role="datasite", party=p) for p in there.sites),
                *(Enrolled(role="scientist", party=p) for p in there.scientists),
            ]
        strangers = without - {one.party.name for one in present}
        if strangers:
            raise InvalidInput(f"nobody called {', '.join(sorted(strangers))} is in the roster")
        new = [Enrolled(role=one.invitation.role, party=one.party) for one in chosen if one.party]
        known = {one.party.public_key for one in present}
        kept = [one for one in present if one.party.name not in without]
        return build_roster([*kept, *(one for one in new if one.party.public_key not in known)])

    def _is_in_roster(self, party: Party) -> bool:
        """Return whether a party is in the roster, under this key or one that this key has handed over to."""
        roster = self.roster()
        if roster is None or party in roster.everybody:
            return roster is not None
        known = [one for one in roster.everybody if (one.name, one.institution) == (party.name, party.institution)]
        return bool(known) and party.public_key in self.home.keys_of(party.name)

    def _lasting(self, standing: Standing, now: dt.datetime) -> str:
        """Return the certificate of a portal, made again of the same request where it ends soon; empty without one."""
        path = self._place(standing.invitation.number) / _CERTIFICATE
        if not path.exists():
            return ""
        if ends_soon(path, now):
            try:
                made = self._certificate(standing)
            except TesseraError as error:  # the party says it when it ends; it is no reason not to admit it
                _log.warning("the certificate of %s was not renewed: %s", standing.invitation.name, error)
            else:
                if made:
                    write_atomically(path, made.encode(), mode=0o644)
        return path.read_text(encoding="ascii")

    def _certificate(self, standing: Standing) -> str:
        place = self._place(standing.invitation.number)
        answer = open_sealed(
            read_signed(place / _ANSWER), ANSWER, standing.party.public_key if standing.party else "", Answer
        )
        folder = self.home.folder / "tls"
        if not answer.certificate_request or not (folder / "authority.pem").exists():
            return ""
        ours = [ascii_host(str(urlsplit(standing.invitation.orchestrator_url).hostname))]
        authority = ensure_authority(folder, name=self.home.config().name)
        return answer_request(authority, answer.certificate_request, ours=ours)

    def _standings(self) -> Iterator[Standing]:
        roster = self.roster()
        members = roster.everybody if roster else ()
        for place in (self.home.folder / FOLDER).glob("*"):
            if not _NUMBER.fullmatch(place.name) or not (place / _INVITATION).exists():
                continue
            _, invitation = read_invitation((place / _INVITATION).read_bytes())
            if not (place / _ANSWER).exists():
                yield Standing(invitation=invitation, party=None)
                continue
            signed = read_signed(place / _ANSWER)
            party = _answered(invitation, signed)
            request = open_sealed(signed, ANSWER, signed.public_key, Answer).certificate_request
            try:
                names, problem = requested_names(request) if request else (), ""
            except TesseraError as error:
                names, problem = (), str(error)
            yield Standing(invitation=invitation, party=party, names=names, admitted=party in members, problem=problem)

    def _place(self, number: str) -> Path:
        return self.home.folder / FOLDER / number

    def _known(self, number: str) -> Path:
        place = self._place(number)
        if not _NUMBER.fullmatch(number) or not (place / _INVITATION).exists():
            raise Refused("there is no such invitation here (any more); ask the consortium's operator for another")
        return place


def _answered(invitation: Invitation, signed: Signed) -> Party:
    """Return the party that an answer makes, after checking that it answers this invitation."""
    check_public_key(signed.public_key)
    answer = open_sealed(signed, ANSWER, signed.public_key, Answer)
    expected = (invitation.number, invitation.role, invitation.name, invitation.institution)
    if (answer.number, answer.role, answer.name, answer.institution) != expected:
        raise InvalidInput("expected an answer to this invitation, got one to another")
    return Party(name=answer.name, institution=answer.institution, public_key=signed.public_key)
