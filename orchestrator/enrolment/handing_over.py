"""Hand-overs of keys at the orchestrator: taken from the parties, admitted by its operator, in the next edition.

::

    handovers/OLD-KEY.json    the first hand-over of a key that arrived; never replaced, so a stolen key gets no second
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from datasites.node.consortium import publish
from datasites.node.home import Home
from datasites.node.joining.documents import Edition, read_signed
from datasites.node.joining.rotating import PENDING, with_key
from datasites.node.keys.handover import HandOver, line, open_handover, require_new
from datasites.node.roster import Roster
from datasites.study.signing import Signed, dump
from orchestrator.enrolment.desk import Desk
from privacy.canonical import plain_json
from privacy.errors import InvalidInput, Refused
from privacy.identity import fingerprint

_FOLDER = "handovers"


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A hand-over that waits for the operator."""

    signed: Signed
    handover: HandOver

    @property
    def line(self) -> str:
        """Whose key becomes which, for the operator who compares fingerprints."""
        old, new = fingerprint(self.handover.old_key), fingerprint(self.handover.new_key)
        return f"{self.handover.name}: hands over from the key {old} to fingerprint {new}"


@dataclass(frozen=True)
class HandOvers:
    """The hand-overs in one orchestrator's folder."""

    home: Home

    def take(self, signed: Signed) -> dict[str, str]:
        """Keep a hand-over, and say whether it is admitted.

        Raises:
            Refused: nobody here has the old key, it handed over before, or the new key is or was somebody's.
            InvalidInput, Tampered: no hand-over that holds.
        """
        offered, there, roster = open_handover(signed), line(self.home.handovers()), self.home.roster()
        require_new(there, (party.public_key for party in roster.known), offered)
        if offered.old_key in there:
            return {"state": "admitted"}
        party = roster.known_by_key(offered.old_key)
        if party is None or party.name != offered.name or party == roster.orchestrator:
            raise Refused("nobody of this name has the key that hands over; ask the consortium's operator")
        folder = self.home.folder / _FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        name = f"{offered.old_key}.json"
        try:
            publish(folder, name, plain_json(dump(signed)))
        except Refused as error:
            first = open_handover(read_signed(folder / name))
            if first.new_key != offered.new_key:
                raise Refused(
                    f"the key of {offered.name} hands over to another one already ({fingerprint(first.new_key)}): one "
                    "of the two was made with a stolen key; call the consortium's operator"
                ) from error
        return {"state": "waiting"}

    def waiting(self) -> list[Waiting]:
        """Return what the operator has not decided, by name; hand-overs of keys that left the roster are left out."""
        folder = self.home.folder / _FOLDER
        if not folder.exists() or not (self.home.folder / "roster.json").exists():
            return []
        roster = self.home.roster()
        found = [
            Waiting(signed=signed, handover=open_handover(signed)) for signed in map(read_signed, folder.glob("*.json"))
        ]
        return sorted((w for w in found if roster.known_by_key(w.handover.old_key)), key=lambda w: w.handover.name)

    def admit(self, names: Collection[str], *, now: dt.datetime) -> Edition:
        """Put the new keys of these parties into the roster, and sign its next edition.

        Raises:
            InvalidInput: a party that hands no key over.
        """
        there = {w.handover.name: w for w in self.waiting()}
        missing = [name for name in names if name not in there]
        if missing:
            raise InvalidInput(f"expected somebody who hands over a key, got {', '.join(missing)}")
        roster = self.home.roster()
        for name in names:
            roster = with_key(roster, there[name].handover.old_key, there[name].handover.new_key)
        return self._sign(roster, [there[name].signed for name in names], now)

    def admit_own(self, *, now: dt.datetime) -> Edition | None:
        """Sign the edition with this orchestrator's own new key, after :func:`rotate`; None without a new one."""
        path = self.home.folder / PENDING
        if not path.exists() or not (self.home.folder / "roster.json").exists():
            return None
        edition = self._sign(self.home.roster(), [read_signed(path)], now)
        path.unlink()
        return edition

    def own(self) -> list[dict[str, object]]:
        """Return the orchestrator's own hand-overs, by which parties that know an older key learn the new one."""
        name = self.home.roster().orchestrator.name
        return [dump(signed) for signed in self.home.handovers() if signed.payload.get("name") == name]

    def _sign(self, roster: Roster, added: list[Signed], now: dt.datetime) -> Edition:
        before = self.home.handovers()
        known = {signed.public_key for signed in before}
        handovers = (*before, *(signed for signed in added if signed.public_key not in known))
        line(handovers)
        self.home.keep_handovers(handovers)
        return Desk(home=self.home).sign(roster, now=now)
