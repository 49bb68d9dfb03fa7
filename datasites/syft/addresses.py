"""PySyft knows people by email; we know institutions by name. ``north`` is ``north@tessera.invalid``."""

from __future__ import annotations

from datasites.letters import check_participant
from privacy.errors import InvalidInput

_DOMAIN = "@tessera.invalid"  # a reserved name (RFC 2606): no mail will ever go there


def address(participant: str) -> str:
    """Return the address PySyft shall know ``participant`` by."""
    return check_participant(participant) + _DOMAIN


def participant(email: str) -> str:
    """Return whose address this is.

    Raises:
        InvalidInput: not an address of ours.
    """
    if not email.endswith(_DOMAIN):
        raise InvalidInput(f"expected an address that ends in {_DOMAIN}, got {email[:80]!r}")
    return check_participant(email[: -len(_DOMAIN)])
