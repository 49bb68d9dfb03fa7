"""Security keys (WebAuthn, Level 2) as a second factor beside the password, by the library ``webauthn``.

A key belongs to one account and to the name under which people reach the portal (the relying party). Every answer of a
key is checked: that it answers the challenge given here, was asked for by this portal's own pages (origin), is for its
name, comes from a key of this very person, that the person was there and identified (PIN, finger, face), that the
signature holds, and that the key's counter went up, where it has one.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from datasites.review.people.rows import Account, Rows, hashed
from datasites.study.text import check_line
from privacy.errors import InvalidInput, Refused
from privacy.sentences import say

KEYS_OF_ONE = 8
LONGEST_ANSWER = 16_384
_LONGEST_LABEL = 80
_KEY_LENGTH = 16
_COLUMNS = "id, label, party, created, used, public_key, counter"


@dataclass(frozen=True, kw_only=True)
class RelyingParty:
    """Whom keys are registered for: the portal's name (``hospital.example``) and its origin (``https://...``)."""

    name: str
    origin: str
    title: str


@dataclass(frozen=True, kw_only=True)
class SecurityKey:
    """One registered key: ``key`` names it in pages and journal, ``party`` is the name it was registered for."""

    key: str
    label: str
    party: str
    created: str
    used: str


