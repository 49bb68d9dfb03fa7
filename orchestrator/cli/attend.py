"""``tessera study attend`` and ``tessera play-steward``: what runs beside a composed consortium (compose.yaml)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datasites.node.commands import HomeOption, console, show
from orchestrator.cli.options import one_dataclass
from orchestrator.cli.study import StudyArgument, StudyOptions, proposing, settings_of, study_app
from privacy.errors import InvalidInput

app = typer.Typer()


@study_app.command("attend")
@one_dataclass
def attend(
    name: StudyArgument,
    home: HomeOption,
    options: StudyOptions,
    out: Annotated[Path, typer.Option(help="Folder that gets model and report.")],
    portals: Annotated[
        str, typer.Option(envvar="TESSERA_PORTALS", help="Where people reach the portals: NAME=ADDRESS,NAME=ADDRESS.")
    ] = "",
    dashboard: Annotated[
        str, typer.Option(envvar="TESSERA_DASHBOARD_URL", help="Where people reach the orchestrator's dashboard.")
    ] = "",
) -> None:
    """Propose a study unless it is there, say what people do next, wait through restarts, and write the report."""
    from datasites.node.home import Home
    from orchestrator.demo.attending import dashboard_link, follow, guide, is_proposed, portals_of, wait_until_served
    from orchestrator.demo.roles import TEST_FOLDER
    from orchestrator.demo.view import DemoView
    from orchestrator.studies.run import keep_result

    place, settings = Home(folder=home), settings_of(name, options)
    with DemoView(console) as view:
        view.step("Waiting for the orchestrator")
        wait_until_served(place)
        if not is_proposed(place, name):
            proposing(home, settings, view, options)
        for line in guide(name, portals_of(place, name, portals), dashboard_link(place, dashboard), out):
            view.note(line)
        status = follow(place, name, view)
        view.step("Writing the report")
        synthetic = home / TEST_FOLDER
        result = keep_result(place, status, out, test=synthetic if synthetic.exists() else None)
        view.note(f"The report of {name} is in {out}; each hospital's own is in its portal.")
    show(result)


@app.command("play-steward", hidden=True)
def play_steward(
    home: HomeOption,
    portal: Annotated[str, typer.Option(envvar="TESSERA_PORTAL", help="Address of the hospital's portal.")],
    demonstration: Annotated[
        bool, typer.Option("--demonstration", help="Nobody's data are here, and everything may be approved unread.")
    ] = False,
) -> None:
    """Approve whatever is proposed to one hospital, as a made-up person: for demonstrations only."""
    from datasites.node.home import Home
    from orchestrator.demo.attending import play_steward as play

    if not demonstration:
        raise InvalidInput("expected --demonstration: this approves every study unread, which no hospital may do")
    place = Home(folder=home)
    console.print(f"{place.config().name}: a made-up steward approves everything (demonstration)", highlight=False)
    play(place, portal, over=lambda: False)
