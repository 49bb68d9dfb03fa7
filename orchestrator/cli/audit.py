"""``tessera audit-privacy``: does training leak no more than the ledger charges? An alarm, never a proof."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datasites.node.commands import JsonOption, console, show
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from privacy.dp.audit import AuditResult, Trainer
    from privacy.dp.mechanism import Mechanism


app = typer.Typer()
DATA = "made-up records with canaries; no patient is read, so nothing is charged"


@app.command("audit-privacy")
def audit_privacy(
    home: Annotated[
        Path | None, typer.Option(help="A datasite's folder: the result goes into its journal and privacy report.")
    ] = None,
    study: Annotated[str, typer.Option(help="Audit the mechanism of this study, as it arrived at --home.")] = "",
    canaries: Annotated[int, typer.Option(min=20, max=20_000, help="Coin tosses; more find more.")] = 1000,
    confidence: Annotated[float, typer.Option(help="Probability that honest code is not accused.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Seed of canaries and training.")] = 0,
    break_: Annotated[
        str,
        typer.Option(
            "--break",
            help="Audit something broken instead. The step: noise, clip, loss. The path: half-noise, "
            "noise-over-sqrt-8, every-record, doubled-records, clip-2c, four-times-the-steps.",
        ),
    ] = "",
    json_output: JsonOption = False,
) -> None:
    """Try to refute what is charged, on made-up patients; exit code 1 when that succeeds.

    First the training step alone gets a lower bound on epsilon. Then the whole path of a round (dataset, worker, noise,
    share, rounding, sum, losses, histograms) is tested against the claimed trade-off curve, noise, batches and
    sensitivity.
    """
    from orchestrator.simulation.audit import NOISES, Levels
    from privacy.dp.audit import AUDITED

    if study and home is None:
        raise InvalidInput("expected --home with --study: the study's mechanism is read from a datasite's folder")
    mechanism = _mechanism_of(home, study) if home is not None and study else AUDITED
    _check_fault(break_)
    levels = Levels.of(confidence, paths=1 if study else len(NOISES))
    result = _audited(mechanism, break_, canaries=canaries, confidence=1 - levels.step, seed=seed)
    value = _as_json(result, study, break_)
    value["paths"] = _paths(mechanism if study else None, break_, canaries, levels.path, seed)
    value["flagged"] = result.flagged or any(path["flagged"] for path in value["paths"])
    if home is not None and not break_:  # a fault on purpose says nothing about this site
        _write_down(home, value)
    _say(result, break_)
    _say_paths(value["paths"])
    if json_output:
        show(value)
    if value["flagged"]:
        raise typer.Exit(1)


def _check_fault(fault: str) -> None:
    from orchestrator.simulation import audit as whole_path
    from privacy.dp.audit import FAULTS

    known = (*FAULTS, *whole_path.FAULTS)
    if fault and fault not in known:
        raise InvalidInput(f"expected --break {', '.join(known)}, got {fault[:40]!r}")


def _paths(mechanism: Mechanism | None, fault: str, canaries: int, level: float, seed: int) -> list[dict[str, Any]]:
    """Audit the whole path under both noises, or under that of the study's mechanism."""
    from rich.progress import Progress

    from orchestrator.simulation.audit import FAULTS, NOISES, audit_path, path_canaries

    if fault and fault not in FAULTS:
        return []
    noises = NOISES if mechanism is None else (mechanism.noise,)
    found = []
    with Progress(console=console, transient=True) as bar:
        for noise in bar.track(noises, description="Auditing the whole path"):
            result = audit_path(
                noise,
                canaries=path_canaries(canaries),
                seed=seed,
                failure=level,
                fault=FAULTS[fault] if fault else None,
                claimed=mechanism,
            )
            found.append({**asdict(result), "flagged": result.flagged})
    return found


def _say_paths(paths: list[dict[str, Any]]) -> None:
    for path in paths:
        curve, verdict = path["curve"], "[red]refuted[/red]" if path["flagged"] else "[green]not refuted[/green]"
        console.print(
            f"Whole path, {path['noise']} noise: {verdict}. {curve['canaries']} canaries, {curve['tests']} tests of "
            f"the curve, at the worst {curve['observed']:.3f} where {curve['allowed']:.3f} is allowed; "
            f"chance of so little noise: {_listed(path['quiet'])}; of such a pattern in noise and batches: "
            f"{_listed(path['patterns'])}; one patient moved, of what is charged: {_listed(path['moved'])}",
            highlight=False,
            soft_wrap=True,
        )


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2g}" for name, value in values.items())


def _audited(mechanism: Mechanism, fault: str, *, canaries: int, confidence: float, seed: int) -> AuditResult:
    import torch
    from rich.progress import Progress

    from privacy.dp.audit import FAULTS, audit, honest

    mechanism = replace(mechanism, noise="local")  # whoever adds it, the step is the same with all of it at one site
    torch.set_num_threads(1)
    with Progress(console=console, transient=True) as bar:
        job = bar.add_task("Training on canaries", total=mechanism.rounds)
        trainer = _counting(FAULTS.get(fault, honest), lambda: bar.advance(job))
        return audit(mechanism, canaries=canaries, confidence=confidence, seed=seed, trainer=trainer)


def _counting(trainer: Trainer, done: Callable[[], None]) -> Trainer:
    def train(*arguments: Any) -> None:
        trainer(*arguments)
        done()

    return train


def _mechanism_of(home: Path, study: str) -> Mechanism:
    from datasites.review.records import ReviewRecords

    records = ReviewRecords(home / "approvals.sqlite", read_only=True)
    try:
        for request in records.requests():
            if request.proposal.study == study:
                return request.proposal.mechanism
    finally:
        records.close()
    raise InvalidInput(f"expected a study that arrived at this datasite, got {study[:80]!r}")


def _as_json(result: AuditResult, study: str, fault: str) -> dict[str, Any]:
    plain = {k: "inf" if isinstance(v, float) and math.isinf(v) else v for k, v in asdict(result).items()}
    return {
        **plain,
        "study": study or "Tessera's own training step",
        "broken": fault or None,
        "data": DATA,
        "adjacency": "add or remove of one patient",
        "flagged": result.flagged,
        "conclusive": result.conclusive,
    }


def _write_down(home: Path, value: dict[str, Any]) -> None:
    from datasites.node.home import Home
    from privacy.ledger.journal import PRIVACY_AUDIT, Journal

    here = Home(folder=home)
    here.config()
    journal = Journal(home / "journal.sqlite", here.identity())
    try:
        journal.append(PRIVACY_AUDIT, value)
    finally:
        journal.close()


def _say(result: AuditResult, fault: str) -> None:
    what = f"with {fault} broken on purpose" if fault else "as it runs in every study"
    guessed = f"{result.correct} of {result.guesses} guesses about {result.canaries} canaries were right"
    console.print(f"Training {what}: {guessed}", highlight=False)
    console.print(
        f"epsilon is at least {result.lower:.3f} ({100 * result.confidence:g} % confidence); claimed at most "
        f"{result.claimed:.3f} at delta {result.delta:g}, add or remove of one patient, PLD accountant",
        highlight=False,
        soft_wrap=True,
    )
    if result.flagged:
        console.print("[red]The claim is refuted: this mechanism leaks more than it is charged for.[/red]")
    elif not result.conclusive:
        console.print("[yellow]This audit could not have noticed: take more canaries.[/yellow]")
    else:
        console.print("[green]Below the claim. That is no proof: another attack may find more.[/green]")
