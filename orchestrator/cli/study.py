"""``tessera propose`` and ``tessera study``: what the study's scientists run, with the orchestrator's identity."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from privacy.errors import InvalidInput

app = typer.Typer()
study_app = typer.Typer(help="Run, follow and resume studies.", no_args_is_help=True)
app.add_typer(study_app, name="study")
_console = Console(stderr=True)

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="TESSERA_HOME", help="The orchestrator's folder, while it runs.")
]
StudyArgument = Annotated[str, typer.Argument(help="Name of the study.")]
RoundsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1000,
        help="Rounds of plain training; without, a schedule (rounds, rate, centring) that suits the noise.",
    ),
]
NoiseOption = Annotated[str, typer.Option(help="local (every hospital its own) or shared (small hospitals).")]
TaskOption = Annotated[str, typer.Option(help="I-II, early-late or ordinal.")]
EpsilonOption = Annotated[float, typer.Option(help="Worst case per patient; inf: no privacy.")]
DeltaOption = Annotated[float, typer.Option(min=1e-12, max=0.1, help="Delta of that epsilon.")]
ModelOption = Annotated[str, typer.Option(help="linear, mlp, mlp-auxiliary or convolutional (tissue maps).")]
FusionOption = Annotated[
    str, typer.Option(help="Of an MLP: shared head, tokens for what is missing, or a head per combination.")
]
AggregationOption = Annotated[
    str, typer.Option(help="fedavg, fedprox, fedadam, dgb (blending), pcw (proximity) or dgb+pcw.")
]
SitesOption = Annotated[list[str] | None, typer.Option("--site", help="A hospital to ask; all of the roster without.")]
MinSitesOption = Annotated[int, typer.Option(min=3, help="Fewest hospitals in a sum that may be decrypted.")]
PurposeOption = Annotated[str, typer.Option(help="What the study is for, in a sentence reviewers will read.")]
LegalOption = Annotated[str, typer.Option(help="The legal basis reviewers will read.")]
DeadlineOption = Annotated[int, typer.Option(min=5, help="Seconds a round waits for a hospital.")]
TestOption = Annotated[
    Path | None, typer.Option(help="Dataset of held-out public or synthetic patients to measure the model on.")
]
OutOption = Annotated[Path | None, typer.Option(help="Folder for model and report; in the home by default.")]
TimeoutOption = Annotated[float | None, typer.Option(min=1, help="Stop waiting after so many seconds.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on the last line of standard output.")]

_PURPOSE = "Train one cancer-staging model from what several hospitals hold."
_LEGAL = "Test on synthetic or public data; no legal basis needed."


@app.command()
def propose(
    name: StudyArgument,
    home: HomeOption,
    rounds: RoundsOption = None,
    noise: NoiseOption = "shared",
    task: TaskOption = "early-late",
    epsilon: EpsilonOption = 8.0,
    delta: DeltaOption = 1e-4,
    model: ModelOption = "linear",
    fusion: FusionOption = "shared",
    aggregation: AggregationOption = "fedavg",
    site: SitesOption = None,
    min_sites: MinSitesOption = 3,
    purpose: PurposeOption = _PURPOSE,
    legal_basis: LegalOption = _LEGAL,
    deadline_seconds: DeadlineOption = 600,
    json_output: JsonOption = False,
) -> None:
    """Send a study to the hospitals for review; it starts by itself once all have approved."""
    settings = _settings(locals())
    with _view() as view:
        made = _propose(home, settings, view, site)
    _console.print(f"{name} is proposed as {made['proposal_hash'][:16]}; follow it with: tessera study wait {name}")
    if json_output:
        typer.echo(json.dumps(made))


@study_app.command("run")
def run(
    name: StudyArgument,
    home: HomeOption,
    rounds: RoundsOption = None,
    noise: NoiseOption = "shared",
    task: TaskOption = "early-late",
    epsilon: EpsilonOption = 8.0,
    delta: DeltaOption = 1e-4,
    model: ModelOption = "linear",
    fusion: FusionOption = "shared",
    aggregation: AggregationOption = "fedavg",
    site: SitesOption = None,
    min_sites: MinSitesOption = 3,
    purpose: PurposeOption = _PURPOSE,
    legal_basis: LegalOption = _LEGAL,
    deadline_seconds: DeadlineOption = 600,
    test: TestOption = None,
    out: OutOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Propose a study, wait for the hospitals' people and for all rounds, and print the result as JSON."""
    settings = _settings(locals())
    with _view() as view:
        made = _propose(home, settings, view, site)
        view.note(f"proposal {made['proposal_hash']}")
        result = _followed(home, name, view, timeout, test, out)
    typer.echo(json.dumps(result, default=str))


