"""``tessera propose`` and ``tessera study``: what the study's scientists run, with the orchestrator's identity."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from datasites.node.commands import JsonOption, console, show
from orchestrator.cli.options import (
    AggregationOption,
    ColludersOption,
    ConstantsOption,
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
from orchestrator.cli.words import add_words
from privacy.errors import InvalidInput

app = typer.Typer()
study_app = typer.Typer(help="Run, follow, answer for, pause and end studies.", no_args_is_help=True)
app.add_typer(study_app, name="study")

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="TESSERA_HOME", help="The orchestrator's folder, while it runs.")
]
StudyArgument = Annotated[str, typer.Argument(help="Name of the study.")]
TestOption = Annotated[
    Path | None, typer.Option(help="Dataset of held-out public or synthetic patients to measure the model on.")
]
ReportLanguage = Annotated[str, typer.Option("--language", help="Language of the study report: en, de or fr.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder for model and report; in the home by default.")]
TimeoutOption = Annotated[float | None, typer.Option(min=1, help="Stop waiting after so many seconds.")]


FilingOption = Annotated[
    Path | None,
    typer.Option(envvar="TESSERA_FILING", help="TOML file with who answers for the study; options come before it."),
]
FiledOption = Annotated[str, typer.Option(help="Required, here or in --filing; hospitals read it before they decide.")]
_FILED = (
    "purpose",
    "legal_basis",
    "principal_investigator",
    "institution",
    "contact",
    "sponsor",
    "controller",
    "ethics_vote",
    "no_ethics_vote",
    "consent_basis",
    "dpia",
    "data_use",
    "retention_days",
    "licence",
)
_NOT_SETTINGS = frozenset(
    {
        "rounds",
        "standardise",
        "evaluation_by",
        "site",
        "replaces",
        "filing",
        "recipient",
        "plan",
        "constants",
        "server_step",
        *_FILED,
    }
)


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What a scientist decides; names are those of :class:`orchestrator.studies.proposing.settings.StudySettings`."""

    rounds: RoundsOption = None
    noise: NoiseOption = "shared"
    task: TaskOption = "early-late"
    epsilon: EpsilonOption = 8.0
    delta: DeltaOption = 1e-4
    architecture: ModelOption = "linear"
    fusion: Annotated[
        str, typer.Option(help="Of an MLP: shared head, tokens for what is missing, or a head per combination.")
    ] = "shared"
    aggregation: AggregationOption = "fedavg"
    site: Annotated[list[str] | None, typer.Option(help="A hospital to ask; all of the roster without.")] = None
    min_sites: MinSitesOption = None
    colluders: ColludersOption = 1
    evaluation_share: EvaluationShareOption = 0.0
    evaluation_by: EvaluationByOption = None
    standardise: Annotated[
        list[str] | None, typer.Option(help="A modality whose features have no public scale: image, say.")
    ] = None
    constants: ConstantsOption = None
    filing: FilingOption = None
    purpose: FiledOption = ""
    legal_basis: FiledOption = ""
    principal_investigator: FiledOption = ""
    institution: FiledOption = ""
    contact: FiledOption = ""
    sponsor: FiledOption = ""
    controller: FiledOption = ""
    ethics_vote: FiledOption = ""
    no_ethics_vote: Annotated[str, typer.Option(help="Why the study has no ethics vote.")] = ""
    consent_basis: FiledOption = ""
    dpia: Annotated[str, typer.Option(help="Reference of the data protection impact assessment.")] = ""
    data_use: Annotated[
        list[str] | None, typer.Option(help="The purpose as GA4GH DUO codes, such as 'DUO:0000007 MONDO:0004992'.")
    ] = None
    recipient: Annotated[list[str] | None, typer.Option(help="Who gets the model, as NAME:COUNTRY.")] = None
    retention_days: Annotated[int, typer.Option(min=0, max=36500, help="Days until the model is deleted.")] = 0
    licence: FiledOption = ""
    check_chain: Annotated[
        bool,
        typer.Option("--check-chain/--unchecked-chain", help="Hospitals recompute every model; unchecked voids much."),
    ] = True
    helpers: Annotated[
        int | None, typer.Option(help="Helpers that hold part of the pads: 2, or 0; two if the roster has them.")
    ] = None
    publish: Annotated[
        bool,
        typer.Option("--publish/--keep-keys", help="With helpers: publish each round's key, so that all check sums."),
    ] = True
    begin_with: Annotated[
        str, typer.Option("--from", help="A finished study whose last model this one begins with; needs --rounds.")
    ] = ""
    replaces: Annotated[
        str, typer.Option(help="An earlier study that this is a new version of; it ends once this one is proposed.")
    ] = ""
    deadline_seconds: Annotated[int, typer.Option(min=5, help="Seconds a round waits for a hospital.")] = 600
    grace: Annotated[
        int | None, typer.Option(min=0, help="Close a round so many seconds after enough hospitals have come.")
    ] = None
    pass_over_after: Annotated[
        int, typer.Option(min=0, help="Pass over a hospital that missed so many rounds in a row until it returns.")
    ] = 0
    start_with: Annotated[
        int,
        typer.Option(min=0, help="Begin once so many hospitals have approved; the others join with their approval."),
    ] = 0
    plan: Annotated[
        Path | None,
        typer.Option(help="Folder with plan.py: a network and a loss of your own; try it with tessera plan check."),
    ] = None
    server_step: Annotated[
        Path | None, typer.Option(help="File with server_step(): a server's rule of your own (docs/server-rules.md).")
    ] = None


