"""The command line: ``tessera`` and its subcommands.

Exit codes: 0 ok, 1 failed, 2 usage or bad input, 3 denied by a policy or a protocol rule, 4 the study that was waited
for cannot start or go on any more. Errors are one line on
standard error; ``--json`` puts one JSON object on standard output. ``tessera datasite``, ``tessera keyholder`` and
``tessera orchestrator`` come from the rooms of these roles (:mod:`datasites.node.plugins`).
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

import typer
from rich.markup import escape
from typer.main import get_command_name, solve_typer_info_defaults
from typer.models import CommandInfo, TyperInfo

from datasites.node.commands import JsonOption, console, show
from datasites.node.plugins import role_commands, top_commands
from datasites.study.text import visible
from orchestrator.cli import (
    attend,
    audit,
    backup,
    data,
    joining,
    operate,
    plan,
    roles,
    schema,
    simulate,
    study,
    upgrade,
)
from orchestrator.cli.options import one_dataclass
from orchestrator.demo.settings import DemoSettings
from privacy.errors import InvalidInput, Refused, StudyOver, Tampered, TesseraError

app = typer.Typer(
    name="tessera",
    help="Privacy-hardened, multi-modal federated learning for cancer staging.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _name, _commands in role_commands():
    app.add_typer(_commands, name=_name)
for _module in (
    operate,
    backup,
    roles,
    joining,
    attend,
    study,
    simulate,
    audit,
    data,
    schema,
    plan,
    upgrade,
):
    app.add_typer(_module.app)
for _commands in top_commands():
    app.add_typer(_commands)


@app.command()
@one_dataclass
def demo(settings: DemoSettings, json_output: JsonOption = False) -> None:
    """Start a whole consortium on this machine, train, and show what it cost."""
    from orchestrator.demo.processes import warm_start

    by_hand = settings.by_hand and not json_output  # who approves in a browser reads the report there as well
    with warm_start() as warm:  # first: it imports for every role while this process imports for itself
        from orchestrator.demo.demo import run_demo
        from orchestrator.demo.view import DemoView

        with DemoView(console) as view:
            result = run_demo(settings, view, warm=warm, stay=view.stay if by_hand else None)
    if not by_hand:
        view.summary(result)
    if json_output:
        show(result)


def main() -> None:
    """Run the command line; every error is one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without the letters of a name shows their codes
    try:
        Path.home()
    except RuntimeError:  # a container's user without an account: libraries look for their settings there
        os.environ["HOME"] = "/nonexistent"
    try:
        code = (named_part(app, sys.argv[1:]) or app)(standalone_mode=False)
        sys.stdout.flush()  # a full disk fails here, where it is said, and not while Python ends
        _end(code if isinstance(code, int) else 0)
    except (typer.Abort, KeyboardInterrupt):
        _say("ended; nothing is left running")
        _end(130)
    except TesseraError as error:
        _complain(str(error))
        _end(_code(error))
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]  # a usage error: typer raises only those of its errors that have it
        _end(error.exit_code)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        what = (error.strerror or type(error).__name__).lower()
        _complain(f"{what}{where}; check room, owner and path, and try again")
        _end(1)
    except Exception as error:
        if os.environ.get("TESSERA_LOG_LEVEL", "").lower() == "debug":
            raise
        at = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__} in {Path(at.filename).name}, line {at.lineno}"
        _complain(
            f"a mistake of Tessera's own ({what}); please report it; with TESSERA_LOG_LEVEL=debug the command says more"
        )
        _end(1)


def named_part(whole: typer.Typer, words: Sequence[str]) -> typer.Typer | None:
    """Return the part of an app that the first words of a command line name; None if they name none of its commands.

    typer reads the signature of every command before it runs one. For all 80 that takes longer than `tessera status`.
    """
    if not words:
        return None
    part = copy.copy(whole)
    part.registered_commands = [c for c in whole.registered_commands if _name_of(c) == words[0]]
    part.registered_groups = []
    for group in whole.registered_groups:
        name, inside = solve_typer_info_defaults(group).name, group.typer_instance
        if inside is None or name not in (None, "", words[0]):
            continue
        kept = named_part(inside, words[1:] if name else words) or (inside if name else None)
        if kept is not None:
            part.registered_groups.append(copy.copy(group))
            part.registered_groups[-1].typer_instance = kept
    if not (part.registered_commands or part.registered_groups):
        return None
    part.registered_groups.append(TyperInfo(typer.Typer()))  # an app of one command alone would not want its name
    return part


def _name_of(command: CommandInfo) -> str:
    return command.name or get_command_name(command.callback.__name__ if command.callback else "")


def _complain(text: str) -> None:
    _say(f"[red]error:[/red] {escape(visible(text))}")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # standard error may be what is full
        console.print(text, highlight=False, soft_wrap=True)


def _end(code: int) -> NoReturn:
    """End with ``code``; what standard output could not take is given up, so that Python does not complain again."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _code(error: TesseraError) -> int:
    if isinstance(error, InvalidInput):
        return 2
    if isinstance(error, StudyOver):
        return 4
    return 3 if isinstance(error, Refused) and not isinstance(error, Tampered) else 1


if __name__ == "__main__":
    main()
