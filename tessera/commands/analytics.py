"""``tessera analytics``: statistics of a consortium, or of made-up patients, from the command line."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from datasites.data.commands import say_lost
from datasites.node.commands import JsonOption, console, show
from models.counting import QuestionKind
from orchestrator.cli.options import ColludersOption, DeltaOption, MinSitesOption, NoiseOption, one_dataclass
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from tessera.statistics.answer import Statistic
    from tessera.statistics.asking import Analytics
    from tessera.statistics.live import StatisticsRun

app = typer.Typer()
_SHOW, _RESCALE, _MARGINALS = "show", "rescale", "marginals"
_SCALES, _SYNTHESIS = "scales", "synthesis"
_OF_A_STUDY = (_SHOW, _RESCALE, _MARGINALS)
KINDS = (*(kind.replace("_", "-") for kind in get_args(QuestionKind)), _SCALES, _SYNTHESIS)
_PAIRED = {_SYNTHESIS: 0, "cross-table": 2, "kaplan-meier": 2, "log-rank": 2, "quantiles": 1, "histogram": 1}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How a statistic is asked for."""

    by: Annotated[
        str,
        typer.Option(help="cohort, pattern, a modality, a category, the outcome, or a number: age:50,65."),
    ] = ""
    bins: Annotated[int, typer.Option(min=0, help="Of histogram, quantiles and kaplan-meier; 0 takes the usual.")] = 0
    edges: Annotated[str, typer.Option(help="Of a histogram, in the number's unit: 0,50,100.")] = ""
    probabilities: Annotated[str, typer.Option(help="Of quantiles.")] = "0.25,0.5,0.75"
    epsilon: Annotated[float, typer.Option(min=1e-6, help="Worst case per patient of this question.")] = 0.5
    delta: DeltaOption = 1e-4
    noise: NoiseOption = "shared"
    min_sites: MinSitesOption = None
    colluders: ColludersOption = 1
    name: Annotated[str, typer.Option(help="Of the study; made up without.")] = ""
    sites: Annotated[list[str] | None, typer.Option("--site", help="Which hospitals; all without.")] = None
    purpose: Annotated[str, typer.Option(help="What it is for; the statistic itself without.")] = ""
    investigator: Annotated[str, typer.Option(help="Who answers for it, with name and title.")] = ""
    filing: Annotated[
        Path | None,
        typer.Option(envvar="TESSERA_FILING", help="TOML file with what hospitals have to read."),
    ] = None
    simulate: Annotated[bool, typer.Option("--simulate", help="Ask made-up hospitals; nothing is sent.")] = False
    data: Annotated[Path | None, typer.Option(help="With --simulate: a folder of cohort tables.")] = None
    schema: Annotated[
        Path | None, typer.Option(help="With --simulate: made-up patients of a schema. With rescale: which schema.")
    ] = None
    out: Annotated[Path | None, typer.Option(help="With rescale and marginals: a new JSON file.")] = None