@app.command()
@one_dataclass
def propose(name: StudyArgument, home: HomeOption, options: StudyOptions, json_output: JsonOption = False) -> None:
    """Send a study to the hospitals for review; it starts by itself once all have approved."""
    settings = settings_of(name, options)
    with _view() as view:
        made = proposing(home, settings, view, options)
    follow = f"tessera study wait {shlex.quote(name)}"
    console.print(f"{name} is proposed as {made['proposal_hash'][:16]}; follow it with: {follow}", highlight=False)
    if json_output:
        show(made)


@study_app.command("run")
@one_dataclass
def run(
    name: StudyArgument,
    home: HomeOption,
    options: StudyOptions,
    test: TestOption = None,
    out: OutOption = None,
    timeout: TimeoutOption = None,
    language: ReportLanguage = "en",
) -> None:
    """Propose a study, wait for the hospitals' people and for all rounds, and print the result as JSON."""
    settings = settings_of(name, options)
    with _view() as view:
        made = proposing(home, settings, view, options)
        view.note(f"proposal {made['proposal_hash']}")
        result = _followed(home, name, view, timeout, test, out, language)
    show(result)


@study_app.command("wait")
def wait(
    name: StudyArgument,
    home: HomeOption,
    test: TestOption = None,
    out: OutOption = None,
    timeout: TimeoutOption = None,
    language: ReportLanguage = "en",
) -> None:
    """Wait until a proposed study is finished, and print the result as JSON."""
    with _view() as view:
        result = _followed(home, name, view, timeout, test, out, language)
    show(result)


add_words(study_app)


def settings_of(name: str, options: StudyOptions) -> Any:
    """Return what a study is proposed with, checked before anything is asked for."""
    from datasites.strategy.registry import NOISE_MODES
    from datasites.study.text import check_study_name
    from orchestrator.studies.proposing.filings import filed
    from orchestrator.studies.proposing.mechanisms import check_evaluation_by
    from orchestrator.studies.proposing.propose import check_aggregation, check_fusion
    from orchestrator.studies.proposing.schedule import PLAIN_ROUNDS, with_schedule
    from orchestrator.studies.proposing.settings import StudySettings

    for option, given, allowed in (
        ("noise", options.noise, tuple(NOISE_MODES)),
        ("model", options.architecture, ("linear", "mlp", "mlp-auxiliary", "convolutional")),
    ):
        if given not in allowed:
            raise InvalidInput(f"expected --{option} out of {', '.join(allowed)}, got {given[:40]!r}")
    check_study_name(name)
    if not options.epsilon > 0:
        raise InvalidInput(f"expected --epsilon above 0, got {options.epsilon:g}; inf means no privacy")
    if options.plan is not None and options.architecture == "linear":
        options = replace(options, architecture="mlp")  # centring and its schedule are of our own linear model
    check_aggregation(options.aggregation, options.noise)
    check_fusion(options.fusion, options.architecture, options.noise)
    chosen = {option: value for option, value in vars(options).items() if option not in _NOT_SETTINGS}
    answers: dict[str, Any] = {name: getattr(options, name) for name in _FILED} | {"recipients": options.recipient}
    answered = vars(filed(options.filing, answers))
    standardised = tuple(dict.fromkeys(options.standardise or ()))
    groups = tuple(dict.fromkeys(options.evaluation_by or ()))
    check_evaluation_by(groups, options.evaluation_share)
    chosen |= {"standardised": standardised, "evaluation_by": groups}
    made = StudySettings(study=name, rounds=PLAIN_ROUNDS, **answered, **chosen)
    rounds = options.rounds or (PLAIN_ROUNDS if options.server_step is not None else None)
    return with_schedule(made, rounds, constants=options.constants is not None)


@contextmanager
def _view() -> Iterator[Any]:
    from orchestrator.demo.view import DemoView

    with DemoView(console) as view:
        yield view


def proposing(home: Path, settings: Any, view: Any, options: StudyOptions) -> dict[str, Any]:
    """Propose the study to the hospitals."""
    from datasites.node.home import Home
    from orchestrator.studies.proposing.brought import NOTHING, Brought
    from orchestrator.studies.run import propose as send

    brought, built = NOTHING, None
    if options.constants is not None:
        from orchestrator.studies.proposing.constants import read_constants

        brought = Brought(constants=read_constants(options.constants))
        if not settings.public_centres:
            view.note(
                f"the constants of {options.constants} are not used: at this epsilon and noise the hospitals' own "
                "released means are better, and other models, --rounds and --standardise take none"
            )
    if options.plan is not None or options.server_step is not None:
        from orchestrator.studies.proposing.own_code import build_with, read_plan, rule_file, with_rule

        network = {} if options.plan is None else read_plan(options.plan)
        rule = {} if options.server_step is None else rule_file(options.server_step)
        brought = replace(brought, tree=with_rule(network, rule))
        built = build_with(brought.tree)
    sites = tuple(options.site or ())
    return send(Home(folder=home), settings, view, sites=sites, replaces=options.replaces, brought=brought, built=built)


def _followed(
    home: Path, name: str, view: Any, timeout: float | None, test: Path | None, out: Path | None, language: str
) -> dict[str, Any]:
    from datasites.language import check_language
    from datasites.node.home import Home
    from orchestrator.demo.roles import TEST_FOLDER
    from orchestrator.studies.run import keep_result, result_folder
    from orchestrator.studies.run import wait as follow

    check_language(language)
    place = Home(folder=home)
    status = follow(place, name, view, timeout_seconds=timeout)
    synthetic = home / TEST_FOLDER
    held_out = test or (synthetic if synthetic.exists() else None)
    return keep_result(place, status, out or result_folder(place, name), test=held_out, language=language)
