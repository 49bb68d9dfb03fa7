"""Columns that may never be model inputs: they define the stage or are known only after it."""

from __future__ import annotations

from collections.abc import Iterable

from privacy.errors import InvalidInput

LEAKING_PREFIXES = ("leak_", "stage", "has_")
"""T, N, M and the resection report; the label itself; which files a case is in."""


def refuse_leakage(columns: Iterable[str], *, where: str) -> None:
    """Refuse any column that would leak the stage into the inputs.

    Raises:
        InvalidInput: names the first offending column and what to do about it.
    """
    for column in columns:
        if str(column).lower().startswith(LEAKING_PREFIXES):
            raise InvalidInput(
                f"{where}: column {column!r} defines or leaks the stage and cannot be an input; "
                "leave out columns that start with leak_, stage or has_"
            )
