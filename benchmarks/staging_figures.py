"""The plots of build/results.html as SVG, from the JSON of benchmarks/staging.py."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.rcParams["svg.hashsalt"] = "tessera"  # the same JSON gives the same file

Reports = Mapping[str, dict]
TASKS = ("early-late", "I-II")
SHOWN = ("fedavg", "fedadam", "dgb+pcw", "fedavgm", "dgb+pcw+momentum", "pooled", "pcw-published")


def figures(reports: Reports) -> dict[str, str]:
    """Return SVG by section title; a section without its reports has none."""
    pictures = {
        "Clean data, tri-modal federation": _pair(reports, "main-tri-modal-{}", _curves),
        "Flipped labels at two of nine institutions": _flips(reports),
        "Privacy": _pair(reports, "main-tri-modal-{}", _privacy),
        "The paper's network": _pair(reports, "mlp-mlp-{}", _curves),
        "Class-based against type-based heterogeneity": _heterogeneity(reports),
    }
    return {section: picture for section, picture in pictures.items() if picture}


def _pair(reports: Reports, pattern: str, draw: Callable[[Axes, Reports, str, dict], None]) -> str:
    there = [(task, reports[pattern.format(task)]) for task in TASKS if pattern.format(task) in reports]
    if not there:
        return ""
    figure = Figure(figsize=(5.5 * len(there), 4))
    axes = figure.subplots(1, len(there), squeeze=False)
    for place, (task, report) in zip(axes[0], there, strict=True):
        draw(place, reports, task, report)
        place.set_title(task)
        place.set_ylabel("AUROC, mean over cohorts")
        place.legend(fontsize="x-small")
    return _svg(figure)


def _curves(axes: Axes, _: Reports, __: str, report: dict) -> None:
    for name, entry in report["methods"].items():
        if "curve" in entry and (name in SHOWN or report["settings"]["model"] != "linear"):
            style = "--" if name == "dgb" else "-"  # often under dgb+pcw
            axes.plot(range(1, len(entry["curve"]) + 1), entry["curve"], style, label=name)
    axes.set_ylim(bottom=report["methods"]["fedavg"]["auroc"]["mean"] - 0.06)
    axes.axhline(report["methods"]["fedavg"]["auroc"]["mean"], color="0.6", linewidth=0.8, linestyle=":")
    axes.set_xlabel("round")


def _privacy(axes: Axes, reports: Reports, task: str, plain: dict) -> None:
    for noise, marker in (("shared", "o"), ("local", "s")):
        points = []
        for epsilon in (1, 2, 4, 8, 16):
            report = reports.get(f"privacy-epsilon-{epsilon}-{noise}-{task}")
            if report:
                points.append((epsilon, report["methods"]["fedavg"]["auroc"]))
        if points:
            means, halves = [v["mean"] for _, v in points], [v["half_width"] for _, v in points]
            axes.errorbar([e for e, _ in points], means, halves, marker=marker, capsize=3, label=f"{noise} noise")
    for name, style in (("fedavg", "--"), ("local", ":")):
        label = f"{name}, no privacy"
        axes.axhline(plain["methods"][name]["auroc"]["mean"], color="0.4", linestyle=style, linewidth=1, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    axes.set_xlabel("epsilon per patient (delta 1e-4, add/remove, PLD accountant)")


def _flips(reports: Reports) -> str:
    there = [(n, r) for n, r in reports.items() if n.startswith("flips-flip-")]
    if not there:
        return ""
    figure = Figure(figsize=(8, 0.5 * len(there) + 1.5))
    axes = figure.subplots()
    for offset, name in ((0.15, "dgb+pcw"), (-0.15, "pcw-published")):
        values = [r["methods"][name]["auroc_minus_fedavg"] for _, r in there]
        places = [i + offset for i in range(len(there))]
        means, halves = [v["mean"] for v in values], [v["half_width"] for v in values]
        axes.errorbar(means, places, xerr=halves, fmt="o", capsize=3, label=name)
    axes.set_yticks(range(len(there)), [f"{r['settings']['corrupt']}, {r['settings']['task']}" for _, r in there])
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.axvline(0.02, color="0.6", linewidth=0.8, linestyle=":", label="target")
    axes.invert_yaxis()
    axes.set_xlabel("AUROC minus FedAvg's, paired")
    axes.legend(fontsize="x-small")
    return _svg(figure)


def _heterogeneity(reports: Reports) -> str:
    kinds = {"class": ("100", "1", "0.3", "0.1"), "type": ("upper-bound", "tri-modal", "bi-modal", "one-modality")}
    there = {
        k: [(v, reports[n]) for v in levels if (n := f"heterogeneity-{k}-{v}") in reports]
        for k, levels in kinds.items()
    }
    there = {k: found for k, found in there.items() if found}
    if not there:
        return ""
    figure = Figure(figsize=(5.5 * len(there), 4))
    axes = figure.subplots(1, len(there), squeeze=False, sharey=True)
    for place, (kind, found) in zip(axes[0], there.items(), strict=True):
        place.set_title(f"{kind}-based")
        for order, name in enumerate(found[0][1]["methods"]):
            values = [r["methods"][name]["auroc"] for _, r in found]
            means, halves = [v["mean"] for v in values], [v["half_width"] for v in values]
            places = [i + 0.07 * (order - 1.5) for i in range(len(found))]
            place.errorbar(places, means, halves, marker="o", capsize=3, label=name)
        place.set_xticks(range(len(found)), [level for level, _ in found])
        place.set_xlabel("Dirichlet alpha of the stage mix" if kind == "class" else "modalities by institution")
        place.set_ylabel("AUROC, mean over cohorts")
        place.legend(fontsize="x-small")
    return _svg(figure)


def _svg(figure: Figure) -> str:
    figure.tight_layout()
    data = io.StringIO()
    figure.savefig(data, format="svg", metadata={"Date": None})
    return data.getvalue().partition("<svg")[1] + data.getvalue().partition("<svg")[2]
