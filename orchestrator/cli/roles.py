"""``tessera orchestrator``, ``tessera serve`` and ``tessera roster``: what operators of one role run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from datasites.node.commands import (
    Gap,
    HomeOption,
    HostOption,
    InstitutionOption,
    PortOption,
    UrlOption,
    add_import_gap,
    add_rotate,
    add_run,
    add_tidy,
    console,
    prepare_process,
    show,
)
from datasites.node.commands import init as init_role
from orchestrator.cli.joining import hand_out_to
from orchestrator.cli.options import one_dataclass
from orchestrator.demo.settings import RoleSettings

if TYPE_CHECKING:
    from datasites.node.home import Home

app = typer.Typer()
scientist_app = typer.Typer(help="A scientist with a key of their own.", no_args_is_help=True)
orchestrator_app = typer.Typer(help="The study scientists' orchestrator.", no_args_is_help=True)
_USUAL = ("orchestrator", "Study scientists")


@app.command()
@one_dataclass
def serve(settings: RoleSettings) -> None:
    """Make one role at its first start (identity, certificate, enrolment, data), then run it."""
    from orchestrator.demo.roles import serve as run

    prepare_process(settings.name)
    run(settings)


@app.command()
def roster(
    parties: Annotated[list[Path], typer.Argument(help="What `tessera ROLE init` printed at each party, as files.")],
    out: Annotated[Path, typer.Option(help="Where the roster goes; every role gets this same file.")],
) -> None:
    """Build the consortium's roster from everybody's party file, and show the fingerprints to compare."""
    from datasites.node.consortium import build_roster, read_party
    from privacy.identity import fingerprint

    made = build_roster(read_party(path) for path in parties)
    made.save(out)
    for party in made.known:
        console.print(f"{party.name} ({escape(party.institution)}): {fingerprint(party.public_key)}", highlight=False)
    show({"roster": str(out), "parties": len(made.known)})


@orchestrator_app.command()
def init(
    home: HomeOption,
    name: Annotated[
        str | None, typer.Option(help=f"Name of the orchestrator; {_USUAL[0]} unless one is given.")
    ] = None,
    institution: Annotated[
        str | None, typer.Option(help=f"Name of the institution; {_USUAL[1]} unless one is given.")
    ] = None,
    port: PortOption = None,
    host: HostOption = None,
    public_url: Annotated[
        str | None,
        typer.Option(help="The address everybody dials. With https an authority of its own makes the certificate."),
    ] = None,
    consortium: Annotated[
        Path | None,
        typer.Option(help="Also invite everybody in this file (TOML, docs/deploy.md), as `tessera invite`."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --consortium: the folder for all invitations.")] = None,
    schema: Annotated[
        Path | None, typer.Option(help="With --consortium: schema of the studies, as for `tessera invite`.")
    ] = None,
) -> None:
    """Make the orchestrator's folder and identity, and show its public key."""
    from orchestrator.enrolment.members import members_of, read_schema
    from privacy.errors import InvalidInput

    if (consortium is None) != (out is None) or (schema is not None and consortium is None):
        raise InvalidInput("expected --consortium FILE and --out FOLDER together (and --schema with both)")
    members = members_of(consortium) if consortium else ()
    read_schema(schema)  # what is wrong with the files is said before anything is made
    reached = {"host": host, "port": port, "public_url": public_url}
    init_role(home, "orchestrator", name=name, institution=institution, usual=_USUAL, **reached)
    if public_url and public_url.startswith("https:"):
        _certify(home, public_url)
    if out is not None:
        hand_out_to(members, home, out, schema=schema)


def _certify(home: Path, url: str) -> None:
    """Make the certificate for an address, unless the operator has named one of another maker."""
    from dataclasses import replace
    from urllib.parse import urlsplit

    from datasites.node.credentials.tls import ascii_host, ensure_authority, ensure_server_certificate
    from datasites.node.home import Home

    place = Home(folder=home)
    config, folder = place.config(), place.folder / "tls"
    if config.tls_certificate in ("", str(folder / "server.pem")):
        names = list(dict.fromkeys([ascii_host(str(urlsplit(url).hostname)), "localhost", "127.0.0.1"]))
        authority = ensure_authority(folder, name=config.name)
        made = ensure_server_certificate(authority, folder, names=names)
        Home.create(home, replace(config, tls_certificate=str(made)))


@scientist_app.command("init")
def scientist_init(
    home: HomeOption,
    orchestrator_url: UrlOption,
    name: Annotated[str, typer.Option(help="Name in the roster, such as ada.example.")],
    institution: InstitutionOption,
) -> None:
    """Make a scientist's folder and key, and show the public part; it goes into the roster beside the parties'."""
    init_role(home, "scientist", name=name, institution=institution, orchestrator_url=orchestrator_url)


def _tell_key(home: Home) -> str:
    from datasites.node.joining.rotating import tell
    from privacy.errors import InvalidInput, Refused, TesseraError

    try:
        tell(home, told=lambda _: None, seconds=0)
    except (Refused, InvalidInput):
        raise
    except TesseraError as error:
        return f"{error}. The operator compares fingerprints and runs `tessera admit`; then give this command again."
    return "The orchestrator's operator has admitted the new key."


add_rotate(scientist_app, then=_tell_key)


@orchestrator_app.command("dashboard-link")
def dashboard_link(home: HomeOption) -> None:
    """Print a link that opens the studies' dashboard in one browser, once, within half an hour."""
    from datasites.node.home import Home
    from orchestrator.dashboard.access import new_link

    typer.echo(new_link(Home(folder=home)))


def _import_gap(home: Path, by: str, reason: str) -> Gap:
    from datasites.node.home import Home
    from orchestrator.studies.status import client_of

    with client_of(Home(folder=home)) as client:
        booked = client.post_json("/import-gap", {"by": by, "reason": reason})
    lines = [
        f"{s['study']}: rounds written off: {', '.join(map(str, s['rounds'])) or 'none'}" for s in booked["studies"]
    ]
    return lines, booked


add_run(orchestrator_app, "orchestrator", "Run the orchestrator: mailbox, rounds, encrypted sums.")


def _open_studies(home: Home) -> list[str]:
    from orchestrator.daemon import open_studies

    return open_studies(home)


def _announce_key(home: Home) -> str:
    import datetime as dt

    from orchestrator.enrolment.handing_over import HandOvers

    edition = HandOvers(home).admit_own(now=dt.datetime.now(dt.UTC))
    if edition is None:
        return "There is no roster yet; nobody has to be told."
    return (
        f"The roster's edition {edition.serial} names it. Run the orchestrator again; every party confirms the edition "
        "(hospitals in their portals, others with `tessera confirm-roster`), and restarts its role."
    )


add_rotate(orchestrator_app, _open_studies, _announce_key)
add_import_gap(
    orchestrator_app,
    _import_gap,
    "After a restore from an old backup, while the orchestrator runs: write off the rounds it has forgotten.",
)


def _tidied(home: Home, dry_run: bool) -> list[dict[str, Any]]:
    from orchestrator.daemon import tidy_home

    return tidy_home(home, dry_run)


add_tidy(orchestrator_app, _tidied)