@app.command()
@one_dataclass
def analytics(
    options: Asked,
    kind: Annotated[
        str, typer.Argument(help=f"One of {', '.join(KINDS)}; or show, rescale or marginals, with a study.")
    ],
    names: Annotated[list[str] | None, typer.Argument(help="Variables, modalities, columns; or the study.")] = None,
    home: Annotated[
        Path | None, typer.Option("--home", envvar="TESSERA_HOME", help="The orchestrator's folder, while it runs.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for people and the round; print the answer.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Ask hospitals for a statistic of their patients: a small study, reviewed, charged, summed under encryption."""
    given = tuple(names or ())
    _check(kind, given)
    if options.name:
        from datasites.study.text import check_study_name

        check_study_name(options.name)
    if options.simulate:
        found = _asked(_simulated(options), kind, given, options)
        _print(found, json_output, {})
        return
    if home is None:
        raise InvalidInput("expected --home, the orchestrator's folder; or --simulate to try it on made-up patients")
    from tessera.hub import connect
    from tessera.statistics.live import StatisticsRun

    hub = connect(home)
    if kind in _OF_A_STUDY:
        run = hub.run(given[0])
        if not isinstance(run, StatisticsRun):
            raise InvalidInput(f"{given[0]} trains a model; `tessera study wait` writes its report")
    else:
        run = _asked(_live(hub, options, quiet=json_output), kind, given, options)
    if wait:
        run.wait(progress=not json_output)
    if kind == _RESCALE:
        _rescale(run, options, json_output)
    elif kind == _MARGINALS:
        _marginals(run, options, json_output)
    elif wait or kind == _SHOW:
        _print(run.answers, json_output, {"study": run.name, "state": run.state})
    elif json_output:
        show({"study": run.name, "state": run.state})
    else:
        console.print(f"{run.name} was proposed; `tessera analytics show {run.name}` shows the answer once it is there")


def _check(kind: str, names: tuple[str, ...]) -> None:
    if kind not in (*_OF_A_STUDY, *KINDS):
        raise InvalidInput(
            f"expected a statistic out of {', '.join(KINDS)}, or show, rescale or marginals, got {kind[:40]!r}"
        )
    wanted = 1 if kind in _OF_A_STUDY else _PAIRED.get(kind, len(names))
    if len(names) != wanted:
        raise InvalidInput(f"expected {wanted} name{'s' * (wanted > 1)} after {kind}, got {len(names)}")


def _asked(ask: Analytics[Any], kind: str, names: tuple[str, ...], options: Asked) -> Any:
    by = _by(options.by) if options.by else None
    more: dict[str, Any] = {"bins": options.bins} if options.bins else {}
    if kind == "counts":
        return ask.counts(*map(_by, names))
    if kind == "cross-table":
        return ask.cross_table(_by(names[0]), _by(names[1]))
    if kind == "log-rank":
        if by is None:
            raise InvalidInput("expected --by: the groups that are compared")
        return ask.log_rank(*names, by=by, **more)
    if kind == "quantiles":
        return ask.quantiles(names[0], _numbers(options.probabilities), by=by, **more)
    if kind == "histogram":
        return ask.histogram(names[0], edges=_numbers(options.edges), by=by, **more)
    if kind == "kaplan-meier":
        return ask.kaplan_meier(*names, by=by, **more)
    if kind == _SCALES:
        return ask.scales(*names)
    if kind == _SYNTHESIS:
        return ask.synthesis()
    return getattr(ask, kind)(*names, by=by)


def _rescale(run: StatisticsRun, options: Asked, json_output: bool) -> None:
    """Write the schema's next version, scaled by what a study released."""
    from datasites.data.reading.schema_files import read_schema_document
    from datasites.node.files import write_atomically
    from datasites.study.signing import dump

    if options.schema is None:
        raise InvalidInput("expected --schema, which hospitals read their tables by")
    out = _new_file(options.out)
    before = read_schema_document(options.schema)
    after, notes = run.rescaled(before)
    write_atomically(out, json.dumps(dump(after), indent=2, ensure_ascii=False).encode(), mode=0o644)
    changed = [m.name for m, old in zip(after.modalities, before.modalities, strict=True) if m != old]
    if json_output:
        show({"schema": str(out), "version": after.version, "scaled": changed, "kept": list(notes)})
        return
    for note in notes:
        console.print(note, highlight=False, markup=False)
    console.print(f"{after.name}, version {after.version}: {', '.join(changed)} scaled by {run.name}", highlight=False)
    console.print(f"every hospital signs it: tessera schema agree {shlex.quote(str(out))} --home HOME", highlight=False)


def _marginals(run: StatisticsRun, options: Asked, json_output: bool) -> None:
    """Write the released tables by which hospitals draw mocks."""
    from datasites.node.files import write_atomically
    from datasites.study.signing import dump

    out = _new_file(options.out)
    found = run.marginals()
    write_atomically(out, json.dumps(dump(found), indent=1, ensure_ascii=False).encode(), mode=0o644)
    if json_output:
        show({"tables": str(out), "variables": sorted(found.tables), "source": found.source})
        return
    console.print(f"{len(found.tables)} tables; a hospital's mock follows them with", highlight=False)
    console.print(
        f"  tessera datasite ingest TABLES --schema SCHEMA --home HOME --mock {shlex.quote(str(out))}", highlight=False
    )


def _new_file(path: Path | None) -> Path:
    if path is None or path.exists() or path.suffix.lower() != ".json":
        raise InvalidInput(
            f"expected --out with a new file that ends in .json{'' if path is None else f', got {path}'}"
        )
    return path


def _by(text: str) -> Any:
    """Return a group as Python names it: ``age:50,65`` is a number with cuts."""
    name, colon, cuts = text.partition(":")
    return (name, _numbers(cuts)) if colon else name


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InvalidInput(f"expected numbers with commas between them, got {text[:40]!r}") from error


def _simulated(options: Asked) -> Any:
    from tessera.statistics.simulated import analytics as simulated

    return simulated(
        options.data,
        epsilon=options.epsilon,
        delta=options.delta,
        noise=options.noise,
        schema=options.schema,
        min_sites=options.min_sites,
        colluders=options.colluders,
    )


def _live(hub: Any, options: Asked, *, quiet: bool) -> Any:
    return hub.analytics(
        options.epsilon,
        delta=options.delta,
        noise=options.noise,
        sites=options.sites or (),
        name=options.name,
        purpose=options.purpose,
        investigator=options.investigator,
        filing=options.filing,
        min_sites=options.min_sites,
        colluders=options.colluders,
        progress=not quiet,
    )


def _print(answers: tuple[Statistic, ...], as_json: bool, head: dict[str, Any]) -> None:
    said = list(dict.fromkeys(line for one in answers for line in one.said))
    if not as_json:
        for one in answers:
            console.print(repr(one), highlight=False, soft_wrap=True)
        say_lost(said)
        return
    found = [
        {
            "title": one.title,
            "hospitals": one.hospitals,
            "privacy": one.privacy,
            "noise": round(one.noise, 4),
            "note": one.note,
            "table": one.table.reset_index().to_dict(orient="records"),
        }
        for one in answers
    ]
    show({**head, **({"said": said} if said else {}), "answers": found})
