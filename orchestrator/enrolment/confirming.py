"""The record of a roster that a party's people confirmed by command."""

from __future__ import annotations

from contextlib import closing

from datasites.node.home import Home
from datasites.node.joining.changes import CONFIRMED, Change
from privacy.ledger.journal import Journal


def journal_change(home: Home, change: Change, *, by: str) -> None:
    """Write into the role's journal who confirmed which edition."""
    with closing(Journal(home.folder / "journal.sqlite", home.identity())) as journal:
        journal.append(CONFIRMED, change_entry(change, by=by))


def change_entry(change: Change, *, by: str) -> dict[str, object]:
    """Return what the journal says about a confirmed change."""
    return {
        "serial": change.edition.serial,
        "digest": change.digest,
        "joins": [party.name for party in change.joins],
        "leaves": [party.name for party in change.leaves],
        "by": by,
    }
