"""``tessera fetch`` and ``tessera convert``: from public repositories and common file formats to tables."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from datasites.node.commands import JsonOption, console, show

app = typer.Typer()


@app.command()
def fetch(
    out: Annotated[Path, typer.Argument(help="Folder for the downloads; an unfinished one is continued.")],
    project: Annotated[list[str], typer.Option(help="GDC project such as TCGA-BRCA; may be given several times.")],
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many cases of each project.")] = None,
    cases_only: Annotated[bool, typer.Option("--cases-only", help="Clinical data only, no expression files.")] = False,
    url: Annotated[
        str | None, typer.Option(envvar="TESSERA_GDC_URL", help="The GDC API; NCI's own by default.")
    ] = None,
    requests_per_second: Annotated[float, typer.Option(min=0.01, max=50, help="The most to ask of the server.")] = 4.0,
    max_gigabytes: Annotated[float, typer.Option(min=0.001, help="Refuse to download more than this.")] = 20.0,
    json_output: JsonOption = False,
) -> None:
    """Download open-access TCGA cases and STAR-counts files from the GDC; run it again to continue."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from datasites.data.convert.gdc_client import DEFAULT_URL, GdcClient
    from datasites.data.convert.gdc_download import fetch_project

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    results = []
    with (
        GdcClient(url or DEFAULT_URL, requests_per_second=requests_per_second) as client,
        Progress(*columns, console=console, transient=True) as bar,
    ):
        for name in project:
            job = bar.add_task(name, total=None)
            done = fetch_project(
                client,
                name,
                out,
                limit=limit,
                expression=not cases_only,
                max_bytes=int(max_gigabytes * 1e9),
                progress=partial(_show_progress, bar, job),
            )
            text = f"{name}: {done.cases} cases, {done.files} expression files, {done.bytes_moved} bytes moved"
            bar.console.print(text, highlight=False)
            for file in done.refused:
                bar.console.print(f"{name}: the server does not give {file}", highlight=False, soft_wrap=True)
            counts = {"cases": done.cases, "files": done.files, "bytes_moved": done.bytes_moved}
            results.append({"project": name, **counts, "refused": list(done.refused)})
    then = f"next: tessera convert {shlex.quote(str(out))} TABLES --from gdc"
    console.print(then, highlight=False, markup=False, soft_wrap=True)
    if json_output:
        show({"out": str(out), "projects": results})
    if any(project["refused"] for project in results):
        raise typer.Exit(1)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Folder of GDC downloads, a cBioPortal study, or slide features.")],
    out: Annotated[Path, typer.Argument(help="New folder for the tables.")],
    kind: Annotated[str, typer.Option("--from", help="gdc, cbioportal or features.")],
    cohort: Annotated[str | None, typer.Option(help="Name of the cohort; the project's or study's by default.")] = None,
    genes: Annotated[Path | None, typer.Option(help="Text file of gene symbols to keep (public).")] = None,
    scale: Annotated[str, typer.Option(help="constants, reference or cohort (public data only).")] = "constants",
    reference: Annotated[
        Path | None, typer.Option(help="Table of gene, centre and scale, for --scale reference.")
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Folder of slide features (*.h5) to join by case.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Which network made the slide features, such as uni_v1.")] = None,
    tables: Annotated[Path | None, typer.Option(help="For --from features: tables to join them to.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Go on without files that are missing, broken or of nobody known.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Turn GDC, cBioPortal or slide-feature files into tables for `tessera federation deal`."""
    from datasites.data.convert.conversion import convert as convert_folder
    from datasites.data.convert.conversion import summary

    made = convert_folder(
        source,
        out,
        kind=kind,
        cohort=cohort,
        genes=genes,
        scaling=scale,  # type: ignore[arg-type]  # checked where it is used
        reference=reference,
        features=features,
        encoder=encoder,
        tables=tables,
        partial=partial,
    )
    if scale == "cohort":
        console.print("[yellow]scaled on these very records: for public data only[/yellow]")
    for part in made:
        counts = ", ".join(f"{m}: {len(t)} cases" for m, t in part.modalities.items())
        console.print(f"{part.name}: {len(part.clinical)} cases; {counts or 'clinical only'}", highlight=False)
        for line in part.notes.get("lost", []):
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    if json_output:
        lost = {part.name: list(part.notes.get("lost", [])) for part in made}
        show({"out": str(out), "cohorts": {part.name: summary(part) for part in made}, "lost": lost})


def _show_progress(bar: Any, job: Any, _: str, done: int, total: int) -> None:
    bar.update(job, completed=done, total=total)
