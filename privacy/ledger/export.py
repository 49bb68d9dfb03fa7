"""A journal for other programs: as CSV for spreadsheets, and as syslog messages (RFC 5424) for an audit system.

>>> "".join(csv_lines(journal.entries(kind="signed-in"))).splitlines()[0]
'"number","at","kind","body","hash"'
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import logging
import socket
from collections.abc import Iterable, Iterator
from logging.handlers import SysLogHandler

from privacy.errors import InvalidInput, Refused
from privacy.ledger.chain import Entry
from privacy.ledger.journal import Journal

EXPORTED = "journal-exported"
"""Kind of the entry that says who exported the journal."""
COLUMNS = ("number", "at", "kind", "body", "hash")
EARLIEST = dt.datetime(1, 1, 2, tzinfo=dt.UTC)
LATEST = dt.datetime(9999, 12, 30, tzinfo=dt.UTC)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_LOG_AUDIT = 13  # RFC 5424, table 1
_LONGEST_KIND = 32
_LONGEST_DATAGRAM = 60_000
_SECONDS = 10.0


def selected(
    journal: Journal,
    *,
    since: int = 0,
    kind: str = "",
    after: dt.datetime | None = None,
    before: dt.datetime | None = None,
) -> Iterator[Entry]:
    """Yield the entries above number ``since``, of one kind or of all, from ``after`` on and before ``before``."""
    for entry in journal.entries(since=since, kind=kind or None):
        at = dt.datetime.fromisoformat(entry.at)
        if (after is None or at >= after) and (before is None or at < before):
            yield entry


def time_of(text: str) -> dt.datetime | None:
    """Return a time that somebody asked for; UTC where it names no zone; None for an empty text.

    Raises:
        InvalidInput: it is no ISO time.
    """
    if not text:
        return None
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput("expected a time such as 2026-03-01 or 2026-03-01T12:00:00+00:00") from error
    return zoned(found)


def zoned(time: dt.datetime) -> dt.datetime:
    """Return a time that names its zone: UTC where it named none."""
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)


def csv_lines(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield a table as CSV (RFC 4180), one line an entry; no cell is taken for a formula by a spreadsheet.

    The body is one cell of JSON. Its semicolons are escaped, since some spreadsheets take them for ends of cells.
    """
    yield _line(COLUMNS)
    for entry in entries:
        yield _line((str(entry.index), entry.at, entry.kind, plain_body(entry), entry.hash))


def plain_body(entry: Entry) -> str:
    """Return an entry's body as JSON in ASCII, without semicolons and without line ends."""
    return json.dumps(entry.body, ensure_ascii=True, sort_keys=True).replace(";", "\\u003b")


def send_syslog(entries: Iterable[Entry], *, host: str, port: int, source: str, tcp: bool = False) -> int:
    """Send entries to a syslog server as RFC 5424 has them; return how many.

    Args:
        entries: the oldest first.
        host, port: of the server.
        source: who sends, in the place of the host name.
        tcp: over TCP, each message ended by a line feed (RFC 6587, section 3.4.2); otherwise in datagrams.

    Raises:
        Refused: the server cannot be reached, or a message is too long for a datagram.
    """
    sent = 0
    try:
        handler = _Handler((host, port), facility=_LOG_AUDIT, socktype=socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        handler.append_nul = False
        handler.setFormatter(logging.Formatter("%(message)s\n" if tcp else "%(message)s"))
        try:
            for entry in entries:
                text = _rfc5424(entry, source)
                if not tcp and len(text) > _LONGEST_DATAGRAM:
                    raise Refused(f"entry {entry.index} is too long for a datagram; send the journal over TCP")
                level = logging.WARNING if "refused" in entry.kind or "failed" in entry.kind else logging.INFO
                handler.emit(logging.LogRecord("tessera", level, "", 0, "%s", (text,), None))
                sent += 1
        finally:
            handler.close()
    except OSError as error:
        raise Refused(f"the syslog server at {host}:{port} was not reached after {sent} entries; try again") from error
    return sent


class _Handler(SysLogHandler):
    """Raises what goes wrong instead of printing it, and waits for no server longer than some seconds."""

    socket: socket.socket

    def createSocket(self) -> None:  # noqa: N802 - logging's name for it
        super().createSocket()
        self.socket.settimeout(_SECONDS)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's name for it
        raise  # what emit is handling


def _rfc5424(entry: Entry, source: str) -> str:
    """Return one message behind its priority: version, time, source, application, process, kind, number, body."""
    at = dt.datetime.fromisoformat(entry.at).astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    head = f"1 {at} {_ascii(source, 255)} tessera - {_ascii(entry.kind, _LONGEST_KIND)}"
    return f'{head} [meta sequenceId="{entry.index}"] {plain_body(entry)}'


def _ascii(text: str, longest: int) -> str:
    return "".join(letter if "!" <= letter <= "~" else "_" for letter in text)[:longest] or "-"


def _line(cells: Iterable[str]) -> str:
    row = io.StringIO()
    csv.writer(row, quoting=csv.QUOTE_ALL).writerow([f"'{c}" if c.startswith(_FORMULA) else c for c in cells])
    return row.getvalue()
