"""``tessera simulate``: a study without network and encryption, over many seeds."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from datasites.data.commands import say_lost
from datasites.node.commands import JsonOption, console, show
from orchestrator.cli.options import (
    ColludersOption,
    ConstantsOption,
    DataOption,
    DeltaOption,
    EpsilonOption,
    EvaluationByOption,
    EvaluationShareOption,
    MinSitesOption,
    ModelOption,
    NoiseOption,
    RoundsOption,
    TaskOption,
    one_dataclass,
)
from privacy.errors import InvalidInput

app = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class SimulationOptions:
    """The studies to run; names are those of :class:`orchestrator.simulation.runs.SimulationRequest`."""

    data: DataOption = None
    schema: Annotated[
        Path | None,
        typer.Option(
            help="A study's schema: a file, or one that comes along. With --data it reads any tables: a folder a "
            "hospital, or tables that are dealt; without, patients are made up."
        ),
    ] = None
    outcome: Annotated[str | None, typer.Option(help="Which outcome of --schema; its first by default.")] = None
    federation: Annotated[
        str, typer.Option(help="tri-modal, bi-modal, upper-bound, tissue-source-sites or dirichlet.")
    ] = "tri-modal"
    sites: Annotated[int | None, typer.Option(min=3, help="Number of institutions; the preset's own.")] = None
    task: TaskOption = "early-late"
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", help="An aggregation of tessera propose, or upper-bound, pooled, local."),
    ] = None
    architecture: ModelOption = "linear"
    fusion: Annotated[str, typer.Option(help="Of an MLP: shared head, or tokens for what is missing.")] = "shared"
    rounds: RoundsOption = None
    epsilon: EpsilonOption = 8.0
    delta: DeltaOption = 1e-4
    noise: NoiseOption = "local"
    min_sites: MinSitesOption = None
    colluders: ColludersOption = 1
    evaluation_share: EvaluationShareOption = 0.0
    evaluation_by: EvaluationByOption = None
    constants: ConstantsOption = None
    alpha: Annotated[float, typer.Option(min=0.01, help="Evenness of the dirichlet federation.")] = 0.5
    split: Annotated[str, typer.Option(help="stratified or site-held-out.")] = "stratified"
    corrupt: Annotated[str, typer.Option(help="flip:SITE,SITE turns labels around; permute shuffles all.")] = ""
    synthetic_patients: Annotated[
        int, typer.Option("--patients", min=30, help="Synthetic patients, where no data is given.")
    ] = 1500
    plan: Annotated[
        Path | None, typer.Option(help="Folder with plan.py: a network and a loss of your own (tessera plan check).")
    ] = None
    server_step: Annotated[
        Path | None, typer.Option(help="File with server_step(): a server's rule of your own (docs/server-rules.md).")
    ] = None
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto: CUDA where there is one; the same bits only on cpu.")
    ] = "cpu"


@app.command()
@one_dataclass
def simulate(
    options: SimulationOptions,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: split, first model and all noise.")] = 1,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Studies side by side, a process each.")] = os.cpu_count() or 1,
    engine: Annotated[str, typer.Option(help="local, or ray: the sites of one study over many processes.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; a local one is started without.")] = None,
    grid: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE,VALUE of an option above; repeat it to combine several.")
    ] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for every study's model, curve and scores.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Run studies as a live consortium would, without network and encryption: same seed, same model, bit for bit."""
    from orchestrator.simulation.runs import SimulationRequest, summary
    from orchestrator.simulation.sweep import by_cell, jobs_of, parse_grid, private_cost

    if engine not in ("local", "ray"):
        raise InvalidInput(f"expected --engine local or ray, got {engine!r}")
    several = {"methods": tuple(options.methods or ["fedavg"]), "evaluation_by": tuple(options.evaluation_by or ())}
    cells, started = parse_grid(grid or []), time.monotonic()
    with _own_code(options, keep) as own:
        asked = {name: value for name, value in vars(options).items() if name != "server_step"}
        request = SimulationRequest(**{**asked, **several, **own})
        work = jobs_of(request, cells, range(first_seed, first_seed + seeds), keep)
        results = _on_ray(work, address, jobs) if engine == "ray" else _in_processes(work, jobs)
    told = {"sums": _gathered(results, "sums"), "lost": _gathered(results, "lost")}
    report = {
        "metrics": "exact on public data, outside the protocol" if options.data else "exact on synthetic patients",
        "engine": engine,
        **({"grid": by_cell(cells, results)} if grid else {"methods": summary(results)}),
        "on_private_data": private_cost(results),
        **told,
        "runs": results,
        "seconds": round(time.monotonic() - started, 1),
    }
    say_lost(told["lost"])
    if json_output:
        show(report)
    else:
        _print_table(report)


