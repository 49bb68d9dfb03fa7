"""Tables (Markdown) and plots (one HTML file) from the JSON of benchmarks/staging.py.

    python benchmarks/staging_report.py results/*.json --html results.html > tables.md

Each JSON file gives one table; with --html every file gets its learning curves too.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend comes first

COLUMNS = {
    "auroc": "AUROC",
    "difference": "paired difference",
    "balanced_accuracy": "balanced accuracy",
    "cross_entropy": "cross-entropy",
    "calibration_error": "calibration error",
    "worst_site": "worst site",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--html", type=Path)
    arguments = parser.parse_args()
    reports = [json.loads(path.read_text()) for path in arguments.reports]
    print("\n\n".join(markdown(report) for report in reports))
    if arguments.html:
        arguments.html.write_text(page(reports))


def title(report: dict) -> str:
    s = report["settings"]
    privacy = (
        "no privacy" if s["epsilon"] is None else f"epsilon {s['epsilon']:g}, delta {s['delta']:g}, {s['noise']} noise"
    )
    extra = "".join(f", {word}" for word in (s["corrupt"], s["split"] if s["split"] != "stratified" else "") if word)
    return f"{s['federation']}, {s['task']}, {s['model']}, {privacy}{extra} ({s['seeds']} seeds)"


def rows(report: dict) -> list[list[str]]:
    reference = report["reference"]
    made = []
    for name, entry in report["methods"].items():
        values = {**entry, "difference": entry[f"auroc_minus_{reference}"]}
        cohorts = " / ".join(f"{v['mean']:.3f}" for v in entry["auroc_by_cohort"].values())
        cells = [f"{values[c]['mean']:.3f} ± {values[c]['half_width']:.3f}" for c in COLUMNS]
        made.append([name, *cells, cohorts, str(entry.get("rounds_to_reference") or "-")])
    return made


def head(report: dict) -> list[str]:
    cohorts = " / ".join(next(iter(report["methods"].values()))["auroc_by_cohort"])
    return ["method", *COLUMNS.values(), cohorts, f"rounds to {report['reference']}'s AUROC"]


def markdown(report: dict) -> str:
    names = head(report)
    lines = [f"**{title(report)}**", "", "| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows(report)])


def page(reports: list[dict]) -> str:
    parts = [section(report) for report in reports]
    style = "body{font-family:sans-serif;margin:2em}td,th{padding:.2em .6em;border-bottom:1px solid #ccc}"
    return f"<!doctype html><meta charset=utf-8><title>Staging results</title><style>{style}</style>{''.join(parts)}"


def section(report: dict) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows(report))
    names = "".join(f"<th>{html.escape(n)}</th>" for n in head(report))
    picture = f'<img alt="learning curves" src="data:image/png;base64,{curves(report)}">'
    return f"<h2>{html.escape(title(report))}</h2><table><tr>{names}</tr>{cells}</table>{picture}"


def curves(report: dict) -> str:
    figure, axes = plt.subplots(figsize=(7, 4))
    for name, entry in report["methods"].items():
        if "curve" in entry:
            axes.plot(range(1, len(entry["curve"]) + 1), entry["curve"], label=name)
    axes.set_xlabel("round")
    axes.set_ylabel("AUROC, mean over cohorts")
    axes.legend(fontsize="small")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    plt.close(figure)
    return base64.b64encode(data.getvalue()).decode()


if __name__ == "__main__":
    main()
