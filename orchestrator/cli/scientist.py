"""``tessera scientist``: the key of a person who asks for studies from a machine of their own."""

from __future__ import annotations

from typing import Annotated

import typer

from datasites.node.commands import HomeOption, InstitutionOption, UrlOption
from datasites.node.commands import init as init_role

scientist_app = typer.Typer(help="A scientist with a key of their own.", no_args_is_help=True)


@scientist_app.command()
def init(
    home: HomeOption,
    orchestrator_url: UrlOption,
    name: Annotated[str, typer.Option(help="Name in the roster, such as ada.example.")],
    institution: InstitutionOption,
) -> None:
    """Make a scientist's folder and key, and show the public part; it goes into the roster beside the parties'."""
    init_role(home, "scientist", name=name, institution=institution, url=orchestrator_url)


@scientist_app.callback()
def scientist() -> None:
    """Keep `init` a command of its own while there is no other."""
