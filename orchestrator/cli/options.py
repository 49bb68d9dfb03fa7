"""Options that several commands share, and commands that take theirs as one dataclass."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

DataOption = Annotated[Path | None, typer.Option(help="Folder of TCGA tables; synthetic patients when left out.")]
TaskOption = Annotated[str, typer.Option(help="I-II, early-late, ordinal or I-IV.")]
RoundsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1000,
        help="Rounds of plain training; without, a schedule (rounds, rate, centring) that suits the noise.",
    ),
]
EpsilonOption = Annotated[float, typer.Option(help="Worst case per patient; inf: no privacy.")]
DeltaOption = Annotated[float, typer.Option(min=1e-12, max=0.1, help="Delta of that epsilon.")]
NoiseOption = Annotated[str, typer.Option(help="local (every hospital its own) or shared (small hospitals).")]
ModelOption = Annotated[str, typer.Option("--model", help="linear, mlp, mlp-auxiliary or convolutional (tissue maps).")]
MinSitesOption = Annotated[
    int | None,
    typer.Option(
        min=3,
        help="Fewest hospitals in a sum that may be decrypted. Without: 3, under shared noise all but one, which keeps "
        "the noise small; with two missing the study then waits.",
    ),
]
ColludersOption = Annotated[
    int, typer.Option(min=1, help="Hospitals that may work with the orchestrator; shared noise is charged for that.")
]
EvaluationShareOption = Annotated[
    float,
    typer.Option(
        "--evaluation-share",
        "--evaluate",
        min=0.0,
        max=1.0,
        help="Part of epsilon for one evaluation at the end, on a fifth of the patients that never trains; those pay "
        "for nothing else, so 1 costs the others nothing. 0: none.",
    ),
]
EvaluationByOption = Annotated[
    list[str] | None,
    typer.Option(
        "--evaluation-by",
        help="Figures of the evaluation also by site, for hospitals whose policy allows it, or by pattern: which "
        "modalities a patient has. Patterns put noise on more counts.",
    ),
]
AggregationOption = Annotated[
    str,
    typer.Option(help="fedavg, fedprox, fedadam, fedyogi, fedadagrad, fedavgm, dgb, pcw or dgb+pcw."),
]

ConstantsOption = Annotated[
    Path | None,
    typer.Option(
        help="Means and weights from public tables (tessera constants make); the schedule takes them where they help."
    ),
]


def one_dataclass(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take its options as a dataclass.

    On the command line, the dataclass's fields stand where the parameter does. Each field declares its option once:
    type, default and help. The module of the dataclass must not import ``annotations`` from ``__future__``: its types
    are read as they stand.

        @app.command()
        @one_dataclass
        def demo(settings: DemoSettings, json_output: JsonOption = False) -> None: ...
    """
    signature = inspect.signature(command, eval_str=True)
    taken: dict[str, Any] = {p.name: p.annotation for p in signature.parameters.values() if is_dataclass(p.annotation)}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, kind in taken.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += _options(parameter.annotation) if parameter.name in taken else [parameter]
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    run.__signature__ = signature.replace(parameters=keyword_only)  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in keyword_only}
    return run


def _options(kind: Any) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f), annotation=f.type)
        for f in fields(kind)
    ]


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
