"""``tessera keyholder``: the commands of the neutral third party."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datasites.node.commands import Gap, HomeOption, UrlOption, add_import_gap, add_rotate, add_run
from datasites.node.commands import init as init_role

app = typer.Typer(help="The neutral keyholder.", no_args_is_help=True)
_USUAL = ("keyholder", "Neutral keyholder")


@app.command()
def init(
    home: HomeOption,
    orchestrator_url: UrlOption,
    name: Annotated[str | None, typer.Option(help=f"Name of the keyholder; {_USUAL[0]} unless one is given.")] = None,
    institution: Annotated[
        str | None, typer.Option(help=f"Name of the institution; {_USUAL[1]} unless one is given.")
    ] = None,
) -> None:
    """Make the keyholder's folder and identity, and show its public key."""
    init_role(home, "keyholder", name=name, institution=institution, usual=_USUAL, orchestrator_url=orchestrator_url)


def _import_gap(home: Path, by: str, reason: str) -> Gap:
    from datasites.keyholder.rollback import import_gap
    from datasites.node.home import Home

    closed = import_gap(Home(folder=home), by=by, reason=reason)
    lines = [f"{study}: round {number} is over; its key is gone" for study, number in closed]
    return lines, {"rounds": [{"study": study, "round": number} for study, number in closed]}


add_run(app, "keyholder", "Run the keyholder: round keys, decryption of sums.")
add_rotate(app)
add_import_gap(
    app,
    _import_gap,
    "After a restore from an old backup: close the rounds that the keyholder has forgotten, for ever.",
)
