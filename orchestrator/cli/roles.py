"""``tessera serve``, ``tessera roster`` and ``tessera datasite invite``: what operators of one role run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

app = typer.Typer()
_console = Console(stderr=True)

HomeOption = Annotated[Path, typer.Option("--home", envvar="TESSERA_HOME", help="The role's folder.")]


@app.command()
def serve(
    name: Annotated[str, typer.Argument(help="Who this is, as the consortium's file names it.")],
    home: HomeOption,
    exchange: Annotated[
        Path, typer.Option(envvar="TESSERA_EXCHANGE", help="Folder all roles share; only public files go there.")
    ],
    consortium: Annotated[Path, typer.Option(envvar="TESSERA_CONSORTIUM", help="Who is expected (TOML).")],
    orchestrator_url: Annotated[
        str, typer.Option(envvar="TESSERA_ORCHESTRATOR_URL", help="The address everybody dials.")
    ] = "https://orchestrator:8443",
    host: Annotated[str, typer.Option(help="Address it listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port it listens on.")] = 8080,
    public_url: Annotated[
        str, typer.Option(envvar="TESSERA_PUBLIC_URL", help="Where people reach this hospital's portal.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(envvar="TESSERA_DATA", help="A ready dataset or cohort tables; synthetic patients without."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(envvar="TESSERA_POLICY", help="The owner's policy to start with (TOML).")
    ] = None,
    tls_certificate: Annotated[str, typer.Option(help="Own certificate for what this role serves (PEM).")] = "",
    tls_key: Annotated[str, typer.Option(help="Its key, where it is in another file.")] = "",
    ca: Annotated[str, typer.Option(help="Who vouches for the orchestrator's own certificate (PEM).")] = "",
    wait_seconds: Annotated[float, typer.Option(min=1, help="How long to wait for the others at first start.")] = 600.0,
) -> None:
    """Make one role at its first start (identity, certificate, enrolment, data), then run it."""
    from datasites.node.consortium import Consortium
    from datasites.node.process import configure_logs
    from orchestrator.demo.roles import Settings
    from orchestrator.demo.roles import serve as run

    os.umask(0o077)
    configure_logs(
        os.environ.get("TESSERA_LOG_FORMAT", "text"), os.environ.get("TESSERA_LOG_LEVEL", "warning"), role=name
    )
    given = data if data is not None and data.is_dir() and any(data.iterdir()) else None  # an empty mount is none
    run(
        Settings(
            name=name,
            home=home,
            exchange=exchange,
            consortium=Consortium.load(consortium),
            orchestrator_url=orchestrator_url,
            host=host,
            port=port,
            public_url=public_url,
            data=given,
            policy=policy,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            ca=ca,
            wait_seconds=wait_seconds,
        )
    )


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
    for party in made.everybody:
        _console.print(f"{party.name} ({escape(party.institution)}): {fingerprint(party.public_key)}", highlight=False)
    typer.echo(json.dumps({"roster": str(out), "parties": len(made.everybody)}))


def invite(
    home: HomeOption,
    role: Annotated[str, typer.Option(help="steward, privacy-officer or auditor.")] = "steward",
) -> None:
    """Print a one-time link by which one person makes an account at this hospital's portal."""
    import datetime as dt

    from datasites.hospital.daemon import registration_link
    from datasites.node.home import Home
    from datasites.review.accounts import AccountStore
    from privacy.errors import InvalidInput

    if not (home / "address.json").exists():
        raise InvalidInput("expected a running datasite, whose portal the link leads to; start it first")
    accounts = AccountStore(home / "accounts.sqlite")
    try:
        token = accounts.invite(role, now=dt.datetime.now(dt.UTC))  # type: ignore[arg-type]  # checked there
    finally:
        accounts.close()
    typer.echo(registration_link(Home(folder=home), token))
