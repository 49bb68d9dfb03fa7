"""``tessera study answer|withdraw|cancel|pause|resume|drop-site|resend``: what a scientist says about a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datasites.node.commands import JsonOption, console, show

if TYPE_CHECKING:
    from datasites.study.thread import ScientistKind

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="TESSERA_HOME", help="The orchestrator's folder, while it runs.")
]
StudyArgument = Annotated[str, typer.Argument(help="Name of the study.")]
ReasonOption = Annotated[str, typer.Option(help="Why; every hospital of the study reads it.")]
ByOption = Annotated[str, typer.Option(help="Who says it; it becomes part of the record.")]


def add_words(app: typer.Typer) -> None:
    """Add these commands to ``tessera study``."""
    app.command("answer")(answer)
    for name, kind, text in (
        ("withdraw", "withdrawn", "Take a request back before it has run: hospitals get their reserved budget back."),
        ("cancel", "cancelled", "End a study for good: what was reserved and not charged returns."),
        ("pause", "paused", "Stop a study before its next round; resume lets it go on."),
    ):
        app.command(name, help=text)(_ending(kind))  # type: ignore[arg-type]  # the three kinds above
    app.command("resume")(resume)
    app.command("drop-site")(drop_site)
    app.command("resend")(resend)


def answer(
    name: StudyArgument,
    home: HomeOption,
    site: Annotated[str, typer.Option(help="The hospital that is answered.")],
    text: Annotated[str, typer.Option(help="The answer; its people read it beside the request.")] = "",
    accept_conditions: Annotated[
        bool, typer.Option("--accept-conditions", help="Accept the conditions of its approval.")
    ] = False,
    by: ByOption = "",
    json_output: JsonOption = False,
) -> None:
    """Answer a hospital's question, or accept the conditions of its approval."""
    from orchestrator.studies.words import answer as send

    words = send(_home(home), name, site, text, accept=accept_conditions, person=by)
    _tell(words, json_output)


def resume(name: StudyArgument, home: HomeOption) -> None:
    """Let a paused study go on, once its reason is dealt with."""
    from orchestrator.studies.words import resume as go_on

    show(go_on(_home(home), name))


def drop_site(
    name: StudyArgument,
    home: HomeOption,
    site: Annotated[str, typer.Option(help="The hospital that the study goes on without.")],
    reason: ReasonOption,
    by: ByOption = "",
    json_output: JsonOption = False,
) -> None:
    """Go on without one hospital; the rest must suffice for the smallest sum."""
    from orchestrator.studies.words import say

    _tell((say(_home(home), name, "dropped", reason, to=site, person=by),), json_output)


def resend(
    name: StudyArgument,
    home: HomeOption,
    site: Annotated[list[str] | None, typer.Option(help="A hospital; all that have not approved without.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Send the signed proposal once more, as it is, to hospitals that lost it."""
    from orchestrator.studies.words import resend as send

    names = send(_home(home), name, tuple(site or ()))
    console.print(f"sent to {', '.join(names) or 'nobody: all have approved'}", highlight=False)
    if json_output:
        show({"study": name, "sent": names})


def _ending(kind: ScientistKind) -> Any:
    def command(
        name: StudyArgument, home: HomeOption, reason: ReasonOption, by: ByOption = "", json_output: JsonOption = False
    ) -> None:
        from orchestrator.studies.words import say

        _tell((say(_home(home), name, kind, reason, person=by),), json_output)

    command.__annotations__ = {
        "name": StudyArgument,
        "home": HomeOption,
        "reason": ReasonOption,
        "by": ByOption,
        "json_output": JsonOption,
    }
    return command


def _home(folder: Path) -> Any:
    from datasites.node.home import Home

    return Home(folder=folder)


def _tell(words: tuple[Any, ...], json_output: bool) -> None:
    from datasites.study.signing import dump
    from datasites.study.text import visible

    for word in words:
        console.print(visible(word.sentence), highlight=False, markup=False)
    if json_output:
        show({"words": [dump(word) for word in words]})
