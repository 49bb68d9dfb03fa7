"""What a fresh account may not do: nobody becomes two reviewers by inviting two people.

An account is fresh until a second person, neither its owner nor who invited it, has confirmed it. A fresh account
decides no request that was open before it was made, and of all who sign one proposal at most one is fresh.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from datasites.language import mark
from datasites.review.people.rows import Account
from privacy.errors import Refused
from privacy.sentences import say

BY_COMMAND = mark("command line")
"""Who invited or confirmed an account: whoever runs commands on the datasite's own machine."""


INVITERS = ", "
"""Between the names of several people who invited one account together."""


def check_age(reviewer: Account, received: str) -> None:
    """Check that who decides was here before the request, or was confirmed by a second person.

    Args:
        reviewer: who decides.
        received: when the request arrived, an ISO time.

    Raises:
        Refused: a fresh account and an older request.
    """
    if reviewer.fresh and dt.datetime.fromisoformat(reviewer.created) > dt.datetime.fromisoformat(received):
        raise Refused(
            say(
                "the account {name} is newer than this request: a second person has to "
                "confirm it on the People page first",
                name=reviewer.name,
            )
        )


def check_fresh(reviewer: Account, signed: Iterable[Account]) -> None:
    """Check that no two fresh accounts sign one proposal.

    Raises:
        Refused: another fresh account has signed it.
    """
    others = [person.name for person in signed if person.fresh and person.name != reviewer.name]
    if reviewer.fresh and others:
        raise Refused(
            say(
                "{name} and {other} are both new accounts, which count as one reviewer: a second person has to confirm "
                "one of them on the People page first",
                name=reviewer.name,
                other=others[0],
            )
        )


def check_vouches(person: Account, newcomer: Account) -> None:
    """Check that ``person`` may confirm the account of ``newcomer``.

    Raises:
        Refused: themselves, one whom they invited, a fresh account, or an auditor.
    """
    if not person.decides or person.fresh:
        raise Refused(say("a steward or privacy officer confirms accounts, and not with a new account of their own"))
    if person.name in (newcomer.name, *newcomer.invited_by.split(INVITERS)):
        raise Refused(
            say("a second person has to confirm {name}: neither they nor who invited them", name=newcomer.name)
        )
    if not newcomer.fresh:
        raise Refused(say("the account of {name} was confirmed already", name=newcomer.name))
