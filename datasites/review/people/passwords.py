"""Passwords as people type them: one form for all keyboards (RFC 8265, OpaqueString), and how long they must be."""

from __future__ import annotations

import unicodedata

import precis_i18n

from privacy.errors import InvalidInput
from privacy.sentences import say

MINIMUM_PASSWORD = 12
LONGEST_PASSWORD = 256
_profile = precis_i18n.get_profile("OpaqueString")


def prepared(password: str) -> str:
    """Return a new password in its one form.

    >>> prepared("cafe\\u0301 au lait, s'il vous plait") == "caf\\u00e9 au lait, s'il vous plait"
    True

    Raises:
        InvalidInput: too short, too long, or with a character that no keyboard types, such as a control character.
    """
    try:
        found: str = _profile.enforce(password)
    except UnicodeError as error:
        raise InvalidInput(say("expected letters, digits, signs and spaces in a password")) from error
    if not MINIMUM_PASSWORD <= len(found) <= LONGEST_PASSWORD:
        raise InvalidInput(
            say(
                "expected a password of {least} to {most} characters; a sentence is good",
                least=MINIMUM_PASSWORD,
                most=LONGEST_PASSWORD,
            )
        )
    return found


def candidates(password: str) -> tuple[str, ...]:
    """Return the forms in which a password may have been stored: today's first, then as earlier versions took it.

    Almost always there is one: the forms differ only for letters that Unicode writes in two ways.
    """
    try:
        forms = [_profile.enforce(password)]
    except UnicodeError:
        forms = []
    forms += [password, unicodedata.normalize("NFC", password), unicodedata.normalize("NFD", password)]
    return tuple(dict.fromkeys(forms))
