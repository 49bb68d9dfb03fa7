"""``tessera datasite``: the commands of a hospital."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datasites.hospital.commands import budget as budget_commands
from datasites.hospital.commands import extract as extract_commands
from datasites.hospital.commands import ingest as ingest_commands
from datasites.hospital.people import commands as people_commands
from datasites.node.commands import (
    Gap,
    HomeOption,
    HostOption,
    InstitutionOption,
    JsonOption,
    LanguageOption,
    PortOption,
    UrlOption,
    add_import_gap,
    add_rotate,
    add_run,
    add_tidy,
    console,
    show,
)
from datasites.node.commands import init as init_role

if TYPE_CHECKING:
    from datasites.node.home import Home

app = typer.Typer(help="A hospital's datasite.", no_args_is_help=True)


@app.command()
def init(
    home: HomeOption,
    name: Annotated[str, typer.Option(help="Name of the datasite, such as hospital-a.")],
    institution: InstitutionOption,
    orchestrator_url: UrlOption,
    port: PortOption = None,
    host: HostOption = None,
) -> None:
    """Make a datasite's folder and identity, and show its public key."""
    init_role(
        home,
        "datasite",
        name=name,
        institution=institution,
        orchestrator_url=orchestrator_url,
        host=host,
        port=port,
    )


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
    from datasites.hospital.people.invitations import invitation_link
    from datasites.node.home import Home

    typer.echo(invitation_link(Home(folder=home), role))


@app.command()
def confirm(home: HomeOption, name: Annotated[str, typer.Argument(help="The new account's name.")]) -> None:
    """Confirm a new account that was invited in the portal, as a second person beside who invited it."""
    from datasites.hospital.people.invitations import confirm_account
    from datasites.node.home import Home

    confirm_account(Home(folder=home), name)
    typer.echo(f"{name} is confirmed and counts in full from now on.")


@app.command()
def journal(
    home: HomeOption,
    out: Annotated[Path | None, typer.Option(help="File that gets the entries as CSV; - for standard output.")] = None,
    syslog: Annotated[str, typer.Option(help="HOST:PORT of a syslog server that gets the entries (RFC 5424).")] = "",
    tcp: Annotated[bool, typer.Option("--tcp", help="Syslog over TCP instead of datagrams.")] = False,
    kind: Annotated[str, typer.Option(help="Entries of one kind only.")] = "",
    since: Annotated[int, typer.Option(min=0, help="Entries with a higher number only.")] = 0,
    after: Annotated[str, typer.Option(help="Entries from this time on, such as 2026-03-01.")] = "",
    before: Annotated[str, typer.Option(help="Entries earlier than this time.")] = "",
    json_output: JsonOption = False,
) -> None:
    """Export the journal as CSV or to a syslog server; the export is journaled."""
    from datasites.hospital.people.journal_export import export

    found = export(home, out=out, syslog=syslog, tcp=tcp, kind=kind, since=since, after=after, before=before)
    console.print(f"{found.entries} entries, the last one is {found.last}", highlight=False)
    if json_output:
        show({"entries": found.entries, "last": found.last})


def _import_gap(home: Path, by: str, reason: str) -> Gap:
    from datasites.node.home import Home
    from datasites.node.rollback import import_gap

    booked = import_gap(Home(folder=home), by=by, reason=reason)
    lines = [f"{s['study']}: rounds {', '.join(map(str, s['rounds']))} are charged" for s in booked]
    return [f"{line}; the datasite works again" for line in lines], {"studies": booked}


app.command()(ingest_commands.ingest)
app.command()(extract_commands.extract)
app.add_typer(budget_commands.app, name="budget")
app.add_typer(people_commands.people, name="people")
app.add_typer(people_commands.tokens, name="tokens")
app.add_typer(people_commands.sessions, name="sessions")
app.command("reload")(budget_commands.reload)
app.command("continue")(budget_commands.go_on)
add_run(app, "datasite", "Run a datasite: portal, PySyft node and rounds.")
add_rotate(app)
add_import_gap(
    app,
    _import_gap,
    "After a restore from an old backup: book the rounds that journal and ledger have forgotten.",
)


def _tidied(home: Home, dry_run: bool) -> list[dict[str, Any]]:
    from datasites.hospital.rounds.tidying import tidy_home

    return tidy_home(home, dry_run=dry_run)


add_tidy(app, _tidied)
