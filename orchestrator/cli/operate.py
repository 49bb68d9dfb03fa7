"""``tessera status``, ``tessera doctor`` and ``tessera verify``: what operators look at."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from datasites.node.commands import HomeOption, JsonOption, console, show
from datasites.study.text import visible
from privacy.errors import InvalidInput, TesseraError

if TYPE_CHECKING:
    from orchestrator.studies.status import SiteLine, Status, StudyLine


app = typer.Typer()
_console = Console()

_COLOURS = {"finished": "green", "running": "cyan", "waiting": "yellow"}
_LAST_WORDS = 12


@app.command()
def status(
    home: HomeOption,
    watch: Annotated[
        bool | None, typer.Option("--watch/--once", help="Keep the table up to date; by default on a terminal.")
    ] = None,
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two looks.")] = 1.0,
    json_output: JsonOption = False,
) -> None:
    """Show the studies of this role: state, rounds, updates, dropouts; at a hospital also budget and requests."""
    from datasites.node.home import Home
    from orchestrator.studies.status import Watched, read_status

    place, pages = Home(folder=home), dict[str, Watched]()
    found = read_status(place, pages=pages)
    if json_output:
        show(found.to_json())
        raise typer.Exit(1 if found.problem and not found.budget else 0)
    if watch if watch is not None else sys.stdout.isatty():
        from rich.live import Live

        with Live(_view(found), console=_console, refresh_per_second=4) as live:
            while not found.over:
                time.sleep(interval)
                found = read_status(place, pages=pages)
                live.update(_view(found))
    else:
        _console.print(_view(found))
    if found.problem:
        raise typer.Exit(1)


@app.command()
def doctor(
    home: HomeOption,
    lock: Annotated[Path | None, typer.Option(help="File of name==version lines to compare with.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Check keys, roster, clock, versions, port, disk, sandbox and chains; exit code 1 if anything is wrong."""
    from orchestrator.cli.doctor import examine

    checks = examine(home, lock=lock)
    if json_output:
        show({"home": str(home), "ok": all(c.ok for c in checks), "checks": [asdict(c) for c in checks]})
    else:
        for check in checks:
            mark, colour = ("ok ", "green") if check.ok else ("BAD", "red")
            line = Text.assemble((f"{mark} {check.name}: ", colour), check.found)
            if check.advice:
                line.append(f" -> {check.advice}")
            console.print(line, soft_wrap=True)
    raise typer.Exit(0 if all(c.ok for c in checks) else 1)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A role's folder or a copy of it, or a report's PDF.")],
    peers: Annotated[
        list[Path] | None, typer.Option(help="A peer's folder: heads in its journal must lie in this one's chains.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--fingerprint", help="Of the key that signed the PDF, as its owner told it to you.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Check journal and ledger of a folder offline and say where they break; or the signature of a report's PDF."""
    if folder.is_file():
        _verify_pdf(folder, key, json_output=json_output)
        return
    if key is not None:
        raise InvalidInput("--fingerprint goes with a report's PDF; a folder's key is in its roster")
    from datasites.node.home import Home
    from privacy.ledger.verification import heads_seen_by, verify_folder

    public_key = name = None
    if (folder / "config.json").exists() and (folder / "roster.json").exists():
        home = Home(folder=folder)
        name = home.config().name
        public_key = home.roster().by_name(name).public_key
    if peers and public_key is None:
        raise InvalidInput("expected config.json and roster.json in the folder, to know its key among the peers' heads")
    heads = [head for peer in peers or () for head in heads_seen_by(peer, name)]
    found = verify_folder(folder, public_key=public_key, name=name, heads=heads)
    if json_output:
        show({"folder": str(folder), **asdict(found), "ok": found.holds})
    else:
        for chain in found.chains:
            console.print(f"{chain.file}: {chain.entries} entries, head {chain.head[:16]}, last {chain.last}")
        for finding in found.findings:
            console.print(f"[red]{finding.file}: {escape(visible(finding.message))}[/red]", highlight=False)
        if found.holds:
            console.print(f"[green]Every entry and signature holds; {found.heads_compared} heads compared.[/green]")
    if not found.holds:
        raise typer.Exit(1)


def _verify_pdf(path: Path, key: str | None, *, json_output: bool) -> None:
    from datasites.node.credentials.signed_pdf import MOST_BYTES, check_pdf

    with path.open("rb") as file:
        document = file.read(MOST_BYTES + 1)
    problem, found = "", None
    try:
        found = check_pdf(document)
        if key is not None and key.strip().lower() not in (found.fingerprint, found.public_key):
            problem = f"the PDF was signed with the key {found.fingerprint}, and not with the one you expected"
    except TesseraError as error:
        problem = str(error)
    if json_output:
        show({"file": str(path), "signature": asdict(found) if found else None, "ok": not problem, "problem": problem})
    elif problem:
        console.print(f"[red]{path.name}: {escape(visible(problem))}[/red]", highlight=False, soft_wrap=True)
    elif found is not None:
        told = f"{visible(found.institution)} ({visible(found.name)}), {found.signed_at} by its own clock"
        console.print(f"[green]The PDF is as it was signed.[/green] {escape(told)}", highlight=False, soft_wrap=True)
        console.print(f"Key fingerprint {found.fingerprint}", highlight=False)
        if key is None:
            console.print("Compare it with the one that the institution tells you; only that says who signed.")
    if problem:
        raise typer.Exit(1)


def _view(found: Status) -> RenderableType:
    parts: list[RenderableType] = [Text(f"{found.role} {found.name}", style="bold")]
    if found.problem:
        parts.append(Text(visible(found.problem), style="red"))
    parts += [_study_table(study) for study in found.studies]
    if not found.studies and not found.problem:
        parts.append(Text("no studies yet"))
    if found.requests:
        rows = [(r.study, r.state, str(r.rounds), r.received[:19], r.proposal_hash[:16]) for r in found.requests]
        parts.append(_table("Requests", ("study", "state", "rounds", "received", "proposal"), rows))
    if found.budget:
        head = ("population", "epsilon spent", "with promises", "cap", "delta")
        rows = [
            (
                b.population,
                _number(b.spent),
                _number(b.reserved),
                _number(b.cap),
                _number(b.delta),
            )
            for b in found.budget
        ]
        parts.append(_table("Privacy budget per patient (add or remove one, Gaussian filter)", head, rows))
    return Group(*parts)


def _study_table(study: StudyLine) -> Table:
    last = f", last {study.last_round_seconds:.1f} s" if study.last_round_seconds is not None else ""
    title = Text.assemble(
        f"{study.study}: ",
        (study.state, _COLOURS.get(study.state, "red")),
        f", round {study.rounds_completed} of {study.rounds}, {study.seconds:.1f} s{last}, "
        f"{study.uplink_bytes / 1e6:.1f} MB, {study.refusals} refusals",
        visible(f"\n{study.reason}") if study.reason else "",
        visible(f"\n{study.waiting}") if study.waiting else "",
        *(visible(f"\n{word}") for word in study.words[-_LAST_WORDS:]),
    )
    head = ("site", "approved", "updates", "dropouts", "this round")
    return _table(title, head, [_site_row(site) for site in study.sites])


def _site_row(site: SiteLine) -> tuple[str, ...]:
    arrived = "arrived" if site.here else "-"
    return site.name, "yes" if site.approved else "not yet", str(site.updates), str(site.dropouts), arrived


def _table(title: Any, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in head:
        table.add_column(column)
    for row in rows:
        table.add_row(*(escape(visible(cell)) for cell in row))
    return table


def _number(value: float | None) -> str:
    return "inf" if value is None else f"{value:.4g}"