@study_app.command("wait")
def wait(
    name: StudyArgument,
    home: HomeOption,
    test: TestOption = None,
    out: OutOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Wait until a proposed study is finished, and print the result as JSON."""
    with _view() as view:
        result = _followed(home, name, view, timeout, test, out)
    typer.echo(json.dumps(result, default=str))


@study_app.command("resume")
def resume(name: StudyArgument, home: HomeOption) -> None:
    """Let a paused study go on, once its reason is dealt with."""
    from datasites.node.home import Home
    from orchestrator.studies.status import client_of

    with client_of(Home(folder=home)) as client:
        typer.echo(json.dumps(client.post_json(f"/studies/{name}/resume", {})))


def _settings(given: dict[str, Any]) -> Any:
    from datasites.strategy.registry import NOISE_MODES
    from orchestrator.studies.propose import StudySettings, check_aggregation, check_fusion
    from orchestrator.studies.schedule import PLAIN_ROUNDS, with_schedule

    for option, allowed in (
        ("noise", tuple(NOISE_MODES)),
        ("task", ("I-II", "early-late", "ordinal")),
        ("model", ("linear", "mlp", "mlp-auxiliary", "convolutional")),
    ):
        if given[option] not in allowed:
            raise InvalidInput(f"expected --{option} out of {', '.join(allowed)}, got {given[option][:40]!r}")
    if not given["epsilon"] > 0:
        raise InvalidInput(f"expected --epsilon above 0, got {given['epsilon']:g}; inf means no privacy")
    check_aggregation(given["aggregation"], given["noise"])
    check_fusion(given["fusion"], given["model"], given["noise"])
    same = (
        "aggregation",
        "fusion",
        "purpose",
        "legal_basis",
        "task",
        "epsilon",
        "delta",
        "noise",
        "min_sites",
        "deadline_seconds",
    )
    chosen = {option: given[option] for option in same}
    settings = StudySettings(study=given["name"], architecture=given["model"], rounds=PLAIN_ROUNDS, **chosen)
    return with_schedule(settings, given["rounds"])


@contextmanager
def _view() -> Iterator[Any]:
    from orchestrator.demo.view import DemoView

    with DemoView(_console) as view:
        yield view


def _propose(home: Path, settings: Any, view: Any, sites: list[str] | None) -> dict[str, Any]:
    from datasites.node.home import Home
    from orchestrator.studies.run import propose as send

    return send(Home(folder=home), settings, view, sites=tuple(sites or ()))


def _followed(
    home: Path, name: str, view: Any, timeout: float | None, test: Path | None, out: Path | None
) -> dict[str, Any]:
    from datasites.node.home import Home
    from orchestrator.demo.roles import TEST_FOLDER
    from orchestrator.studies.run import keep_result, result_folder
    from orchestrator.studies.run import wait as follow

    place = Home(folder=home)
    status = follow(place, name, view, timeout_seconds=timeout)
    synthetic = home / TEST_FOLDER
    held_out = test or (synthetic if synthetic.exists() else None)
    return keep_result(place, status, out or result_folder(place, name), test=held_out)
