"""Requests that make no sense, and the framework's own sentences, which no answer may hold."""

from __future__ import annotations

import re

from httpx import Response

THEIRS = re.compile(
    r"Not Found|Method Not Allowed|String should|Field required|Input should|Extra inputs|valid (?:string|integer)"
    r"|pydantic|Unprocessable|JSON decode|Expecting|Internal Server|There was an error|validation error|Value error"
    r"|at most \d+ character|Too many fields|boundary|Invalid HTTP|Traceback"
)
BAD = ("x" * 300, "%0d", "zz", "%00", "-1", "é")


def check(answer: Response, what: object, found: list[str]) -> None:
    """Note in ``found`` that an answer fails or speaks with the framework's words."""
    words = THEIRS.search(answer.text)
    if words or answer.status_code >= 500:
        found.append(f"{what}: {answer.status_code} {words and words.group()}")
