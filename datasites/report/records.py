"""What a report is made of, read and verified once, whatever languages it is then written in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasites.report.facts import ChainLine
from privacy.ledger.chain import Entry, Head
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Account, Ledger, Point
from privacy.ledger.verification import FILES, verify_folder


@dataclass(frozen=True, kw_only=True)
class Records:
    """A datasite's ledger and journal at one moment.

    ``ledger`` and ``journal`` are their entries, ``accounts`` and ``timelines`` what follows for each population,
    ``chains`` whether the files of the folder verify: the journal's, then the ledger's.
    """

    at: dt.datetime
    public_key: str
    ledger: Sequence[Entry]
    journal: Sequence[Entry]
    accounts: Sequence[Account]
    timelines: Mapping[str, Sequence[Point]]
    chains: tuple[ChainLine, ...]

    @classmethod
    def read(cls, folder: Path, site: str, ledger: Ledger, journal: Journal) -> Records:
        """Read and verify the chains in a datasite's ``folder``; ``site`` is its name in the consortium."""
        populations, entries = ledger.populations(), tuple(journal.entries())
        return cls(
            at=journal.now(),
            public_key=ledger.public_key,
            ledger=tuple(ledger.entries()),
            journal=entries,
            accounts=tuple(ledger.account(population) for population in populations),
            timelines={population: tuple(ledger.timeline(population)) for population in populations},
            chains=_chains(folder, site, ledger, journal, entries),
        )


def _chains(
    folder: Path, site: str, ledger: Ledger, journal: Journal, entries: Sequence[Entry]
) -> tuple[ChainLine, ...]:
    result = verify_folder(folder, public_key=ledger.public_key, name=site)
    lines = []
    for head in (journal.head, ledger.head):
        file = FILES[head.chain]
        facts = next((chain for chain in result.chains if chain.file == file), None)
        found = tuple(f.message for f in result.findings if f.file in (file, folder.name))
        lines.append(_chain_line(file, head, facts.last if facts else "", found, _seen(entries, site, head)))
    return tuple(lines)


def _chain_line(file: str, head: Head, last: str, found: tuple[str, ...], seen: int) -> ChainLine:
    return ChainLine(
        file=file,
        entries=head.index,
        head=head.hash,
        signature=head.signature,
        public_key=head.public_key,
        last_entry=last,
        holds=not found,
        problems=found,
        countersigned_heads=seen,
    )


def _seen(entries: Sequence[Entry], site: str, head: Head) -> int:
    """Return how many different heads of this chain the participants of rounds wrote down."""
    seen = set()
    for entry in entries:
        if entry.kind == "attested":
            seen.add(entry.body.get("heads", {}).get(site, {}).get(head.chain))
    return len(seen - {None})
