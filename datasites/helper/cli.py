"""``tessera helper``: the commands of a party that holds part of the pads."""

from __future__ import annotations

from typing import Annotated

import typer

from datasites.node.commands import HomeOption, InstitutionOption, UrlOption, add_rotate, add_run
from datasites.node.commands import init as init_role

app = typer.Typer(help="A helper: part of the pads, usually run by a hospital of the study.", no_args_is_help=True)


@app.command()
def init(
    home: HomeOption,
    orchestrator_url: UrlOption,
    name: Annotated[str, typer.Option(help="Name of the helper; a hospital's helper has a name of its own.")],
    institution: InstitutionOption,
) -> None:
    """Make the helper's folder and identity, and show its public key."""
    init_role(home, "helper", name=name, institution=institution, orchestrator_url=orchestrator_url)


add_run(app, "helper", "Run the helper: round keys, pad sums, void lists, clearances.")
add_rotate(app)
