"""``tessera datasite ingest``: this hospital's own tables become its dataset, by the study's schema."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datasites.data.commands import FederationOption, ImagesOption, SeedOption, SitesOption, TaskOption, deal
from datasites.node.commands import JsonOption, console, show
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from datasites.data.reading.report import ReadingReport
    from datasites.study.schema.document import StudySchema

_SHOWN_PROBLEMS = 20


def ingest(
    tables: Annotated[list[Path], typer.Argument(help="Your tables (CSV, TSV, Parquet, Feather, Excel) or a folder.")],
    schema: Annotated[Path | None, typer.Option(help="The study's schema: TOML, JSON, or a name.")] = None,
    home: Annotated[Path | None, typer.Option(help="This hospital's folder, made by `tessera datasite init`.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Which outcome of the schema; its only one by default.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="Your file that says where your columns are.")] = None,
    cohort: Annotated[str | None, typer.Option(help="Cohort of every patient, if no column tells it.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; yours and the schema's by default.")] = None,
    mock: Annotated[Path | None, typer.Option(help="Released tables that the mock follows; else the schema.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write the reading report only, no dataset.")] = False,
    out: Annotated[Path | None, typer.Option(help="Deal public tables instead: see `tessera federation deal`.")] = None,
    federation: FederationOption = "tri-modal",
    task: TaskOption = "early-late",
    sites: SitesOption = None,
    seed: SeedOption = 0,
    images: ImagesOption = "features",
    json_output: JsonOption = False,
) -> None:
    """Read your own tables by the study's schema and make this hospital's dataset; nothing leaves this machine."""
    if schema is None and out is not None and len(tables) == 1:
        deal(tables[0], out, federation, task, sites, seed, images, mapping, json_output)
    elif schema is None or home is None or out is not None:
        raise InvalidInput(
            "expected --schema and --home to read your own tables; public tables are dealt to invented hospitals by "
            "`tessera federation deal TABLES --out DIR`"
        )
    else:
        _read_own(tables, schema, home, outcome, mapping, cohort, name, mock, check, json_output)


def _read_own(
    tables: list[Path],
    schema: Path,
    home: Path,
    outcome: str | None,
    mapping: Path | None,
    cohort: str | None,
    name: str | None,
    mock: Path | None,
    check: bool,
    json_output: bool,
) -> None:
    from datasites.data.guard.judging import warnings_of
    from datasites.data.missing import write_changes
    from datasites.data.reading.hospital import read_hospital
    from datasites.data.reading.mapping import read_mapping
    from datasites.data.reading.schema_files import read_schema_document
    from datasites.data.reading.writing import write_hospital, write_report
    from datasites.data.synthesis import read_tables
    from datasites.data.versions import changes_between, check_spelling, versions_of
    from datasites.node.home import Home

    config = Home(folder=home).config()
    document = read_schema_document(schema)
    asked = _only(document, outcome)
    local, of_all = read_mapping(mapping) if mapping else None, cohort or ""
    with console.status("reading your tables"):
        data, report = read_hospital(tables, document, asked, mapping=local, cohort=of_all, scratch=home)
    warned = tuple(warnings_of(document, document.outcome(asked), data))
    problems = (*report.problems, *check_spelling(home / "datasets", data.patients))
    report = replace(report, warnings=warned, problems=problems)
    page, facts = write_report(home / "reading", report)
    _say(report)
    console.print(f"reading report: {page} (.de.html and .fr.html beside it)", highlight=False, soft_wrap=True)
    _refuse(report)
    called = name or f"{config.name}-{document.name}"
    earlier = versions_of(home / "datasets", called)
    version = 1 + (int(earlier[-1].name[1:]) if earlier else 0)
    folder = home / "datasets" / called / f"v{version}"
    if not check:
        write_hospital(
            folder,
            document,
            asked,
            data,
            name=called,
            version=version,
            institution=config.institution,
            cohort=cohort or document.cohorts[0].name,
            released=read_tables(mock) if mock else None,
        )
        if earlier:
            report = replace(report, changes=write_changes(folder, changes_between(earlier[-1], folder)))
            page, facts = write_report(home / "reading", report)
            _say_changes(report)
        console.print(f"{called}, version {version}: {report.patients} patients; `tessera datasite run` publishes it")
    if json_output:
        made = {"dataset": None if check else called, "version": None if check else version}
        show({**made, **_counts(report), "report": str(page), "facts": str(facts)})


def _refuse(report: ReadingReport) -> None:
    if report.problems:
        rest = len(report.problems) - _SHOWN_PROBLEMS
        more = f" (and {rest} more, in the reading report)" if rest > 0 else ""
        raise InvalidInput(f"no dataset was written: {'; '.join(report.problems[:_SHOWN_PROBLEMS])}{more}")


def _counts(report: ReadingReport) -> dict[str, Any]:
    return {
        "patients": report.patients,
        "seen": report.seen,
        "left_out": {step.reason: step.patients for step in report.left_out},
        "modalities": {m.name: m.patients for m in report.modalities},
        "refused": sum(column.refused for column in report.columns),
        "changes": None if report.changes is None else asdict(report.changes),
    }


def _only(document: StudySchema, outcome: str | None) -> str:
    if outcome:
        return document.outcome(outcome).name
    if len(document.outcomes) > 1:
        names = ", ".join(o.name for o in document.outcomes)
        raise InvalidInput(f"the schema has several outcomes; expected --outcome out of {names}")
    return document.outcomes[0].name


def _say(report: ReadingReport) -> None:
    console.print(f"{report.seen} patients in your tables, {report.patients} in the dataset", highlight=False)
    for step in report.left_out:
        console.print(f"  left out, {step.reason}: {step.patients}", highlight=False)
    for modality in report.modalities:
        console.print(f"  with {modality.name}: {modality.patients}", highlight=False)
    for warning in report.warnings[:_SHOWN_PROBLEMS]:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    refused = [column for column in report.columns if column.refused]
    for column in refused[:_SHOWN_PROBLEMS]:
        console.print(f"  [yellow]{column.variable}: {column.refused} of {column.cells} cells refused[/yellow]")


def _say_changes(report: ReadingReport) -> None:
    found = report.changes
    if found is not None:
        text = f"  {found.added} added, {found.changed} changed, {found.withdrawn} withdrawn, {found.same} as before"
        console.print(f"compared with version {found.since}:{text}", highlight=False)
