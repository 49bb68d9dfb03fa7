"""A one-time link to the dashboard, made beside the running orchestrator."""

from __future__ import annotations

import datetime as dt

from datasites.home import Home
from orchestrator.dashboard.access import FILE, Visitors
from orchestrator.processes import address
from privacy.errors import InvalidInput

PATH = "/dashboard/enter"


def new_link(home: Home) -> str:
    """Return a link that signs one browser in, once, within half an hour.

    Raises:
        InvalidInput: not an orchestrator's folder, or it does not run.
    """
    if home.config().role != "orchestrator":
        raise InvalidInput("expected the orchestrator's folder; a hospital's people use its portal")
    if not (home.folder / "address.json").exists():
        raise InvalidInput("expected a running orchestrator, which serves the dashboard; start it first")
    visitors = Visitors(home.folder / FILE)
    try:
        return f"{address(home.folder)}{PATH}?token={visitors.new_link(now=dt.datetime.now(dt.UTC))}"
    finally:
        visitors.close()
