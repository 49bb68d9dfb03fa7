"""``tessera datasite``: the commands of a hospital."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datasites.hospital import budget_commands, ingest_commands
from datasites.node.commands import (
    Gap,
    HomeOption,
    HostOption,
    InstitutionOption,
    LanguageOption,
    PortOption,
    UrlOption,
    add_import_gap,
    add_run,
)
from datasites.node.commands import init as init_role

app = typer.Typer(help="A hospital's datasite.", no_args_is_help=True)


@app.command()
def init(
    home: HomeOption,
    name: Annotated[str, typer.Option(help="Name of the datasite, such as hospital-a.")],
    institution: InstitutionOption,
    orchestrator_url: UrlOption,
    port: PortOption = 0,
    host: HostOption = "127.0.0.1",
) -> None:
    """Make a datasite's folder and identity, and show its public key."""
    init_role(home, "datasite", name=name, institution=institution, url=orchestrator_url, host=host, port=port)


@app.command()
def report(home: HomeOption, language: LanguageOption = None) -> None:
    """Write the privacy budget audit report (HTML, PDF, JSON) from ledger and journal."""
    from datasites.hospital.reports import write_reports
    from datasites.language import LANGUAGES, check_language
    from datasites.node.home import Home

    check_language(language or "en")
    for path in write_reports(Home(folder=home), [language] if language else tuple(LANGUAGES)):
        typer.echo(path)


@app.command()
def invite(
    home: HomeOption,
    role: Annotated[str, typer.Option(help="steward, privacy-officer or auditor.")] = "steward",
) -> None:
    """Print a one-time link by which one person makes an account at this hospital's portal."""
    from datasites.hospital.invitations import invitation_link
    from datasites.node.home import Home

    typer.echo(invitation_link(Home(folder=home), role))


@app.command()
def confirm(home: HomeOption, name: Annotated[str, typer.Argument(help="The new account's name.")]) -> None:
    """Confirm a new account that was invited in the portal, as a second person beside who invited it."""
    from datasites.hospital.invitations import confirm_account
    from datasites.node.home import Home

    confirm_account(Home(folder=home), name)
    typer.echo(f"{name} is confirmed and counts in full from now on.")


def _import_gap(home: Path, by: str, reason: str) -> Gap:
    from datasites.node.home import Home
    from datasites.node.rollback import import_gap

    booked = import_gap(Home(folder=home), by=by, reason=reason)
    lines = [f"{s['study']}: rounds {', '.join(map(str, s['rounds']))} are charged" for s in booked]
    return [f"{line}; the datasite works again" for line in lines], {"studies": booked}


app.command()(ingest_commands.ingest)
app.command()(ingest_commands.ingest)
app.add_typer(budget_commands.app, name="budget")
app.command("reload")(budget_commands.reload)
add_run(app, "datasite", "Run a datasite: portal, PySyft node and rounds.")
add_import_gap(
    app,
    _import_gap,
    "After a restore from an old backup: book the rounds that journal and ledger have forgotten.",
)
