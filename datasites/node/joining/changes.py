"""Changes of the roster at a party: a new edition is offered, shown, and in force once the party's people confirm it.

At a hospital that happens in its portal (or `tessera confirm-roster`); keyholder and helpers have the command alone.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass, replace
from typing import Any

from datasites.language import mark
from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.node.http import Declined, SignedClient
from datasites.node.joining.documents import Edition, open_edition, read_signed
from datasites.node.joining.entering import EDITION_FILE, FOLDER, UNCONFIRMED, is_unconfirmed
from datasites.node.keys.handover import follows, line
from datasites.node.roster import Roster
from datasites.study.proposal import Party
from datasites.study.signing import Signed, dump, parse
from privacy.errors import InvalidInput, Refused

OFFERED = "roster.offered.json"
CALLED = {
    "orchestrator": mark("orchestrator"),
    "keyholder": mark("keyholder"),
    "datasite": mark("hospital"),
    "helper": mark("helper"),
    "scientist": mark("scientist"),
}
"""What people call each role."""
CONFIRMED = "roster-confirmed"


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the offered edition changes: who joins, who leaves, and whose key or institution is another one.

    ``handed`` are those of ``changed`` whose key known here has signed the new one: nobody can confirm the others.
    ``moved`` keep name, key and institution, and would get another part: a scientist that of a hospital, say.
    """

    edition: Edition
    joins: tuple[Party, ...]
    leaves: tuple[Party, ...]
    changed: tuple[Party, ...]
    handed: tuple[Party, ...] = ()
    moved: tuple[Party, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether people can put it in force: who stays keeps institution and part, and a new key is handed over."""
        return not (self.unsigned or self.moved)

    @property
    def unsigned(self) -> tuple[Party, ...]:
        """Who would get another key that the one known here has not signed."""
        return tuple(party for party in self.changed if party not in self.handed)

    def part_of(self, party: Party) -> str:
        """Return what people call the part of somebody in the offered edition."""
        return CALLED[self.edition.roster.role_of(party.name)]

    @property
    def digest(self) -> str:
        """The hash that people confirm."""
        return self.edition.digest

    @property
    def title(self) -> str:
        """Who joins (+), who leaves (-) and what nobody may confirm (!), in one line, and who has a new key."""
        signs = {"+": self.joins, "-": self.leaves, "!": (*self.unsigned, *self.moved)}
        names = [f"{sign}{party.name}" for sign, parties in signs.items() for party in parties]
        return " ".join([*names, *(f"{p.name} (new key)" for p in self.handed)])

    def entry(self, *, by: str) -> dict[str, Any]:
        """Return what the journal says once it is confirmed."""
        return {
            "serial": self.edition.serial,
            "digest": self.digest,
            "joins": [party.name for party in self.joins],
            "leaves": [party.name for party in self.leaves],
            "new_keys": [party.name for party in self.changed],
            "by": by,
        }


def look(home: Home, client: SignedClient) -> None:
    """Ask for the newest edition and keep it where it is newer than the present roster.

    Raises:
        InvalidInput, Tampered: the orchestrator sent no roster that holds; the present one stays.
        TesseraError: it does not answer.
    """
    found = _ask(home, client)
    if found is None:
        return
    signed = parse(Signed, found)
    roster = home.roster()
    edition = open_edition(signed, roster.orchestrator)
    if edition.serial > _serial(home) and edition.roster != roster:
        write_atomically(home.folder / OFFERED, json.dumps(dump(signed)).encode())


def _ask(home: Home, client: SignedClient) -> Any:
    """Return the newest edition; an orchestrator with a new key proves first that ours has handed over to it."""
    try:
        return client.get_json("/roster")
    except Declined:
        found = client.get_json("/handovers")
    known = home.roster().orchestrator
    steps = line(parse(Signed, one) for one in found)
    key = known.public_key
    while key in steps:
        key = steps[key].new_key
    if not follows(steps, known.name, known.public_key, key) or key == known.public_key:
        raise Refused(
            "the orchestrator does not know this party's key, and has no new one of its own; call its operator"
        )
    with client.towards(key) as other:
        return other.get_json("/roster")


def offered(home: Home) -> Change | None:
    """Return the change that waits for this party's people, or None.

    Keyholder and helpers that joined by an invitation confirm their first roster as well: everybody in it joins.
    """
    path, roster = home.folder / OFFERED, home.roster()
    edition = open_edition(read_signed(path), roster.orchestrator) if path.exists() else None
    if edition is not None and (edition.serial <= _serial(home) or edition.roster == roster):
        edition = None
    if not is_unconfirmed(home):
        return None if edition is None else _change(edition, roster)
    edition = edition or open_edition(read_signed(home.folder / EDITION_FILE), roster.orchestrator)
    others = tuple(party for party in edition.roster.known if party != home.party())
    return Change(edition=edition, joins=others, leaves=(), changed=())


def confirm(home: Home, digest: str) -> Change:
    """Put the offered edition in force.

    Raises:
        Refused: none is offered, or another one than people looked at; or it leaves this party out.
        InvalidInput: somebody who stays would get another key, institution or part, or a hand-over of a key contradicts
            one that is known here.
    """
    change = offered(home)
    if change is None or not hmac.compare_digest(change.digest, digest):
        raise Refused("the roster that you looked at is not the one that is offered now; look again")
    if home.party() not in change.edition.roster.everybody:
        raise Refused("the offered roster leaves this party out; ask the consortium's operator why")
    _check_keys(change)
    known = home.handovers()
    handovers = [*known, *(one for one in change.edition.handovers if one not in known)]
    line(handovers)  # else nobody could read them any more
    home.keep_handovers(handovers)
    path = home.folder / OFFERED
    if change.edition.serial > _serial(home):
        write_atomically(home.folder / EDITION_FILE, path.read_bytes())
        change.edition.roster.save(home.folder / "roster.json")
    (home.folder / FOLDER / UNCONFIRMED).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    return change


def _serial(home: Home) -> int:
    path = home.folder / EDITION_FILE
    return open_edition(read_signed(path), home.roster().orchestrator).serial if path.exists() else 0


def _change(edition: Edition, roster: Roster) -> Change:
    before, after = {p.name: p for p in roster.known}, {p.name: p for p in edition.roster.known}
    steps = line(edition.handovers)
    changed = tuple(party for name, party in after.items() if name in before and before[name] != party)

    def signed(party: Party) -> bool:
        known = before[party.name]
        same = replace(known, public_key=party.public_key) == party
        return same and follows(steps, party.name, known.public_key, party.public_key)

    return Change(
        edition=edition,
        joins=tuple(party for name, party in after.items() if name not in before),
        leaves=tuple(party for name, party in before.items() if name not in after),
        changed=changed,
        handed=tuple(party for party in changed if signed(party)),
        moved=tuple(
            party
            for name, party in after.items()
            if name in before and roster.role_of(name) != edition.roster.role_of(name)
        ),
    )


def _check_keys(change: Change) -> None:
    """Check that everybody keeps their part, and that another key is one that the key known here has signed.

    Whoever is a hospital, a helper or the keyholder was looked at as that. An orchestrator that makes hospitals of its
    own scientists invents hospitals.

    Raises:
        InvalidInput: it is not so.
    """
    if change.unsigned:
        named = ", ".join(party.name for party in change.unsigned)
        raise InvalidInput(
            f"expected the keys that are known here, but {named} would get another that theirs has not signed; refuse, "
            "and call them"
        )
    if change.moved:
        named = ", ".join(f"{p.name} ({change.part_of(p)})" for p in change.moved)
        raise InvalidInput(
            f"expected everybody in the part that is known here, but {named} would get another part; refuse, and ask "
            "the operator to take them out and to invite them under a new name"
        )
