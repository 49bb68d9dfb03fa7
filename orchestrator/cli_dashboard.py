"""``tessera orchestrator dashboard-link``: the way into the dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def dashboard_link(
    home: Annotated[Path, typer.Option("--home", envvar="TESSERA_HOME", help="The orchestrator's folder.")],
) -> None:
    """Print a link that opens the studies' dashboard in one browser, once, within half an hour."""
    from datasites.home import Home
    from orchestrator.dashboard.links import new_link

    typer.echo(new_link(Home(folder=home)))
