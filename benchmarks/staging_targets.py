"""What the method had to show, target by target, read off the JSON; and paired differences across files."""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestrator.studies.evaluation import interval

Reports = Mapping[str, dict]
Interval = Mapping[str, float]
Table = tuple[str, list[str], list[list[str]]]
TASKS = ("early-late", "I-II")

_HEADLINE = 8


def with_interval(value: Interval) -> str:
    return f"{value['mean']:.3f} ± {value['half_width']:.3f}"


def paired(report: dict, name: str, other: dict, other_name: str) -> dict[str, float]:
    """Return the mean difference over the seeds that two reports share, and the half-width of its 95 % interval."""
    first, last = _by_seed(report, name), _by_seed(other, other_name)
    values = [first[s] - last[s] for s in sorted(first.keys() & last.keys())]
    return interval(values) if len(values) > 1 else {"mean": math.nan, "half_width": math.nan}


def _by_seed(report: dict, name: str) -> dict[int, float]:
    first = report["settings"]["first_seed"]
    return {first + i: v for i, v in enumerate(report["methods"][name]["auroc_by_seed"])}


def targets(reports: Reports) -> list[Table]:
    """Return one row per target: what was asked, what was measured, whether it is met."""
    rows: list[list[str]] = []
    for task in TASKS:
        if main := reports.get(f"main-tri-modal-{task}"):
            rows += _clean(task, main)
    for name, report in reports.items():
        if name.startswith("flips-flip-"):
            value = report["methods"]["dgb+pcw"]["auroc_minus_fedavg"]
            asked = f"{report['settings']['corrupt']}, {report['settings']['task']}: dgb+pcw - fedavg >= .02, above 0"
            rows.append([asked, *_row(value, value["mean"] >= 0.02 and _low(value) > 0)])
    if network := reports.get("mlp-mlp-early-late"):
        value = network["methods"]["dgb+pcw"]["auroc_minus_fedavg"]
        rows.append(["the paper's MLP, early-late: dgb+pcw - fedavg >= .03", *_row(value, value["mean"] >= 0.03)])
        if "fedavg-combination" in network["methods"]:
            value = paired(network, "dgb+pcw", network, "fedavg-combination")
            asked = "the same, against FedAvg of the network as published (a head per combination)"
            rows.append([asked, *_row(value, value["mean"] >= 0.03)])
    for task in TASKS:
        rows += _private(task, reports)
    for task in TASKS:
        if null := reports.get(f"main-permuted-{task}"):
            value = null["methods"]["fedavg"]["auroc"]
            asked = f"{task}: permuted labels at .50, within .03"
            rows.append([asked, *_row(value, abs(value["mean"] - 0.5) <= 0.03)])
    return [("Targets (paired 95 % intervals over seeds)", ["target", "measured", "met"], rows)] if rows else []


def _clean(task: str, main: dict) -> list[list[str]]:
    methods = main["methods"]
    least = {"early-late": 0.65, "I-II": 0.615}[task]
    fedavg = methods["fedavg"]["auroc"]
    behind = paired(main, "pooled", main, "fedavg")
    gain = paired(main, "fedavg", main, "local")
    ours = methods["dgb+pcw"]["auroc_minus_fedavg"]
    rows = [
        [f"{task}: fedavg at least {least:g}", *_row(fedavg, fedavg["mean"] >= least)],
        [f"{task}: pooled - fedavg at most .005", *_row(behind, behind["mean"] <= 0.005)],
        [f"{task}: fedavg - local at least .03, above 0", *_row(gain, gain["mean"] >= 0.03 and _low(gain) > 0)],
        [f"{task}: dgb+pcw - fedavg, lower bound above -.005", *_row(ours, _low(ours) > -0.005)],
    ]
    needed = methods["fedavg"]["rounds_to_reference"]
    quick = {n: e["rounds_to_reference"] for n, e in methods.items() if n in ("fedavgm", "dgb+pcw+momentum")}
    text = ", ".join(f"{n} {r or 'never'}" for n, r in quick.items())
    best = min((r for r in quick.values() if r), default=math.inf)
    rows.append([f"{task}: half of FedAvg's {needed} rounds to its final AUROC", text, _met(2 * best <= needed)])
    seconds, processes = main.get("seconds"), main["settings"].get("processes")
    if seconds:
        text = f"{seconds:.0f} s with {len(methods)} methods, {main['settings']['seeds']} seeds, {processes} processes"
        rows.append([f"{task}: nine methods, 20 seeds, 40 rounds in 900 s on two cores", text, _met(seconds <= 900)])
    return rows


ASKED = (("shared", 8, 0.008), ("shared", 4, 0.015), ("shared", 2, 0.030), ("local", 8, 0.020))
"""How much AUROC the method may lose to no privacy, by noise and epsilon."""


def _private(task: str, reports: Reports) -> list[list[str]]:
    rows = []
    plain = reports.get(f"main-tri-modal-{task}")
    for noise, epsilon, allowed in ASKED:
        report = reports.get(f"privacy-epsilon-{epsilon}-{noise}-{task}")
        if report is None or plain is None:
            continue
        drop = paired(report, "fedavg", plain, "fedavg")
        asked = f"{task}: epsilon {epsilon}, {noise} noise, mean within {allowed:g} of no privacy"
        rows.append([asked, *_row(drop, drop["mean"] >= -allowed)])
        if epsilon != _HEADLINE:
            continue
        if noise == "shared":
            gain = paired(report, "fedavg", plain, "local")
            rows.append(
                [
                    f"{task}: epsilon 8, shared noise, above the hospitals alone without privacy",
                    *_row(gain, _low(gain) > 0),
                ]
            )
            rows.append(_every_hospital(f"{task}: the same, hospital by hospital (means)", report, plain))
        else:
            asked = f"{task}: epsilon 8, local noise, hospital by hospital (means; not asked)"
            rows.append(_every_hospital(asked, report, plain, asked_for=False))
    if plain is not None:
        asked = f"{task}: no privacy, hospital by hospital (means; not asked)"
        rows.append(_every_hospital(asked, plain, plain, asked_for=False))
    return rows


def _every_hospital(asked: str, report: dict, plain: dict, *, asked_for: bool = True) -> list[str]:
    """Compare each hospital's own model, without privacy, with the federated one: same patients, same modalities."""
    together = {s: v["mean"] for s, v in report["methods"]["fedavg"].get("sites", {}).items()}
    alone = {s: v["mean"] for s, v in plain["methods"]["local"]["sites"].items() if s in together}
    below = [f"{s} ({together[s]:.3f} against {v:.3f})" for s, v in alone.items() if together[s] <= v]
    text = f"above {len(alone) - len(below)} of {len(alone)}" + (f", not {', '.join(below)}" if below else "")
    return [asked, text, _met(not below) if asked_for else "-"]


def _row(value: Interval, met: bool) -> list[str]:
    return [f"{value['mean']:.4f} ± {value['half_width']:.4f}", _met(met)]


def _low(value: Interval) -> float:
    return value["mean"] - value["half_width"]


def _met(met: bool) -> str:
    return "yes" if met else "**no**"
