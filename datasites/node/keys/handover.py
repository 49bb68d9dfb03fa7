"""A key that hands over to the next one: a document that the old key signs, and that the new key vouches for.

Rosters name a party by its key. With a hand-over the party keeps its name, and others see that whoever held the old key
chose the new one. That alone changes nobody's roster: people confirm it, because a stolen key can sign as well.

    >>> signed = hand_over(old, old.successor(), name="hospital-a", now=now)
    >>> follows(line([signed]), "hospital-a", old.public_key, old.successor().public_key)
    True
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from datasites.study.signing import Message, Signed, open_sealed, seal
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity, check_public_key, verify

HANDOVER, TAKEN = "key-handover", "key-handover-taken"
MOST_HANDOVERS = 10_000
"""No consortium keeps more: each is some 700 bytes of every edition of its roster."""


@dataclass(frozen=True, kw_only=True)
class HandOver(Message):
    """``name`` goes on with ``new_key``; ``taken`` is the new key's own signature, so that nobody names a foreign key.

    ``made`` is the party's clock and only shown.
    """

    name: str
    old_key: str
    new_key: str
    made: str
    taken: str


def hand_over(old: Identity, new: Identity, *, name: str, now: dt.datetime) -> Signed:
    """Return the document by which ``old`` names ``new``."""
    made = now.isoformat(timespec="seconds")
    statement = {"name": name, "old_key": old.public_key, "new_key": new.public_key, "made": made}
    return seal(old, HANDOVER, HandOver(**statement, taken=new.sign(TAKEN, statement)))


def open_handover(signed: Signed) -> HandOver:
    """Check both signatures of a hand-over; whether its old key is anybody's is the caller's to know.

    Raises:
        InvalidInput: no hand-over, one to the same key, or a malformed key.
        Tampered: a signature does not hold.
    """
    check_public_key(signed.public_key)
    found = open_sealed(signed, HANDOVER, signed.public_key, HandOver)
    if found.old_key != signed.public_key or found.new_key == found.old_key:
        raise InvalidInput("expected a hand-over from the key that signed it to another one")
    check_public_key(found.new_key)
    statement = {name: value for name, value in asdict(found).items() if name != "taken"}
    verify(found.new_key, TAKEN, statement, found.taken, signed.canonical)
    return found


def line(handovers: Iterable[Signed]) -> Mapping[str, HandOver]:
    """Return checked hand-overs by their old key.

    Raises:
        InvalidInput, Tampered: as :func:`open_handover`; also a key that hands over twice, or that comes back.
    """
    found: dict[str, HandOver] = {}
    taken: set[str] = set()
    for signed in handovers:
        opened = open_handover(signed)
        if opened.old_key in found or opened.new_key in found or opened.new_key in taken:
            raise InvalidInput(f"expected one hand-over a key of {opened.name}, and no key that was one before")
        found[opened.old_key] = opened
        taken.add(opened.new_key)
        if len(found) > MOST_HANDOVERS:
            raise InvalidInput(f"expected at most {MOST_HANDOVERS} hand-overs")
    return found


def follows(handovers: Mapping[str, HandOver], name: str, old: str, new: str) -> bool:
    """Tell whether the key ``old`` of the party ``name`` handed over to ``new``, in one step or several."""
    seen = {old}
    while old != new:
        step = handovers.get(old)
        if step is None or step.name != name or step.new_key in seen:
            return False
        old = step.new_key
        seen.add(old)
    return True


def former_keys(handovers: Mapping[str, HandOver], name: str, key: str) -> frozenset[str]:
    """Return every key from which the party ``name`` came to ``key``, and ``key`` itself."""
    return frozenset({key, *(old for old in handovers if follows(handovers, name, old, key))})


def require_new(handovers: Mapping[str, HandOver], known: Iterable[str], offered: HandOver) -> None:
    """Check that a hand-over names a key that nobody has or had.

    Raises:
        Refused: somebody has it, or the old key handed over before, to another one.
    """
    before = handovers.get(offered.old_key)
    if before is not None and before.new_key != offered.new_key:
        raise Refused(
            f"the key of {offered.name} has handed over to another one before: if that was not {offered.name}, the old "
            "key is stolen; call them"
        )
    used = {*known, *handovers, *(one.new_key for one in handovers.values())}
    if offered.new_key in used and (before is None or before != offered):
        raise Refused("expected a new key, got one that somebody has or had; make another")
