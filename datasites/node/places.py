"""Files and folders that are named by the hash of a study's name: by all of it.

Homes from before used its first 16 digits, which two names that somebody searched for can share. What lies there is
moved to its full name once it is shown to be of this study; what is not stays where it is, and is not used.

    >>> hashed_place(home / "rounds", "pilot", is_of=lambda old: study_in(old) == "pilot")
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from datasites.node.files import sync_folder
from privacy.canonical import sha256_hex

SHORT_DIGITS = 16


def hashed_place(
    folder: Path, name: str, ending: str = "", *, is_of: Callable[[Path], bool], short: int = SHORT_DIGITS
) -> Path:
    """Return the place of ``name`` in ``folder``, by its full hash.

    Args:
        folder: where it lies.
        name: a study's, of any characters.
        ending: of a file's name, with the dot.
        is_of: says whether what lies under the short hash is really of ``name``; asked only where there is something.
        short: how many digits of the hash named it before.
    """
    digest = sha256_hex(name.encode())
    place, old = folder / f"{digest}{ending}", folder / f"{digest[:short]}{ending}"
    if not place.exists() and old.exists() and is_of(old):
        old.rename(place)
        sync_folder(folder)
    return place


def is_of_study(path: Path, study: str, *keys: str) -> bool:
    """Say whether a JSON file names ``study`` under these keys, one inside the other; an unreadable one does not."""
    try:
        found = json.loads(path.read_bytes())
        for key in keys:
            found = found[key]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(found == study)
