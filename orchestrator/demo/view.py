"""What a person sees of the demo, all on standard error: steps, a bar for the rounds, and a table at the end.

With ``--manual`` also what to do in a hospital's portal, for somebody who has never seen one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from datasites.node.process import wait_for_signal
from datasites.review.accounts import MINIMUM_PASSWORD
from datasites.study.text import visible


class DemoView:
    """Shows steps as they begin; the rounds as a bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._bar: Any = None

    def __enter__(self) -> DemoView:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, text: str) -> None:
        """Show that a new step has begun."""
        self._progress.console.print(f"[bold]•[/bold] {text}", highlight=False)

    def note(self, text: str) -> None:
        """Show something people should read."""
        self._progress.console.print(f"  {text}", highlight=False, soft_wrap=True)

    def rounds(self, done: int, total: int, text: str) -> None:
        """Move the bar."""
        if self._bar is None:
            self._bar = self._progress.add_task("Training", total=total)
        self._progress.update(self._bar, completed=done, description=f"Training ({text})")

    def stay(self, result: dict[str, Any], portals: Mapping[str, str]) -> None:
        """Show what came out and where to read on, and wait until the person ends the demo."""
        self._progress.stop()
        self.summary(result)
        for line in reading_guide(portals, ended="metrics" not in result):
            self._console.print(line, soft_wrap=True, highlight=False)
        wait_for_signal()

    def summary(self, result: dict[str, Any]) -> None:
        """Show what came out and what it cost; of a study that people ended, how and why."""
        if "metrics" not in result:
            text = f"The study is {result['state']} after {result['rounds_completed']} rounds: {result['reason']}"
            self._console.print(f"\n{escape(visible(text))}", soft_wrap=True, highlight=False)
            return
        metrics = result["metrics"]
        self._console.print(
            f"\n[bold]{result['rounds_completed']} rounds in {result['seconds']} s.[/bold] "
            f"On {metrics['test_patients']} held-out patients ({metrics['label']}):"
        )
        self._console.print(f"  {_figures(metrics)}")
        if result.get("dp_evaluation"):
            self._console.print(_estimate(result["dp_evaluation"]), soft_wrap=True, highlight=False)
        self._console.print(_table(result))
        self._console.print("\nReports:")
        for path in result["reports"]:
            self._console.print(f"  {path}", soft_wrap=True, highlight=False)


def _estimate(found: dict[str, Any]) -> str:
    """Say what the hospitals' own records say, beside the exact figures of the same model."""
    exact = found["exact"]
    if "figures" in found:
        return _estimate_of_outcome(found)
    return (
        f"The model that went into round {found['round']}, scored inside the protocol on about {found['records']} "
        "validation records:\n"
        f"  AUROC {found['auroc']:.3f} +- {found['auroc_error']:.3f}, cross entropy {found['cross_entropy']:.3f} +- "
        f"{found['cross_entropy_error']:.3f} ({found['label']})\n"
        f"  AUROC with 90 % probability between {found['auroc_low']:.3f} and {found['auroc_high']:.3f} "
        f"({found['estimator']})\n"
        f"  AUROC {exact['auroc']:.3f}, cross entropy {exact['cross_entropy']:.3f} "
        f"({exact['label']}, {exact['test_patients']} held-out patients)"
    )


def _estimate_of_outcome(found: dict[str, Any]) -> str:
    figures = (
        f"{f['name'].replace('_', ' ')}{'' if f['at'] is None else ' at ' + format(f['at'], 'g')} {f['value']:.3f} "
        f"({f['low']:.3f} to {f['high']:.3f})"
        for f in found["figures"]
    )
    return (
        f"The model that went into round {found['round']}, scored inside the protocol on about {found['records']} "
        f"validation records, with intervals of 90 %:\n  {', '.join(figures)}\n  {_figures(found['exact'])} "
        f"({found['exact']['label']}, {found['exact']['test_patients']} held-out patients)"
    )


