"""What a person sees of the demo: steps, a bar for the rounds, and a table at the end (all on standard error)."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from datasites.node.process import wait_for_signal
from orchestrator.demo.guide import reading_guide


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
        for line in reading_guide(portals):
            self._console.print(line, soft_wrap=True, highlight=False)
        wait_for_signal()

    def summary(self, result: dict[str, Any]) -> None:
        """Show what came out and what it cost."""
        metrics = result["metrics"]
        self._console.print(
            f"\n[bold]{result['rounds_completed']} rounds in {result['seconds']} s.[/bold] "
            f"On {metrics['test_patients']} held-out patients ({metrics['label']}):"
        )
        self._console.print(
            f"  AUROC {metrics['auroc']:.3f} (mean over cohorts), balanced accuracy {metrics['balanced_accuracy']:.3f}"
        )
        if result.get("dp_evaluation"):
            self._console.print(_estimate(result["dp_evaluation"]), soft_wrap=True, highlight=False)
        self._console.print(_table(result))
        self._console.print("\nReports:")
        for path in result["reports"]:
            self._console.print(f"  {path}", soft_wrap=True, highlight=False)


def _estimate(found: dict[str, Any]) -> str:
    """Say what the hospitals' own records say, beside the exact figures of the same model."""
    exact = found["exact"]
    return (
        f"The model that went into round {found['round']}, scored inside the protocol on about {found['records']} "
        "validation records:\n"
        f"  AUROC {found['auroc']:.3f} +- {found['auroc_error']:.3f}, cross entropy {found['cross_entropy']:.3f} +- "
        f"{found['cross_entropy_error']:.3f} ({found['label']})\n"
        f"  AUROC {exact['auroc']:.3f}, cross entropy {exact['cross_entropy']:.3f} "
        f"({exact['label']}, {exact['test_patients']} held-out patients)"
    )


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
