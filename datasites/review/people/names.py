"""What people are called: the name to sign in with, and full name and function, which stand in what they sign."""

from __future__ import annotations

import re
import unicodedata

from datasites.study.text import check_line
from privacy.errors import InvalidInput
from privacy.sentences import say

LONGEST_TITLE = 120


def check_account_name(name: str) -> None:
    """Check the name of a new account.

    Raises:
        InvalidInput: not a plain name.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
        raise InvalidInput(say("expected a name of 1 to 63 lower-case letters, digits, dots, dashes or underscores"))


def title_of(text: str) -> str:
    """Return a full name or a function in any script, in one form (NFC), or an empty text.

    >>> title_of("  Dr.   Zoe\\u0308 Mu\\u0308ller ") == "Dr. Zo\\u00eb M\\u00fcller"
    True

    Raises:
        InvalidInput: too long, or with a character that is not seen.
    """
    found = unicodedata.normalize("NFC", " ".join(text.split()))
    if len(found) > LONGEST_TITLE:
        raise InvalidInput(
            say(
                "expected a full name and a function of at most {longest} characters each",
                longest=LONGEST_TITLE,
            )
        )
    return check_line(found, "a full name or function") if found else ""
