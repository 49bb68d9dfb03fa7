"""Acts that wait until enough people have asked for the same; the journal is the only record of them.

Somebody proposes an act, others confirm it by asking for the same in their own name. What nobody confirms within a
week has expired; anybody who decides may say no before. Each step is an entry of the journal.

    >>> asked = AskedActs(journal, name="people-act", read=PeopleAct.read)
    >>> asked.add(act, person=anna, reason="she leaves in May", now=now).people
    ('anna',)
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from datasites.language import mark
from datasites.review.people.rows import Account
from privacy.canonical import canonical_hash
from privacy.errors import InvalidInput, Refused
from privacy.ledger.journal import Journal
from privacy.sentences import say

WAITS = dt.timedelta(days=7)
LONGEST_REASON = 1000
_KEY_LENGTH = 16


class _Act(Protocol):
    """A frozen value of plain fields; equal acts are the same act."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


A = TypeVar("A", bound=_Act)


@dataclass(frozen=True, kw_only=True)
class Asked(Generic[A]):
    """An act that waits for more people: who asked, with which reasons, since when and until when.

    ``people`` are names of accounts, ``signatures`` the same people with full name and function.
    """

    act: A
    people: tuple[str, ...]
    reasons: tuple[str, ...]
    since: str
    signatures: tuple[str, ...] = ()
    until: str = ""

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name the act in addresses and forms."""
        return key_of(self.act)


def key_of(act: _Act) -> str:
    """Return the name of an act in addresses and forms: 16 hexadecimal digits of its hash."""
    return canonical_hash({"act": type(act).__name__, **asdict(act)})[:_KEY_LENGTH]


class AskedActs(Generic[A]):
    """The acts of one kind at one datasite.

    Args:
        journal: gets ``NAME-asked``, ``NAME-done`` and ``NAME-dropped``.
        name: the kind.
        read: makes the act from the body of an entry.
    """

    def __init__(self, journal: Journal, *, name: str, read: Callable[[Mapping[str, Any]], A]) -> None:
        self._journal, self._read = journal, read
        self._asked, self._done, self._dropped = (f"{name}-{what}" for what in ("asked", "done", "dropped"))
        self._lock = threading.RLock()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one thread at a time ask and act, so that two who ask at once are two."""
        with self._lock:
            yield

    def add(self, act: A, *, person: Account, reason: str, now: dt.datetime) -> Asked[A]:
        """Write down that a person asks for an act; return it with everybody who asked.

        Raises:
            InvalidInput: no reason.
            Refused: an auditor, or somebody who asked already.
        """
        reason = _wanted(person, reason)
        with self._lock:
            before = self.find(act, now=now)
            if before is not None and person.name in before.people:
                raise Refused(say("{name} asked for this already; another person has to", name=person.name))
            body = {**asdict(act), "by": person.name, "reason": reason, **person.signed}
            at = self._journal.append(self._asked, body).at
            return Asked(
                act=act,
                people=(*(before.people if before else ()), person.name),
                signatures=(*(before.signatures if before else ()), person.signature),
                reasons=tuple(dict.fromkeys((*(before.reasons if before else ()), reason))),
                since=before.since if before else at,
            )

    def done(self, asked: Asked[A], what: str) -> None:
        """Write down that an act was done, and what it did."""
        more = {} if asked.signatures == asked.people else {"titled": list(asked.signatures)}
        self._journal.append(self._done, {**asdict(asked.act), "by": list(asked.people), "what": what, **more})

    def drop(self, act: A, *, by: str, reason: str, titled: str = "") -> None:
        """Write down that an act waits no more: somebody said no, it failed, or nobody confirmed it."""
        more = {"titled": titled} if titled else {}
        self._journal.append(self._dropped, {**asdict(act), "by": by, "reason": reason, **more})

    def decline(self, key: str, *, person: Account, reason: str, now: dt.datetime) -> A:
        """Say no to an act that waits, or take one's own back; return it.

        Raises:
            InvalidInput: no such act waits, or no reason.
            Refused: an auditor.
        """
        reason = _wanted(person, reason)
        with self._lock:
            found = self.named(key, now=now)
            self.drop(found.act, by=person.name, reason=reason, titled=person.title)
        return found.act

    def named(self, key: str, *, now: dt.datetime) -> Asked[A]:
        """Return the act that waits under a key.

        Raises:
            InvalidInput: there is none: it was done, dropped or has expired.
        """
        for asked in self.waiting(now=now):
            if asked.key == key:
                return asked
        raise InvalidInput(say("this waits no more: it was done, somebody said no, or its week is over"))

    def find(self, act: A, *, now: dt.datetime) -> Asked[A] | None:
        """Return an act if it waits."""
        return next((asked for asked in self.waiting(now=now) if asked.act == act), None)

    def waiting(self, *, now: dt.datetime) -> tuple[Asked[A], ...]:
        """Return the acts that wait for more people, the oldest first."""
        found = []
        for act, entries in self._open().items():
            young = [body for body in entries if now - _time(body["at"]) <= WAITS]
            if young:
                found.append(_asked(act, young))
        return tuple(found)

    def expire(self, *, now: dt.datetime) -> int:
        """Write down which acts nobody confirmed within a week; return how many."""
        with self._lock:
            old = [act for act, entries in self._open().items() if all(now - _time(b["at"]) > WAITS for b in entries)]
            for act in old:
                self.drop(act, by="datasite", reason=mark("nobody confirmed it within a week"))
        return len(old)

    def _open(self) -> dict[A, list[dict[str, Any]]]:
        kinds = (self._asked, self._done, self._dropped)
        entries = sorted((e for kind in kinds for e in self._journal.entries(kind=kind)), key=lambda e: e.index)
        found: dict[A, list[dict[str, Any]]] = {}
        for entry in entries:
            act = self._read(entry.body)
            if entry.kind == self._asked:
                found.setdefault(act, []).append({**entry.body, "at": entry.at})
            else:
                found.pop(act, None)
        return found


def checked_reason(reason: str) -> str:
    """Return a reason without spaces around it.

    Raises:
        InvalidInput: too short or too long.
    """
    reason = reason.strip()
    if not 3 <= len(reason) <= LONGEST_REASON:
        raise InvalidInput(
            say(
                "expected a reason of 3 to {longest} characters, got {count}",
                longest=LONGEST_REASON,
                count=len(reason),
            )
        )
    return reason


def _wanted(person: Account, reason: str) -> str:
    """Return the reason of somebody who may want an act, or say no to one."""
    reason = checked_reason(reason)
    if not person.decides:
        raise Refused(say("an auditor reads and never decides; a steward or privacy officer has to"))
    return reason


def _asked(act: A, entries: list[dict[str, Any]]) -> Asked[A]:
    names = tuple(str(one["by"]) for one in entries)
    titled = (str(one.get("titled", "")) for one in entries)
    return Asked(
        act=act,
        people=names,
        signatures=tuple(f"{name} ({title})" if title else name for name, title in zip(names, titled, strict=True)),
        reasons=tuple(dict.fromkeys(str(one["reason"]) for one in entries)),
        since=str(entries[0]["at"]),
        until=(_time(str(entries[0]["at"])) + WAITS).isoformat(),
    )


def _time(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
