"""``tessera simulate``: a study without network and encryption, over many seeds."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from privacy.errors import InvalidInput

app = typer.Typer()
_console = Console(stderr=True)


@app.command()
def simulate(
    data: Annotated[Path | None, typer.Option(help="Folder of TCGA tables; synthetic patients when left out.")] = None,
    federation: Annotated[
        str, typer.Option(help="tri-modal, bi-modal, upper-bound, tissue-source-sites or dirichlet.")
    ] = "tri-modal",
    sites: Annotated[int | None, typer.Option(min=3, help="Number of institutions; the preset's own.")] = None,
    task: Annotated[str, typer.Option(help="I-II, early-late or ordinal.")] = "early-late",
    method: Annotated[
        list[str] | None, typer.Option(help="fedavg, fedprox, fedadam, dgb, pcw, dgb+pcw, upper-bound, pooled, local.")
    ] = None,
    model: Annotated[str, typer.Option(help="linear, mlp, mlp-auxiliary or convolutional (tissue maps).")] = "linear",
    fusion: Annotated[str, typer.Option(help="Of an MLP: shared head, or tokens for what is missing.")] = "shared",
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Rounds of plain training; without, a schedule (rounds, rate, centring) that suits the noise.",
        ),
    ] = None,
    epsilon: Annotated[float, typer.Option(help="Worst case per patient; inf: no privacy.")] = 8.0,
    delta: Annotated[float, typer.Option(min=1e-12, max=0.1, help="Delta of that epsilon.")] = 1e-4,
    noise: Annotated[str, typer.Option(help="local or shared.")] = "local",
    min_sites: Annotated[
        int, typer.Option(min=3, help="Fewest sites in a sum; under shared noise the more, the less noise.")
    ] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: split, first model and all noise.")] = 1,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Studies side by side, a process each.")] = os.cpu_count() or 1,
    engine: Annotated[str, typer.Option(help="local, or ray: the sites of one study over many processes.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; a local one is started without.")] = None,
    alpha: Annotated[float, typer.Option(min=0.01, help="Evenness of the dirichlet federation.")] = 0.5,
    split: Annotated[str, typer.Option(help="stratified or site-held-out.")] = "stratified",
    corrupt: Annotated[str, typer.Option(help="flip:SITE,SITE turns labels around; permute shuffles all.")] = "",
    patients: Annotated[int, typer.Option(min=30, help="Synthetic patients, where no data is given.")] = 1500,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Run studies as a live consortium would, without network and encryption: same seed, same model, bit for bit."""
    from orchestrator.simulation.runs import SimulationRequest, summary

    if engine not in ("local", "ray"):
        raise InvalidInput(f"expected --engine local or ray, got {engine!r}")
    request = SimulationRequest(
        data=data,
        federation=federation,
        sites=sites,
        task=task,
        methods=tuple(method or ["fedavg"]),
        architecture=model,
        fusion=fusion,
        rounds=rounds,
        epsilon=epsilon,
        delta=delta,
        noise=noise,
        alpha=alpha,
        split=split,
        corrupt=corrupt,
        synthetic_patients=patients,
        min_sites=min_sites,
    )
    started = time.monotonic()
    chosen = range(first_seed, first_seed + seeds)
    results = _on_ray(request, chosen, address, jobs) if engine == "ray" else _in_processes(request, chosen, jobs)
    report = {
        "metrics": "exact on public data, outside the protocol" if data else "exact on synthetic patients",
        "engine": engine,
        "methods": summary(results),
        "runs": results,
        "seconds": round(time.monotonic() - started, 1),
    }
    if json_output:
        typer.echo(json.dumps(report))
    else:
        _show(report)


def _in_processes(request: Any, seeds: range, jobs: int) -> list[dict[str, Any]]:
    from orchestrator.simulation.runs import run_all, run_one

    studies = len(seeds) * len(request.methods)
    with _progress() as bar:
        if studies > 1 and jobs > 1:
            task = bar.add_task("Studies", total=studies)
            return run_all(request, seeds, jobs=jobs, done=lambda n: bar.update(task, completed=n))
        return [run_one(request, m, s, on_round=_round_bar(bar, m, s)) for s in seeds for m in request.methods]


def _on_ray(request: Any, seeds: range, address: str | None, jobs: int) -> list[dict[str, Any]]:
    from orchestrator.simulation.ray_engine import ray_cluster
    from orchestrator.simulation.runs import run_one

    with ray_cluster(address, processes=jobs) as make, _progress() as bar:
        return [
            run_one(request, m, s, make_engine=make, on_round=_round_bar(bar, m, s))
            for s in seeds
            for m in request.methods
        ]


def _progress() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=_console, transient=True)


def _round_bar(bar: Any, method: str, seed: int) -> Any:
    task = bar.add_task(f"{method}, seed {seed}", total=None)

    def moved(number: int, rounds: int, auroc: float) -> None:
        bar.update(task, total=rounds, completed=number, description=f"{method}, seed {seed}: AUROC {auroc:.3f}")

    return moved


def _show(report: dict[str, Any]) -> None:
    table = Table(title=f"{report['metrics']}; {report['seconds']} s")
    for column in ("method", "AUROC", "balanced accuracy", "cross-entropy", "calibration error"):
        table.add_column(column)
    for name, entry in report["methods"].items():
        table.add_row(name, *(f"{v['mean']:.3f} ± {v['half_width']:.3f}" for v in entry.values()))
    Console().print(table)