def _figures(metrics: dict[str, Any]) -> str:
    if "auroc" in metrics:
        return f"AUROC {metrics['auroc']:.3f} (mean over cohorts), balanced accuracy {metrics['balanced_accuracy']:.3f}"
    found = [f"concordance {metrics['concordance']:.3f} (mean over cohorts)"]
    if metrics["mean_absolute_error"] is not None:
        found.append(
            f"mean absolute error {metrics['mean_absolute_error']:.3g} {metrics['unit']} "
            f"(guessing the median: {metrics['guess_absolute_error']:.3g})"
        )
    found += [
        f"Brier score at {time} {metrics['unit']} {value:.3f} (guessing: {metrics['guess_brier'][time]:.3f})"
        for time, value in metrics["brier"].items()
    ]
    return ", ".join(found)


def _table(result: dict[str, Any]) -> Table:
    table = Table(title="What each hospital's patients paid", title_justify="left")
    for name, justify in (("hospital", "left"), ("modalities", "left"), ("rounds", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in ("epsilon spent", "cap", "delta"):
        table.add_column(name, justify="right")
    for site in result["sites"]:
        spent = site["epsilon_spent"]
        table.add_row(
            site["name"],
            ", ".join(site["modalities"]),
            str(site["rounds"]),
            "inf: NO PRIVACY" if isinstance(spent, str) else f"{spent:.2f}",
            f"{float(site['epsilon_cap']):g}",
            f"{site['delta']:g}",
        )
    return table


def approval_guide(links: Mapping[str, str], *, study: str, others: int) -> list[str]:
    """Return the lines to print: where to go, then what to do there.

    Args:
        links: by hospital, where its first account is made.
        study: its name, as the inbox shows it.
        others: hospitals that approve by themselves.
    """
    width = max(len(name) for name in links)
    rest = f"; the other {others} approve by themselves" if others else ""
    where = "this hospital" if len(links) == 1 else f"each of these {len(links)} hospitals"
    return [
        "",
        f"[bold]Your turn: approve the study at {where}{rest}.[/bold]",
        "",
        *(f"  {name:<{width}}  {link}" for name, link in links.items()),
        "",
        "  1. Open the link (it works once) and make an account: a short name in lower-case letters, and a password",
        f"     of at least {MINIMUM_PASSWORD} characters. A sentence is good; nobody can restore it.",
        f"  2. In the inbox open {study}. Read what it does, what it costs and what was found; a dry run is optional.",
        "  3. Under the decision enter the same password and press Sign and approve.",
        "",
        "  Training starts when every hospital has approved. Follow it under Studies; at its end print the privacy",
        "  report under Reports. Everything stays up until you press Ctrl-C.",
        "",
    ]


def conditions_of(status: Mapping[str, Any]) -> str:
    """Return the hospitals whose conditions keep a study from starting, as its status names them, or nothing."""
    found = re.search(r"to accept the conditions of (.+?) \(", str(status.get("waiting", "")))
    return found[1] if found else ""


def conditions_guide(names: str, *, study: str, home: Path) -> list[str]:
    """Return the lines to print once hospitals have approved under conditions; none without.

    Args:
        names: the hospitals, with commas between.
        study: its name.
        home: the orchestrator's folder.
    """
    if not names:
        return []
    commands = (
        f"tessera study answer {study} --site {name} --accept-conditions --home {shlex.quote(str(home))}"
        for name in names.split(", ")
    )
    return [f"approved under conditions, which the dashboard shows: {names}; accept them with:", *commands]


def reading_guide(portals: Mapping[str, str], *, ended: bool = False) -> list[str]:
    """Return the lines to print when the study is over and the portals are still up.

    Args:
        portals: by hospital, where its portal is.
        ended: people ended the study, so that nobody has written a report; the budget page says what came back.
    """
    width = max(len(name) for name in portals)
    what, page = ("The hospitals' reports, to read and to print", "reports")
    if ended:
        what, page = ("The portals are still up: see under Budget what came back", "budget")
    return [
        "",
        f"[bold]{what} (sign in with the account you made):[/bold]",
        "",
        *(f"  {name:<{width}}  {address}/{page}" for name, address in portals.items()),
        "",
        "  Press Ctrl-C to end everything; the files named above stay.",
        "",
    ]
