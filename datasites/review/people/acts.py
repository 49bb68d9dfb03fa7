"""What people do about accounts and keys of others, and whether one person is enough for it.

The policy says how many different people must want the same (``people.required_people``): one proposes, another
confirms. Where it is more than one, no new account that nobody has confirmed takes part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from datasites.review.people.asked import AskedActs
from datasites.review.people.rows import Account
from privacy.errors import Refused
from privacy.ledger.journal import Journal
from privacy.sentences import say

PersonActKind = Literal["invite", "fingerprint", "close-account", "roster"]


@dataclass(frozen=True, kw_only=True)
class PersonAct:
    """One act: ``invite`` as a role (``target``), confirm the ``fingerprint`` of a key, ``close-account``.

    ``name`` and ``institution`` say whose key it is. An act ``roster`` puts a changed roster in force: ``target`` is
    its hash, ``name`` says who joins and who leaves.
    """

    kind: PersonActKind
    target: str
    name: str = ""
    institution: str = ""

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> PersonAct:
        """Return the act of an entry of the journal."""
        return cls(kind=body["kind"], target=body["target"], name=body["name"], institution=body["institution"])


def people_acts(journal: Journal) -> AskedActs[PersonAct]:
    """Return the acts of one datasite that wait for a second person."""
    return AskedActs(journal, name="people-act", read=PersonAct.read)


def check_takes_part(act: PersonAct, person: Account) -> None:
    """Check that a person may propose, confirm or decline an act.

    Raises:
        Refused: an auditor, or somebody whose own account is to be closed.
    """
    if not person.decides:
        raise Refused(say("an auditor reads and never decides; a steward or privacy officer has to"))
    if act.kind == "close-account" and act.target == person.name:
        raise Refused(say("others decide about closing your account"))


def check_proposes(act: PersonAct, person: Account) -> None:
    """Check that a person may be the first to want an act: only stewards invite and close.

    Raises:
        Refused: another role.
    """
    if act.kind == "invite" and person.role != "steward":
        raise Refused(say("only a steward invites people"))
    if act.kind == "close-account" and (person.role != "steward" or person.name == act.target):
        raise Refused(say("only a steward closes accounts, and another steward closes theirs"))


def check_enough(needed: int, person: Account, everybody: Iterable[Account]) -> None:
    """Check that a person counts where two are needed, and that there are enough who do.

    Raises:
        Refused: a new account that nobody has confirmed, or too few others.
    """
    if needed < 2:
        return
    if person.fresh:
        raise Refused(
            say("the policy wants several people for this, and a new account counts once somebody confirmed it")
        )
    counting = [one for one in everybody if one.decides and not one.fresh]
    if len(counting) < needed:
        raise Refused(
            say(
                "the policy wants {needed} people for this, and {counting} count here: confirm new accounts on the "
                "People page, or invite with `tessera datasite invite` on the datasite's machine",
                needed=needed,
                counting=len(counting),
            )
        )
