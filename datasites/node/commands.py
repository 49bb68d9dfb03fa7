"""What the commands of every role share: options, printing, and ``init``, ``run`` and ``import-gap``, written once.

A role's own commands are in the ``cli.py`` of its room (:mod:`datasites.node.plugins`). Nothing heavy is imported
before a command runs: ``tessera --help`` must stay quick.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from datasites.node.home import Home, Role

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="TESSERA_HOME", resolve_path=True, help="The role's folder.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on the last line of standard output.")]
LanguageOption = Annotated[
    str | None, typer.Option("--language", help="Language of the report: en, de or fr; every one when left out.")
]
InstitutionOption = Annotated[str, typer.Option(help="Name of the institution.")]
UrlOption = Annotated[str, typer.Option(help="Address of the orchestrator.")]
PortOption = Annotated[int | None, typer.Option(min=0, max=65535, help="Port it listens on; 0 takes a free one.")]
HostOption = Annotated[str | None, typer.Option(help="Address it listens on; 127.0.0.1 unless one is given.")]
_ParentOption = Annotated[bool, typer.Option("--end-with-parent", hidden=True)]
_ByOption = Annotated[str, typer.Option(help="Who does this; it becomes part of the record.")]
_ReasonOption = Annotated[str, typer.Option(help="Why the newest copy is gone.")]

Gap = tuple[Iterable[str], dict[str, Any]]
"""What was imported: a line for each study or round, and the JSON object."""

console = Console(stderr=True)


def show(value: Any) -> None:
    """Print one JSON object on one line of standard output."""
    typer.echo(json.dumps(value, default=str))


def init(
    home: Path,
    role: Role,
    *,
    name: str | None,
    institution: str | None,
    usual: tuple[str, str] = ("", ""),
    **settings: str | int | None,
) -> None:
    """Make a role's folder and identity, and print its party file; in an existing one only what is given changes.

    Args:
        home: the folder.
        role: which role.
        name, institution: None: as they are, or ``usual`` in a new folder.
        usual: name and institution of a role that has such.
        settings: fields of :class:`datasites.node.home.Config`; None: as they are, or as ``Config`` has them.

    Raises:
        InvalidInput: a name or an address that others would refuse, or a folder of another party.
    """
    from dataclasses import replace

    from datasites.node.consortium import check_address, check_member
    from datasites.node.home import Config, Home
    from privacy.identity import fingerprint

    made = (home / "config.json").exists()
    there = Home(folder=home).config() if made else None
    known = there or Config(name=usual[0], institution=usual[1], role=role, orchestrator_url="")
    asked: dict[str, Any] = {"name": name, "institution": institution, **settings}
    config = replace(known, role=role, **{field: value for field, value in asked.items() if value is not None})
    check_member(role, config.name, config.institution)
    for url in (settings.get("orchestrator_url"), settings.get("public_url")):
        if url:
            check_address(str(url))
    party = Home.create(home, config).party()
    if made:
        console.print(f"{home} was made before; its key and the settings that you did not give are as they were")
    show({"role": role, **asdict(party), "fingerprint": fingerprint(party.public_key)})


def add_run(app: typer.Typer, role: Role, help_text: str) -> None:
    """Add the command ``run`` to a role's app: the role's process, until it is asked to end."""

    @app.command("run", help=help_text)
    def run(home: HomeOption, end_with_parent: _ParentOption = False) -> None:
        from datasites.node.home import Home
        from datasites.node.joining.entering import await_admission, renew_certificate
        from datasites.node.joining.rotating import tell
        from datasites.node.plugins import process_of
        from datasites.node.process import end_with_parent as watch
        from datasites.node.process import leave

        prepare_process()
        if end_with_parent:
            watch()
        await_admission(Home(folder=home))
        renew_certificate(Home(folder=home), now=dt.datetime.now(dt.UTC))
        tell(Home(folder=home))
        process_of(role)(home)
        leave()


def add_rotate(
    app: typer.Typer, open_studies: Callable[[Home], list[str]] | None = None, then: Callable[[Home], str] | None = None
) -> None:
    """Add the command ``rotate`` to a role's app: a new key, which the old one signs.

    Args:
        app: gets the command.
        open_studies: says which studies name the role's key and are not over; None asks the orchestrator.
        then: does the rest, and says what others have to do; None: the next ``run`` tells the orchestrator. Of a
            scientist, who has no process, it also goes on with a new key that is not admitted yet.
    """

    @app.command("rotate")
    def command(
        home: HomeOption,
        now: Annotated[
            bool, typer.Option("--now", help="Also with studies that are not over; they go on without this key.")
        ] = False,
        json_output: JsonOption = False,
    ) -> None:
        """Give this role a new identity key, signed by the old one, while it does not run.

        Studies bind the keys of their parties: one that is not over cannot go on with the new key.
        """
        from datasites.node.joining.rotating import PENDING, refuse_open, rotate, studies_at
        from datasites.node.process import alone_in
        from privacy.identity import fingerprint

        with alone_in(home) as place:
            going_on = place.config().role == "scientist" and (place.folder / PENDING).exists()
            if not now and not going_on:
                refuse_open(place, open_studies or studies_at)
            if not going_on:
                rotate(place, now=dt.datetime.now(dt.UTC))
            found = fingerprint(place.identity().public_key)
            said = (
                then(place) if then else "Next: run the role again; it waits until the operator has admitted the key."
            )
        console.print(f"new fingerprint: {found}", highlight=False)
        console.print(said, highlight=False)
        if json_output:
            show({"home": str(home), "fingerprint": found})


def add_import_gap(app: typer.Typer, import_gap: Callable[[Path, str, str], Gap], help_text: str) -> None:
    """Add the command ``import-gap`` to a role's app: what a person does after a restore from an old backup.

    Args:
        app: gets the command.
        import_gap: takes the role's folder, who acts and why.
        help_text: what the command is for.
    """

    @app.command("import-gap", help=help_text)
    def command(home: HomeOption, by: _ByOption, reason: _ReasonOption, json_output: JsonOption = False) -> None:
        lines, imported = import_gap(home, by, reason)
        for line in lines:
            console.print(line, highlight=False)
        if json_output:
            show(imported)


def add_tidy(app: typer.Typer, tidy_home: Callable[[Home, bool], list[dict[str, Any]]]) -> None:
    """Add the command ``tidy`` to a role's app: delete what rounds that are over no longer need.

    Args:
        app: gets the command.
        tidy_home: takes the role's folder and whether only to say what would go; returns study, files and bytes.
    """

    @app.command("tidy")
    def command(
        home: HomeOption,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go; the role may run.")] = False,
        json_output: JsonOption = False,
    ) -> None:
        """Delete what rounds that are over no longer need; a role that runs does it by itself."""
        from datasites.node.home import Home
        from datasites.node.process import alone_in

        if dry_run:
            found = tidy_home(Home(folder=home), True)
        else:
            with alone_in(home) as place:
                found = tidy_home(place, False)
        for one in found:
            size = f"{one['bytes'] / 1e6:.1f} MB"
            console.print(f"study {one['study']}: {one['files']} files, {size}", highlight=False, markup=False)
        console.print(("nothing was deleted" if dry_run else "deleted") if found else "nothing is superfluous")
        if json_output:
            show({"home": str(home), "dry_run": dry_run, "studies": found})


def prepare_process(role: str = "") -> None:
    """Close what this process writes to other users, and log as ``TESSERA_LOG_FORMAT`` and ``TESSERA_LOG_LEVEL`` say.

    Raises:
        InvalidInput: an unknown format or level.
    """
    from datasites.node.process import configure_logs

    os.umask(0o077)
    log_format, level = os.environ.get("TESSERA_LOG_FORMAT", "text"), os.environ.get("TESSERA_LOG_LEVEL", "warning")
    configure_logs(log_format, level, role=role)
