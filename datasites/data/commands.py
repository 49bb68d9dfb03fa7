"""``tessera federation deal``: public tables dealt to invented hospitals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from datasites.node.commands import JsonOption, console, show

FederationOption = Annotated[str, typer.Option(help="Preset that says who holds what (public tables only).")]
TaskOption = Annotated[str, typer.Option(help="I-II, early-late, ordinal or I-IV (public tables only).")]
SitesOption = Annotated[int | None, typer.Option(min=3, help="Number of institutions (public tables only).")]
SeedOption = Annotated[int, typer.Option(help="Seed of the split (public tables only).")]
ImagesOption = Annotated[str, typer.Option(help="features or tissue-maps (public tables only).")]
_SHOWN = 20


def shown_of(lines: Sequence[str], rest: str = "with --json") -> list[str]:
    """Return the first lines about what was left out when tables were read, and one about where the rest are."""
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"and {more} more lines {rest}"] if more > 0 else [])]


def say_lost(lines: Sequence[str], rest: str = "with --json") -> None:
    """Print what :func:`shown_of` returns."""
    for line in shown_of(lines, rest):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def deal(
    source: Annotated[Path, typer.Argument(help="Folder of public tables, as described in docs/data.md.")],
    out: Annotated[Path, typer.Option(help="Folder that gets one dataset per institution.")],
    federation: FederationOption = "tri-modal",
    task: TaskOption = "early-late",
    sites: SitesOption = None,
    seed: SeedOption = 0,
    images: ImagesOption = "features",
    mapping: Annotated[Path | None, typer.Option(help="Your file of words and units of clinical columns.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Deal public tables to invented hospitals, some patients held out: for demos, simulations and benchmarks."""
    from rich.progress import Progress

    from datasites.data.ingest import READING
    from datasites.data.ingest import ingest as deal_tables
    from datasites.data.reading.mapping import read_mapping
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
            mapping=read_mapping(mapping) if mapping else None,
            progress=lambda name, done, total: bar.update(job, description=name, completed=done, total=total),
        )
    for site in plan.sites:
        console.print(f"{site.name}: {len(site.cases)} patients, {', '.join(site.modalities)}", highlight=False)
    read = json.loads((out / READING).read_text(encoding="utf-8"))
    lines = [*(f"warning: {line}" for line in read["warnings"]), *read["lost"]]
    say_lost(lines, f"in {out / READING}")
    if json_output:
        sites_made = [{"name": s.name, "modalities": s.modalities, "patients": len(s.cases)} for s in plan.sites]
        dealt = {"federation": plan.name, "task": plan.task, "sites": sites_made, "test": len(plan.test)}
        show({"out": str(out), **dealt, **read})
