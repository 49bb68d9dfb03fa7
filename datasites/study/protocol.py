"""The version of what Tessera's parties say to one another, and which versions understand one another.

Every request and every answer names it in the header ``Tessera-Protocol``. Parties talk while their versions are at
most one minor version apart, so that a consortium is upgraded one party after another and never on one day. A party
that names none is of the time before versions: it speaks 1.0.

    >>> understands("1.1", "1.2"), understands("1.1", "1.3"), understands("1.1", "2.0")
    (True, False, False)
"""

from __future__ import annotations

import re
from typing import Final

from privacy.errors import InvalidInput, OtherProtocol
from privacy.sentences import say

PROTOCOL = "1.1"
"""What this installation speaks. A change that the version before does not understand raises the minor version."""
UNSAID = "1.0"
PROPOSALS: Final = 3
"""The newest version of a proposal (its ``protocol``) that this installation understands."""
UNSAID_PROPOSALS = 2
"""What a party understands that does not say; so it was when parties began to say it."""
PROTOCOL_HEADER = "Tessera-Protocol"
PROPOSALS_HEADER = "Tessera-Proposals"
RELEASE_HEADER = "Tessera-Release"
DATA_HEADER = "Tessera-Data-Software"
"""The hash of the part of a hospital's software that touches data (:mod:`datasites.review.environment`)."""

_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})(?:[.+-][0-9A-Za-z.+-]{1,40})?", re.ASCII)
MOST_CHARACTERS = 60


def major_minor(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version such as ``1.4`` or ``0.3.1``.

    Raises:
        InvalidInput: it is none.
    """
    found = _VERSION.fullmatch(version)
    if found is None:
        raise InvalidInput("expected a version such as 1.4 or 0.3.1")
    return int(found[1]), int(found[2])


def understands(one: str, other: str) -> bool:
    """Return whether two versions have the same major number and minor numbers at most one apart.

    What is no version is understood by nobody: a proposal names one, and a stranger may have written it.
    """
    try:
        (major, minor), (other_major, other_minor) = major_minor(one), major_minor(other)
    except InvalidInput:
        return False
    return major == other_major and abs(minor - other_minor) <= 1


def check_protocol(said: str | None, speaker: str, own: str = PROTOCOL) -> str:
    """Check that the other side's protocol is understood here, and return it.

    Args:
        said: what the other side named; None is :data:`UNSAID`.
        speaker: who it is, as in "the orchestrator".
        own: what is spoken here.

    Raises:
        OtherProtocol: both versions and who has to upgrade.
        InvalidInput: no version.
    """
    other = UNSAID if said is None else said
    if understands(own, other):
        return other
    older = speaker if major_minor(other) < major_minor(own) else say("this side")
    raise OtherProtocol(
        say(
            "{speaker} speaks version {other} of Tessera's protocol, version {own} is spoken here, and parties "
            "understand one another over one minor version only: upgrade {older} to a release in between first "
            "(`tessera upgrade --check` says what will happen)",
            speaker=speaker,
            other=other,
            own=own,
            older=older,
        )
    )
