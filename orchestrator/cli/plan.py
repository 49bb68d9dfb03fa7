"""``tessera plan check``: what hospitals will see of a network of one's own, and whether they could clip it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from datasites.node.commands import JsonOption, console, show
from privacy.errors import InvalidInput, Refused

app = typer.Typer()
plan_app = typer.Typer(help="A network and a loss of one's own.", no_args_is_help=True)
app.add_typer(plan_app, name="plan")


@plan_app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="Folder with plan.py.")],
    feature: Annotated[
        list[str] | None, typer.Option(help="MODALITY=INPUTS of the study; the synthetic patients' without any.")
    ] = None,
    cohorts: Annotated[int, typer.Option(min=1, help="How many cohorts the study has.")] = 3,
    classes: Annotated[int, typer.Option(min=2, help="How many classes it tells apart.")] = 2,
    json_output: JsonOption = False,
) -> None:
    """Try a plan on made-up records as hospitals do, and say what a reviewer will see."""
    from models.config import ModelConfig
    from orchestrator.studies.proposing.own_code import read_plan, try_plan

    files = read_plan(folder)
    names = tuple(f"cohort {number}" for number in range(1, cohorts + 1))
    config = ModelConfig(architecture="mlp", features=_features(feature), cohorts=names, classes=classes)
    tried = try_plan(files, config)
    report = _report(files, tried)
    if json_output:
        show(report)
    else:
        _print(report)
    if tried.problem:
        raise Refused(f"hospitals would refuse this plan: {tried.problem}")


def _features(given: list[str] | None) -> dict[str, int]:
    if not given:
        return {"mrna": 200, "image": 60, "clinical": 129}
    found: dict[str, int] = {}
    for text in given:
        name, sign, number = text.partition("=")
        if not sign or not number.isdecimal() or int(number) < 1 or name in found:
            raise InvalidInput(f"expected --feature as MODALITY=INPUTS, each modality once, got {text[:40]!r}")
        found[name] = int(number)
    return found


def _report(files: dict[str, bytes], tried: Any) -> dict[str, Any]:
    from privacy.canonical import sha256_hex

    return {
        "files": [{"name": n, "bytes": len(d), "sha256": sha256_hex(d)} for n, d in sorted(files.items())],
        "layers": [vars(layer) for layer in tried.layers],
        "leaves": {"block": "shared", "values": tried.parameters},
        "checks": [{"what": what, "holds": held} for what, held in tried.checks],
        "findings": [
            {"file": f.file, "line": f.line, "severity": f.severity, "what": f.message} for f in tried.findings
        ],
        "problem": tried.problem,
    }


def _print(report: dict[str, Any]) -> None:
    console.print("What a reviewer sees:", highlight=False)
    for file in report["files"]:
        console.print(f"  {file['name']}  {file['bytes']} bytes  {file['sha256'][:16]}", highlight=False, markup=False)
    for found in report["findings"]:
        text = f"  {found['severity']}: {found['file']}:{found['line']} {found['what']}"
        console.print(text, highlight=False, markup=False)
    console.print("Layers, and whether each record's gradient can be clipped:", highlight=False)
    for layer in report["layers"]:
        verdict = layer["reason"] or "clipped per record"
        text = f"  {layer['name']} ({layer['type']}, {layer['parameters']} parameters): {verdict}"
        console.print(text, highlight=False, markup=False)
    console.print("What was tried on made-up records:", highlight=False)
    for check in report["checks"]:
        console.print(f"  {'holds' if check['holds'] else 'FAILS'}: {check['what']}", highlight=False, markup=False)
    leaves = report["leaves"]["values"]
    console.print(f"What leaves a hospital in a round: {leaves} encrypted values with noise", highlight=False)