def _gathered(results: list[dict[str, Any]], name: str) -> list[str]:
    """Take a field out of every run; return its different lines, since most runs have the same."""
    found: dict[str, None] = {}
    for result in results:
        lines = result.pop(name, None) or []
        found.update(dict.fromkeys([lines] if isinstance(lines, str) else lines))
    return list(found)


@contextmanager
def _own_code(options: SimulationOptions, keep: Path | None) -> Iterator[dict[str, Any]]:
    """Yield what own code changes of the request: the folder of its whole tree, and the kind of network."""
    if options.plan is None and options.server_step is None:
        yield {}
        return
    from datasites.node.files import write_atomically
    from orchestrator.studies.proposing.own_code import read_plan, rule_file, with_rule

    network = {} if options.plan is None else read_plan(options.plan)
    rule = {} if options.server_step is None else rule_file(options.server_step)
    with tempfile.TemporaryDirectory() as scratch:
        place = (keep or Path(scratch)) / "code"
        for name, data in with_rule(network, rule).items():
            write_atomically(place / name, data)
        network_of_own = options.plan is not None and options.architecture == "linear"
        yield {"plan": place, **({"architecture": "mlp"} if network_of_own else {})}


def _in_processes(work: list[Any], jobs: int) -> list[dict[str, Any]]:
    from orchestrator.simulation.process_engine import processes_for
    from orchestrator.simulation.sweep import run_jobs

    with _progress() as bar:
        if len(work) > 1 and jobs > 1:
            task = bar.add_task("Studies", total=len(work))
            return run_jobs(work, processes=jobs, done=lambda n: bar.update(task, completed=n))
        with processes_for(jobs, work[0].request.device) as make:
            return [job.run(make_engine=make, on_round=_round_bar(bar, job.name, job.seed)) for job in work]


def _on_ray(work: list[Any], address: str | None, jobs: int) -> list[dict[str, Any]]:
    from orchestrator.simulation.ray_engine import ray_cluster

    with ray_cluster(address, processes=jobs) as make, _progress() as bar:
        return [job.run(make_engine=make, on_round=_round_bar(bar, job.name, job.seed)) for job in work]


def _progress() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)


def _round_bar(bar: Any, method: str, seed: int) -> Any:
    task = bar.add_task(f"{method}, seed {seed}", total=None)

    def moved(number: int, rounds: int, figure: float) -> None:
        bar.update(task, total=rounds, completed=number, description=f"{method}, seed {seed}: {figure:.3f}")

    return moved


def _print_table(report: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=f"{report['metrics']}; {report['seconds']} s")
    lines = report.get("grid") or [{"cell": {}, "methods": report["methods"]}]
    names = list(lines[0]["cell"])
    figures = next(iter(lines[0]["methods"].values()))
    for column in (*names, "method", *(name.replace("_", " ").replace("auroc", "AUROC") for name in figures)):
        table.add_column(column)
    for line in lines:
        settings = [str(line["cell"][name]) for name in names]
        for name, entry in line["methods"].items():
            scores = (f"{v['mean']:.3f} ± {v['half_width']:.3f}" for v in entry.values())
            table.add_row(*settings, name, *scores)
    Console().print(table)
    console.print(_cost(report["on_private_data"]), highlight=False)
    for line in report["sums"]:
        console.print(line, highlight=False)


def _cost(cost: dict[str, Any]) -> str:
    if not cost["studies"]:
        return "On private data this would have been no study."
    if cost["epsilon"] is None:
        return "On private data this would have been without privacy."
    studies = f"{cost['studies']} studies" if cost["studies"] > 1 else "one study"
    return (
        f"On private data this would have been {studies}: epsilon {cost['epsilon']:.3g} at delta {cost['delta']:g} for "
        f"every patient of a hospital in all of them, {cost['largest']:.3g} for the costliest alone."
    )
