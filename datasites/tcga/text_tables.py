"""Tab-separated files that begin with lines of explanation."""

from __future__ import annotations

from pathlib import Path

from privacy.errors import InvalidInput

_MOST_LINES = 1000


def comment_lines(path: Path) -> int:
    """Return how many lines at the beginning of a file start with ``#``.

    Later ones are data: a value may hold that character.

    Raises:
        InvalidInput: the file cannot be read as text.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                if not line.startswith("#") or number == _MOST_LINES:
                    return number
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"expected a readable text file {path.name}") from error
    return 0
