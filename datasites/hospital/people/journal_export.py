"""``tessera datasite journal``: the journal as a CSV file, or to a syslog server. The export is journaled itself."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.review.people.vouching import BY_COMMAND
from privacy.errors import InvalidInput
from privacy.ledger.export import EXPORTED, csv_lines, selected, send_syslog, time_of
from privacy.ledger.journal import Journal


@dataclass(frozen=True, kw_only=True)
class Exported:
    """How many entries went out, and the number of the last one, from which the next export goes on."""

    entries: int
    last: int


def export(
    home: Path, *, out: Path | None, syslog: str, tcp: bool, kind: str, since: int, after: str, before: str
) -> Exported:
    """Export the entries above ``since``, of one kind and between two times where they are named.

    Raises:
        InvalidInput: neither or both of a file and a server, an address that is none, or a time that is none.
        Refused: the server cannot be reached.
    """
    if (out is None) == (not syslog):
        raise InvalidInput("expected one of --out FILE and --syslog HOST:PORT")
    host, port = _address(syslog) if syslog else ("", 0)
    bounds = time_of(after), time_of(before)
    found = Home(folder=home)
    config = found.config()
    with closing(Journal(home / "journal.sqlite", found.identity())) as journal:
        entries = list(selected(journal, since=since, kind=kind, after=bounds[0], before=bounds[1]))
        if syslog:
            send_syslog(entries, host=host, port=port, source=config.name, tcp=tcp)
        else:
            _write(out, "".join(csv_lines(entries)))
        if any(entry.kind != EXPORTED for entry in entries):  # or every export would be news for the next one
            body = {"person": BY_COMMAND, "to": "syslog" if syslog else "csv", "entries": len(entries)}
            journal.append(EXPORTED, body)
    return Exported(entries=len(entries), last=entries[-1].index if entries else since)


def _write(out: Path | None, text: str) -> None:
    if out is None or str(out) == "-":
        sys.stdout.write(text)
    else:
        write_atomically(out, text.encode(), mode=0o600)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidInput("expected the address of a syslog server as HOST:PORT, such as localhost:514")
    return host.strip("[]"), int(port)
