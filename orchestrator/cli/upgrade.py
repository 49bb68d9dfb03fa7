"""``tessera upgrade --check``: what this installation will mean for a role, its peers and its studies."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from datasites.node.commands import HomeOption, JsonOption, console, show
from privacy.errors import InvalidInput

app = typer.Typer()
_COLOURS = {
    "goes on": "green",
    "needs re-approval": "yellow",
    "needs an upgrade": "yellow",
    "refused": "red",
    "unknown": "yellow",
}


@app.command()
def upgrade(
    home: HomeOption,
    check: Annotated[bool, typer.Option("--check", help="Say what will happen; nothing is changed.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Say what happens to every party and study once this installation runs; exit code 1 unless all go on."""
    from datasites.node.home import Home
    from orchestrator.studies.upgrades import forecasts, worst

    if not check:
        raise InvalidInput(
            "expected --check: Tessera is upgraded by installing the new release and restarting the role "
            "(docs/operations.md)"
        )
    found = forecasts(Home(folder=home))
    if json_output:
        show({"home": str(home), "fate": worst(found), "parties": [one.to_json() for one in found]})
    else:
        for one in found:
            where = f"{one.party}, study {one.study}" if one.study else one.party
            console.print(
                Text.assemble((f"{where}: {one.fate}", _COLOURS.get(one.fate, "yellow")), f": {one.reason}"),
                soft_wrap=True,
            )
    raise typer.Exit(0 if worst(found) == "goes on" else 1)
