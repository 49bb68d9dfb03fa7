"""Changes of the roster at a party: a new edition is offered, shown, and in force once the party's people confirm it.

At a hospital that happens in its portal (or `tessera confirm-roster`); keyholder and helpers have the command alone.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass, replace
from typing import Any

from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.node.http import Declined, SignedClient
from datasites.node.joining.documents import Edition, open_edition, read_signed
from datasites.node.joining.entering import EDITION_FILE
from datasites.node.keys.handover import follows, line
from datasites.node.roster import Roster
from datasites.study.proposal import Party
from datasites.study.signing import Signed, dump, parse
from privacy.errors import InvalidInput, Refused

OFFERED = "roster.offered.json"
CONFIRMED = "roster-confirmed"


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the offered edition changes: who joins, who leaves, and whose key or institution is another one.

    ``unsigned`` are those of ``changed`` whose key known here has not signed the new one: nobody can confirm them.
    """

    edition: Edition
    joins: tuple[Party, ...]
    leaves: tuple[Party, ...]
    changed: tuple[Party, ...]
    unsigned: tuple[Party, ...] = ()

    @property
    def digest(self) -> str:
        """The hash that people confirm."""
        return self.edition.digest

    @property
    def title(self) -> str:
        """Who joins (+) and who leaves (-), in one line."""
        signs = [*(f"+{party.name}" for party in self.joins), *(f"-{party.name}" for party in self.leaves)]
        signs += [f"{party.name} (new key)" for party in self.changed]
        return " ".join(signs)

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
    """Return the change that waits for this party's people, or None."""
    path = home.folder / OFFERED
    if not path.exists():
        return None
    roster = home.roster()
    edition = open_edition(read_signed(path), roster.orchestrator)
    if edition.serial <= _serial(home) or edition.roster == roster:
        return None
    return _change(edition, roster)


def confirm(home: Home, digest: str) -> Change:
    """Put the offered edition in force.

    Raises:
        Refused: none is offered, or another one than people looked at; or it leaves this party out.
    """
    change = offered(home)
    if change is None or not hmac.compare_digest(change.digest, digest):
        raise Refused("the roster that you looked at is not the one that is offered now; look again")
    if home.party() not in change.edition.roster.everybody:
        raise Refused("the offered roster leaves this party out; ask the consortium's operator why")
    _check_keys(change)
    home.keep_handovers(change.edition.handovers)
    path = home.folder / OFFERED
    write_atomically(home.folder / EDITION_FILE, path.read_bytes())
    change.edition.roster.save(home.folder / "roster.json")
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
        unsigned=tuple(party for party in changed if not signed(party)),
    )


def _check_keys(change: Change) -> None:
    """Check that who gets another key has it by a hand-over that the key known here has signed.

    Raises:
        InvalidInput: it is not so.
    """
    if change.unsigned:
        named = ", ".join(party.name for party in change.unsigned)
        raise InvalidInput(
            f"expected the keys that are known here, but {named} would get another that theirs has not signed; refuse, "
            "and call them"
        )
