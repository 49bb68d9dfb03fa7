"""``tessera constants``: means and weights from public tables, for studies with a small epsilon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from datasites.node.commands import JsonOption, console, show
from orchestrator.cli.options import TaskOption
from privacy.errors import InvalidInput

app = typer.Typer()
constants_app = typer.Typer(help="Constants from public tables, for a small epsilon.", no_args_is_help=True)
app.add_typer(constants_app, name="constants")


@constants_app.command("make")
def make(
    out: Annotated[Path, typer.Argument(help="A new file.")],
    datasets: Annotated[
        list[Path] | None, typer.Argument(help="Dataset folders of public patients, as datasite ingest writes them.")
    ] = None,
    source: Annotated[str, typer.Option(help="What the tables are, for the hospitals' people.")] = "",
    data: Annotated[Path | None, typer.Option(help="A folder of public TCGA tables, in the datasets' place.")] = None,
    task: TaskOption = "early-late",
    centres_only: Annotated[bool, typer.Option("--centres-only", help="Means alone, no weights.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Make constants of public tables: whoever has the same tables makes the same file."""
    from datasites.node.files import write_atomically
    from orchestrator.simulation.public_constants import from_datasets, from_tables, make_constants

    if not source.strip():
        raise InvalidInput("expected --source: say what the tables are; the hospitals' people read it")
    if (data is None) == (not datasets):
        raise InvalidInput("expected dataset folders, or --data with a folder of public tables")
    if out.exists():
        raise InvalidInput(f"expected a new file, {out} exists")
    public = from_tables(data, task) if data is not None else from_datasets(datasets or [])
    made = make_constants(public, source, weights=not centres_only)
    write_atomically(out, made.data, mode=0o644)
    _say(made, json_output)


@constants_app.command("show")
def show_constants(
    file: Annotated[Path, typer.Argument(help="A file of constants.")], json_output: JsonOption = False
) -> None:
    """Say what a file of constants holds, and the hashes that a proposal states."""
    from orchestrator.studies.proposing.constants import read_constants

    _say(read_constants(file), json_output)


def _say(made: Any, json_output: bool) -> None:
    stated = made.stated
    facts = {
        "source": stated.source,
        "task": made.task,
        "patients": stated.patients,
        "features": {name: len(constants.names) for name, constants in made.modalities.items()},
        "weights": stated.weights,
        "tables": dict(made.tables),
        "tables_hash": stated.tables_hash,
        "constants_hash": stated.constants_hash,
    }
    if json_output:
        show(facts)
        return
    features = ", ".join(f"{n} of {name}" for name, n in facts["features"].items())
    console.print(
        f"{'Means and weights' if stated.weights else 'Means'} from {stated.patients} public patients", highlight=False
    )
    console.print(f"Source: {stated.source}", highlight=False)
    console.print(f"Features: {features}", highlight=False)
    console.print(f"Tables (SHA-256 over all): {stated.tables_hash}", highlight=False)
    console.print(f"This file (SHA-256): {stated.constants_hash}", highlight=False)
