"""``tessera federation deal``: public tables dealt to invented hospitals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datasites.node.commands import JsonOption, console, show

FederationOption = Annotated[str, typer.Option(help="Preset that says who holds what (public tables only).")]
TaskOption = Annotated[str, typer.Option(help="I-II, early-late or ordinal (public tables only).")]
SitesOption = Annotated[int | None, typer.Option(min=3, help="Number of institutions (public tables only).")]
SeedOption = Annotated[int, typer.Option(help="Seed of the split (public tables only).")]
ImagesOption = Annotated[str, typer.Option(help="features or tissue-maps (public tables only).")]


def deal(
    source: Annotated[Path, typer.Argument(help="Folder of public tables, as described in docs/data.md.")],
    out: Annotated[Path, typer.Option(help="Folder that gets one dataset per institution.")],
    federation: FederationOption = "tri-modal",
    task: TaskOption = "early-late",
    sites: SitesOption = None,
    seed: SeedOption = 0,
    images: ImagesOption = "features",
    json_output: JsonOption = False,
) -> None:
    """Deal public tables to invented hospitals, some patients held out: for demos, simulations and benchmarks."""
    from rich.progress import Progress

    from datasites.data.ingest import ingest as deal_tables
    from datasites.data.tcga.tables import images_of

    with Progress(console=console, transient=True) as bar:
        job = bar.add_task("Dealing")
        plan = deal_tables(
            source,
            out,
            federation=federation,
            task=task,
            sites=sites,
            seed=seed,
            images=images_of(images),
            progress=lambda name, done, total: bar.update(job, description=name, completed=done, total=total),
        )
    for site in plan.sites:
        console.print(f"{site.name}: {len(site.cases)} patients, {', '.join(site.modalities)}", highlight=False)
    if json_output:
        sites_made = [{"name": s.name, "modalities": s.modalities, "patients": len(s.cases)} for s in plan.sites]
        show({"out": str(out), "federation": plan.name, "task": plan.task, "sites": sites_made, "test": len(plan.test)})
