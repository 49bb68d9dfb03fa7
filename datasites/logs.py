"""What a role's process writes to standard error: lines for people, or one JSON object a line for machines.

Logs help an operator; the record of what happened is the journal. Whatever looks like a token, a key or a password is
cut out of every line before it is written, whoever logged it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog

from datasites.plain_text import visible
from privacy.errors import InvalidInput

Format = Literal["text", "json"]
FORMATS: tuple[Format, ...] = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

_REMOVED = "[removed]"
_SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?i)\b(?:tessera|bearer|basic)\s+[A-Za-z0-9+/_=.~-]{16,}"),
    re.compile(r"(?i)(?<=\btoken=)[^\s&\"']+"),
    re.compile(r"(?i)(?<=\bpassword=)[^\s&\"']+"),
    re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"),
    re.compile(r"(?i)\btessera-[0-9a-f]{12}=[^\s;\"']+"),
)
_SECRET_FIELDS = re.compile(r"(?i)authorization|cookie|password|secret|token|csrf|private_?key")


def configure_logs(
    format_: str = "text", level: str = "warning", *, role: str = "", stream: TextIO | None = None
) -> None:
    """Send everything this process logs to ``stream`` (standard error), in one format.

    Args:
        format_: ``text`` or ``json``.
        level: ``debug``, ``info`` (one line per request), ``warning`` or ``error``.
        role: put into every JSON line.
        stream: where to; tests give another.

    Raises:
        InvalidInput: an unknown format or level.
    """
    if format_ not in FORMATS:
        raise InvalidInput(f"expected a log format out of {', '.join(FORMATS)}, got {format_[:20]!r}")
    if level.lower() not in LEVELS:
        raise InvalidInput(f"expected a log level out of {', '.join(LEVELS)}, got {level[:20]!r}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_json_formatter(role) if format_ == "json" else _TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "asyncio"):  # they would log every request of the long polls, with its address
        logging.getLogger(noisy).setLevel(logging.WARNING)


def without_secrets(text: str) -> str:
    """Return ``text`` with everything cut out that looks like a token, key or password.

    >>> without_secrets("sent Authorization: Tessera eyJhdWRpZW5jZSI6Ij.c2lnbmF0dXJl")
    'sent Authorization: [removed]'
    """
    for pattern in _SECRETS:
        text = pattern.sub(_REMOVED, text)
    return text


def _json_formatter(role: str) -> logging.Formatter:
    def add_role(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**event, "role": role} if role else event

    before: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_role,
        structlog.processors.format_exc_info,
        _clean,
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(sort_keys=True, default=lambda value: without_secrets(str(value))),
        ],
    )


def _clean(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: _cleaned(key, value) for key, value in event.items()}


def _cleaned(key: str, value: Any) -> Any:
    if _SECRET_FIELDS.search(key):
        return _REMOVED
    return without_secrets(value) if isinstance(value, str) else value


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Keep a message on its line: whoever caused it may have chosen its words."""
        record.message = visible(record.message, besides="\t")
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return visible(without_secrets(super().format(record)))