class SecurityKeys:
    """The security keys of all accounts."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def of(self, name: str) -> tuple[SecurityKey, ...]:
        """Return an account's keys, the oldest first."""
        return tuple(
            SecurityKey(key=hashed(row[0])[:_KEY_LENGTH], label=row[1], party=row[2], created=row[3], used=row[4])
            for row in self._of(name)
        )

    def registration(self, account: Account, party: RelyingParty, challenge: bytes) -> dict[str, Any]:
        """Return what a browser needs to make a key for an account (``PublicKeyCredentialCreationOptions``)."""
        import webauthn
        from webauthn.helpers import structs

        options = webauthn.generate_registration_options(
            rp_id=party.name,
            rp_name=party.title,
            user_id=bytes.fromhex(account.public_key),
            user_name=account.name,
            user_display_name=account.full_name or account.name,
            challenge=challenge,
            exclude_credentials=self._allowed(account.name, party),
            authenticator_selection=structs.AuthenticatorSelectionCriteria(
                resident_key=structs.ResidentKeyRequirement.DISCOURAGED,
                user_verification=structs.UserVerificationRequirement.REQUIRED,
            ),
        )
        return dict(json.loads(webauthn.options_to_json(options)))

    def register(
        self, account: Account, answer: str, *, party: RelyingParty, challenge: bytes, label: str, now: dt.datetime
    ) -> SecurityKey:
        """Keep the key that a browser made for an account.

        Raises:
            InvalidInput: no label, or too many keys.
            Refused: the answer does not fit the challenge, the origin or the portal's name, or the key is known.
        """
        import webauthn

        label = check_line(" ".join(label.split())[:_LONGEST_LABEL], "a name for the security key")
        if len(self.of(account.name)) >= KEYS_OF_ONE:
            raise InvalidInput(
                say("expected at most {most} security keys for one account; remove one first", most=KEYS_OF_ONE)
            )
        try:
            made = webauthn.verify_registration_response(
                credential=_plain(answer),
                expected_challenge=challenge,
                expected_rp_id=party.name,
                expected_origin=party.origin,
                require_user_verification=True,
            )
        except Exception as error:  # whatever the library makes of malformed input
            raise Refused(say("the security key was not registered: {reason}", reason=_reason(error))) from error
        key_id, at = made.credential_id.hex(), now.isoformat()
        values = (key_id, account.name, made.credential_public_key, made.sign_count, label, party.name, at, "")
        if not self._rows.run("INSERT OR IGNORE INTO security_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values):
            raise Refused(say("this security key is registered here already"))
        return next(found for found in self.of(account.name) if found.key == hashed(key_id)[:_KEY_LENGTH])

    def question(self, account: Account, party: RelyingParty, challenge: bytes) -> dict[str, Any]:
        """Return what a browser needs to ask one of the account's keys (``PublicKeyCredentialRequestOptions``).

        Raises:
            Refused: none of the keys was registered for this name of the portal.
        """
        import webauthn
        from webauthn.helpers import structs

        allowed = self._allowed(account.name, party)
        if not allowed:
            names = ", ".join(sorted({key.party for key in self.of(account.name)})) or say("no address")
            raise Refused(
                say(
                    "your security key was registered for {names}; open the portal there, not as {name}",
                    names=names,
                    name=party.name,
                )
            )
        options = webauthn.generate_authentication_options(
            rp_id=party.name,
            challenge=challenge,
            allow_credentials=allowed,
            user_verification=structs.UserVerificationRequirement.REQUIRED,
        )
        return dict(json.loads(webauthn.options_to_json(options)))

    def verify(
        self, account: Account, answer: str, *, party: RelyingParty, challenge: bytes, now: dt.datetime
    ) -> SecurityKey:
        """Check the answer of one of the account's keys, and note its counter.

        Raises:
            Refused: another person's key, another challenge, origin or name, nobody identified at the key, a signature
                that does not hold, or a counter that did not go up (a copy of the key, or a repeated answer).
        """
        import webauthn
        from webauthn.helpers import parse_authentication_credential_json

        try:
            credential = parse_authentication_credential_json(_plain(answer))
            row = next((row for row in self._of(account.name) if row[0] == credential.raw_id.hex()), None)
            if row is None:
                raise Refused(say("this security key is not one of yours here"))
            made = webauthn.verify_authentication_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=party.name,
                expected_origin=party.origin,
                credential_public_key=row[5],
                credential_current_sign_count=row[6],
                require_user_verification=True,
            )
        except Refused:
            raise
        except Exception as error:  # whatever the library makes of malformed input
            raise Refused(
                say("the answer of the security key does not count: {reason}", reason=_reason(error))
            ) from error
        values = (made.new_sign_count, now.isoformat(), row[0], row[6])
        if not self._rows.run("UPDATE security_keys SET counter = ?, used = ? WHERE id = ? AND counter = ?", *values):
            raise Refused(say("the security key was used at the same moment; try again"))
        return next(found for found in self.of(account.name) if found.key == hashed(row[0])[:_KEY_LENGTH])

    def remove(self, name: str, key: str) -> None:
        """Forget one key of an account.

        Raises:
            InvalidInput: the account has none of this name.
        """
        for row in self._of(name):
            if hashed(row[0])[:_KEY_LENGTH] == key:
                self._rows.run("DELETE FROM security_keys WHERE id = ?", row[0])
                return
        raise InvalidInput(say("there is no such security key of yours; it may be removed already"))

    def remove_all(self, name: str) -> int:
        """Forget every key of an account, such as after its loss; return how many there were."""
        return self._rows.run("DELETE FROM security_keys WHERE account = ?", name)

    def _of(self, name: str) -> list[tuple[Any, ...]]:
        return self._rows.all(f"SELECT {_COLUMNS} FROM security_keys WHERE account = ? ORDER BY created", name)  # noqa: S608

    def _allowed(self, name: str, party: RelyingParty) -> list[Any]:
        from webauthn.helpers.structs import PublicKeyCredentialDescriptor

        known = (row[0] for row in self._of(name) if row[2] == party.name)
        return [PublicKeyCredentialDescriptor(id=bytes.fromhex(key_id)) for key_id in known]


def _plain(answer: str) -> str:
    if not answer or len(answer) > LONGEST_ANSWER:
        raise Refused(say("expected the answer of a security key as the browser gives it"))
    return answer


def _reason(error: Exception) -> str:
    """Return the library's own sentence, which repeats nothing secret, or a plain one."""
    from webauthn.helpers.exceptions import WebAuthnException

    if isinstance(error, (WebAuthnException, Refused)):
        return str(error)[:200]
    return say("it is malformed")
