"""Builds the tree of a command line's commands once a test process, and not anew for every line that a test types.

Typer makes it from the functions' signatures at every call, which takes a tenth of a second for all our commands.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import typer.main
import typer.testing

_built: WeakKeyDictionary[typer.Typer, tuple[tuple[Any, ...], Any]] = WeakKeyDictionary()
_build = typer.main.get_command


def _commands(app: typer.Typer) -> tuple[Any, ...]:
    """Return what the tree is made of; it is made again where a plugin has added something."""
    groups = [g.typer_instance for g in app.registered_groups]
    return (app.registered_callback, *app.registered_commands, *((g, _commands(g)) for g in groups if g is not None))


def built_once(app: typer.Typer) -> Any:
    """Do what :func:`typer.main.get_command` does, but only once an application."""
    parts = _commands(app)
    if app not in _built or _built[app][0] != parts:
        _built[app] = (parts, _build(app))
    return _built[app][1]


typer.main.get_command = typer.testing._get_command = built_once
