"""Where roles plug in, so that no role imports another role's room.

``pyproject.toml`` names groups of entry points, one line a role in each::

    [project.entry-points."tessera.commands"]    # a typer app: what follows `tessera ROLE`
    datasite = "datasites.hospital.cli:app"

    [project.entry-points."tessera.roles"]       # a function of the role's folder: runs the role's process
    datasite = "datasites.hospital.daemon:run"

A third group, ``tessera.top``, holds commands that belong to no role and stand beside ``tessera demo``.

A new role is a room with these two, and its two lines. Only the lines of our own distribution count: another installed
package can put no command into a hospital's command line, a line that names a module of others is refused, and the code
hash that an approval binds covers the lines (:mod:`datasites.review.environment`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distribution
from pathlib import Path
from typing import Any

from privacy.errors import InvalidInput

DISTRIBUTION = "tessera-fl"
PACKAGES = ("datasites", "models", "orchestrator", "privacy", "tessera")
GROUPS = ("tessera.commands", "tessera.roles", "tessera.top")


def role_commands() -> Iterator[tuple[str, Any]]:
    """Yield every role's name and its commands, a typer app that imports nothing heavy by itself."""
    for entry in _entries("tessera.commands"):
        yield entry.name, entry.load()


def top_commands() -> Iterator[Any]:
    """Yield the typer apps whose commands stand beside those of the roles."""
    for entry in _entries("tessera.top"):
        yield entry.load()


def process_of(role: str) -> Callable[[Path], None]:
    """Return the function that runs the process of ``role`` until it is asked to end; imports it.

    Raises:
        InvalidInput: this installation has no such role.
    """
    entries = {entry.name: entry for entry in _entries("tessera.roles")}
    if role not in entries:
        raise InvalidInput(
            f"expected a role out of {', '.join(entries)}, got {role[:40]!r}; is Tessera installed anew?"
        )
    run: Callable[[Path], None] = entries[role].load()
    return run


def plugged_in() -> tuple[str, ...]:
    """Return every entry point of ours, one line each, sorted.

    Raises:
        InvalidInput: one names a module that is not ours.
    """
    return tuple(sorted(f"{group}: {entry.name} = {entry.value}" for group in GROUPS for entry in _entries(group)))


def _entries(group: str) -> tuple[EntryPoint, ...]:
    entries = tuple(distribution(DISTRIBUTION).entry_points.select(group=group))
    for entry in entries:
        if entry.module.partition(".")[0] not in PACKAGES:
            raise InvalidInput(f"expected a role of Tessera's own packages, got {entry.value[:80]!r}; install it again")
    return entries
