"""``tessera schema``, ``federation``, ``constants``: the schema as a document; public tables dealt, and made use of."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from datasites.data.commands import deal, say_lost
from datasites.node.commands import JsonOption, console, show
from orchestrator.cli.options import TaskOption
from privacy.errors import InvalidInput

app = typer.Typer()
schema_app = typer.Typer(help="The study's schema: modalities, columns, outcome.", no_args_is_help=True)
app.add_typer(schema_app, name="schema")
federation_app = typer.Typer(
    help="Invented hospitals, for demos and simulations on public tables.", no_args_is_help=True
)
app.add_typer(federation_app, name="federation")
federation_app.command("deal")(deal)
constants_app = typer.Typer(help="Constants from public tables, for a small epsilon.", no_args_is_help=True)
app.add_typer(constants_app, name="constants")

SchemaArgument = Annotated[Path, typer.Argument(help="A schema: TOML, JSON, or the name of one that comes along.")]


@schema_app.command()
def check(schema: SchemaArgument, json_output: JsonOption = False) -> None:
    """Check a schema and say what it holds."""
    from datasites.data.reading.schema_files import read_schema_document
    from datasites.study.schema.scales import flat_columns

    found = read_schema_document(schema)
    flat = {modality.name: list(columns) for modality in found.modalities if (columns := flat_columns(modality))}
    console.print(f"{found.title} ({found.name}, version {found.version})", highlight=False)
    for modality in found.modalities:
        text = f"  {modality.name}: {modality.label}, {modality.kind}, {len(modality.names)} columns"
        console.print(f"{text}, {modality.scaling} scaling", highlight=False)
        if modality.scaling == "self":
            console.print("    [yellow]scaled on each hospital's own records: no epsilon can be stated[/yellow]")
        if modality.name in flat:
            console.print(
                f"    {len(flat[modality.name])} columns, such as {flat[modality.name][0]}, become nearly one number "
                "over their whole range: give each a centre and a scale in its own unit",
                highlight=False,
                markup=False,
            )
    for outcome in found.outcomes:
        console.print(f"  outcome {outcome.name}: {outcome.label}, {outcome.kind}", highlight=False)
    console.print(f"  SHA-256 {found.schema_hash}", highlight=False)
    if json_output:
        show(
            {
                "name": found.name,
                "version": found.version,
                "schema_hash": found.schema_hash,
                "modalities": {m.name: len(m.names) for m in found.modalities},
                "outcomes": {o.name: o.kind for o in found.outcomes},
                "self_scaled": [m.name for m in found.modalities if m.scaling == "self"],
                "nearly_constant": flat,
            }
        )


@schema_app.command()
def diff(before: SchemaArgument, after: SchemaArgument, json_output: JsonOption = False) -> None:
    """Say what differs between two schemas; exit code 1 if anything does."""
    from datasites.data.reading.schema_files import differences, read_schema_document

    found = differences(read_schema_document(before), read_schema_document(after))
    for line in found:
        console.print(line, highlight=False, markup=False)
    if json_output:
        show({"differences": found})
    if found:
        raise typer.Exit(1)
    console.print("the schemas are the same")


@schema_app.command()
def init(
    tables: Annotated[list[Path], typer.Argument(help="Tables whose columns the draft names.")],
    out: Annotated[Path, typer.Option(help="A new TOML file.")],
    name: Annotated[str, typer.Option(help="Name of the schema.")],
    patient: Annotated[str, typer.Option(help="The column that says whose row it is.")] = "patient_id",
    dictionary: Annotated[
        Path | None, typer.Option(help="Your data dictionary (a table, or REDCap's): the schema is then complete.")
    ] = None,
) -> None:
    """Draft a schema from tables, or make one by a data dictionary: no number of any record enters it."""
    from datasites.data.reading.schema_files import described, draft
    from datasites.node.files import write_atomically

    if out.exists():
        raise InvalidInput(f"expected a new file, {out} exists; choose another name")
    if dictionary is not None:
        text, notes = described(tables, dictionary, name=name, patient=patient)
        write_atomically(out, text.encode(), mode=0o644)
        for note in notes:
            console.print(note, highlight=False, markup=False)
        console.print(f"the schema is in {out}; read your tables by it:", highlight=False, markup=False)
        command = f"tessera datasite ingest {shlex.quote(str(tables[0]))} --schema {shlex.quote(str(out))} --home HOME"
        console.print(f"  {command}", highlight=False, markup=False, soft_wrap=True)
        return
    write_atomically(out, draft(tables, name=name, patient=patient).encode(), mode=0o644)
    console.print(
        f"a draft is in {out}: fill in labels, units, ranges and the outcome, then run", highlight=False, markup=False
    )
    check = f"  tessera schema check {shlex.quote(str(out))}"
    console.print(check, highlight=False, markup=False, soft_wrap=True)


@federation_app.callback()
def _federation() -> None:
    """Invented hospitals, for demos and simulations on public tables."""


@schema_app.command()
def agree(
    schema: SchemaArgument,
    home: Annotated[Path, typer.Option(help="The hospital's folder, whose key signs.")],
    out: Annotated[Path | None, typer.Option(help="Where the signed agreement goes; beside the schema.")] = None,
) -> None:
    """Sign a schema for this hospital: the file to send to the others holds its name, version and hash."""
    import json

    from datasites.data.reading.schema_files import read_schema_document
    from datasites.node.files import write_atomically
    from datasites.node.home import Home
    from datasites.study.schema.document import Agreement
    from datasites.study.signing import dump, seal

    found, place = read_schema_document(schema), Home(folder=home)
    config = place.config()
    value = Agreement(
        schema=found.name,
        version=found.version,
        schema_hash=found.schema_hash,
        party=config.name,
        institution=config.institution,
    )
    target = out or Path(f"{found.name}-v{found.version}.{config.name}.signed.json")
    signed = seal(place.identity(), "study-schema", value)
    write_atomically(target, json.dumps(dump(signed), indent=2).encode(), mode=0o644)
    console.print(f"signed: {target}", highlight=False, soft_wrap=True)


@schema_app.command("agreed")
def agreed(
    schema: SchemaArgument,
    signatures: Annotated[list[Path], typer.Argument(help="Signed agreements of the hospitals.")],
    roster: Annotated[Path, typer.Option(help="The consortium's roster, whose keys count.")],
    json_output: JsonOption = False,
) -> None:
    """Check that hospitals of the roster signed this very schema, and say who has not yet."""
    from datasites.data.reading.schema_files import read_schema_document
    from datasites.node.roster import Roster
    from datasites.study.schema.document import check_agreement
    from datasites.study.signing import Signed, parse

    found, known = read_schema_document(schema), Roster.load(roster)
    keys: dict[str, Any] = {party.name: party.public_key for party in known.sites}
    done: list[str] = []
    for path in signatures:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"expected a signed agreement at {path}, could not read one") from error
        done.append(check_agreement(found, parse(Signed, data), keys))
    waiting = sorted(set(keys) - set(done))
    for name in sorted(set(done)):
        console.print(f"{name} has signed", highlight=False)
    for name in waiting:
        console.print(f"{name} has not signed yet", highlight=False)
    if json_output:
        show({"schema_hash": found.schema_hash, "signed": sorted(set(done)), "waiting": waiting})
    if waiting:
        raise typer.Exit(1)


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
    say_lost(public.lost)
    made = make_constants(public, source, weights=not centres_only)
    write_atomically(out, made.data, mode=0o644)
    _say(made, json_output, public.lost)


@constants_app.command("show")
def show_constants(
    file: Annotated[Path, typer.Argument(help="A file of constants.")], json_output: JsonOption = False
) -> None:
    """Say what a file of constants holds, and the hashes that a proposal states."""
    from orchestrator.studies.proposing.constants import read_constants

    _say(read_constants(file), json_output)


def _say(made: Any, json_output: bool, lost: Sequence[str] = ()) -> None:
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
        show({**facts, "lost": list(lost)} if lost else facts)
        return
    features = ", ".join(f"{n} of {name}" for name, n in facts["features"].items())
    console.print(
        f"{'Means and weights' if stated.weights else 'Means'} from {stated.patients} public patients", highlight=False
    )
    console.print(f"Source: {stated.source}", highlight=False)
    console.print(f"Features: {features}", highlight=False)
    console.print(f"Tables (SHA-256 over all): {stated.tables_hash}", highlight=False)
    console.print(f"This file (SHA-256): {stated.constants_hash}", highlight=False)
