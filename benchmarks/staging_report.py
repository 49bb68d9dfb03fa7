"""Write docs/results-tables.md and the plots of build/results.html from the JSON of benchmarks/staging.py.

    python benchmarks/staging_report.py benchmarks/results/*.json \\
        --markdown docs/results-tables.md --html build/results.html --benefit datasites/portal/shown/benefit.json

The Markdown file keeps its prose: only what stands between its two ``tables`` marks is replaced. Files are known by the
names that benchmarks/results.py gives them.
"""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from staging_figures import figures
from staging_targets import paired, targets, with_interval

from orchestrator.studies.evaluation import interval

Reports = Mapping[str, dict]
Table = tuple[str, list[str], list[list[str]]]
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
TASKS = ("early-late", "I-II")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--html", type=Path)
    parser.add_argument("--benefit", type=Path, help="JSON for the portal's request page")
    arguments = parser.parse_args()
    reports = {path.stem: json.loads(path.read_text()) for path in arguments.reports}
    found = [(title, tables) for title, make in SECTIONS if (tables := make(reports))]
    text = "\n\n".join(f"### {title}\n\n" + "\n\n".join(map(markdown, tables)) for title, tables in found)
    if arguments.markdown:
        replace_tables(arguments.markdown, text)
    else:
        print(text)
    if arguments.benefit:
        arguments.benefit.write_text(json.dumps(benefit(reports), indent=1) + "\n")
    if arguments.html:
        arguments.html.parent.mkdir(parents=True, exist_ok=True)
        arguments.html.write_text(page(found, figures(reports)))


def benefit(reports: Reports) -> dict[str, dict]:
    """Return by task what a request page says can be expected: mean AUROC with privacy, without, and alone."""
    found: dict[str, dict] = {}
    for task in TASKS:
        plain = reports.get(f"main-tri-modal-{task}")
        private: dict[str, dict[str, float]] = {}
        for report in (r for name, r in reports.items() if name.startswith("privacy-epsilon-")):
            settings = report["settings"]
            if settings["task"] == task and "methods" in report and settings["seeds"] >= 20:
                epsilon = f"{settings['epsilon']:g}"
                private.setdefault(settings["noise"], {})[epsilon] = _mean(report, "fedavg")
                seeds, delta = settings["seeds"], settings["delta"]
        if plain and private:
            alone = _mean(plain, "local")
            found[task] = {"seeds": seeds, "delta": delta, "plain": _mean(plain, "fedavg"), "alone": alone}
            found[task]["private"] = private
    return found


def _mean(report: dict, method: str) -> float:
    return report["methods"][method]["auroc"]["mean"]


def replace_tables(path: Path, text: str) -> None:
    """Put ``text`` between the two marks of a Markdown file."""
    whole = path.read_text()
    before, _, rest = whole.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def comparison(report: dict, held_out: dict | None) -> Table:
    """Return one row a method: scores on the test quarter, and on sites that were held out where that was run."""
    reference = report["reference"]
    cohorts = " / ".join(next(iter(report["methods"].values()))["auroc_by_cohort"])
    head = ["method", "AUROC", f"minus {reference}", cohorts, "sites held out", "balanced accuracy", "cross-entropy"]
    head += ["calibration error", "worst site", "site spread", f"rounds to {reference}"]
    rows = []
    for name, entry in report["methods"].items():
        other = (held_out or {"methods": {}})["methods"].get(name)
        cells = [with_interval(entry["auroc"]), with_interval(entry[f"auroc_minus_{reference}"])]
        cells.append(" / ".join(f"{v['mean']:.3f}" for v in entry["auroc_by_cohort"].values()))
        cells.append(with_interval(other["auroc"]) if other else "-")
        keys = ("balanced_accuracy", "cross_entropy", "calibration_error", "worst_site", "site_spread")
        cells += [with_interval(entry[key]) for key in keys]
        rows.append([name, *cells, str(entry.get("rounds_to_reference") or "-")])
    return title(report), head, rows


def title(report: dict) -> str:
    s = report["settings"]
    privacy = (
        "no privacy" if s["epsilon"] is None else f"epsilon {s['epsilon']:g}, delta {s['delta']:g}, {s['noise']} noise"
    )
    extra = "".join(f", {w}" for w in (s["corrupt"], s["split"] if s["split"] != "stratified" else "") if w)
    if s["federation"] == "dirichlet":
        extra += f", alpha {s['alpha']:g}"
    return f"{s['federation']}, {s['task']}, {s['model']}, {privacy}{extra} ({s['seeds']} seeds)"


def clean(reports: Reports) -> list[Table]:
    tables = []
    for task in (*TASKS, "ordinal"):
        if report := reports.get(f"main-tri-modal-{task}"):
            tables.append(comparison(report, reports.get(f"main-held-out-{task}")))
            tables.append(combinations(report))
    return tables


def combinations(report: dict) -> Table:
    """Return the AUROC when only some modalities are used, for patients who have at least one of them."""
    names = [n for n in ("fedavg", "dgb+pcw", "pooled", "upper-bound") if n in report["methods"]]
    head = ["modalities used", *names]
    keys = report["methods"][names[0]]["combinations"]
    rows = [[k, *(with_interval(report["methods"][n]["combinations"][k]) for n in names)] for k in keys]
    return f"By modality combination: {title(report)}", head, rows


def flips(reports: Reports) -> list[Table]:
    return [comparison(r, held_out(reports, name)) for name, r in reports.items() if name.startswith("flips-flip-")]


def federations(reports: Reports) -> list[Table]:
    made = []
    for federation in ("bi-modal", "upper-bound", "tissue-source-sites"):
        made += [
            comparison(report, reports.get(f"federations-{federation}-held-out-{task}"))
            for task in TASKS
            if (report := reports.get(f"federations-{federation}-{task}"))
        ]
    return made


def mlp(reports: Reports) -> list[Table]:
    return [comparison(r, held_out(reports, name)) for name, r in reports.items() if name.startswith("mlp-mlp-")]


def maps(reports: Reports) -> list[Table]:
    """Return BRCA's tissue maps through the convolutional encoder beside the slide features through the MLP."""
    made = []
    for task in TASKS:
        rows = []
        for model, images in (("convolutional", "tissue maps (BRCA)"), ("mlp", "slide features (BRCA, LUSC)")):
            if report := reports.get(f"maps-{model}-{task}"):
                entry = report["methods"]["fedavg"]
                cells = [entry["auroc_by_cohort"]["BRCA"], report["methods"]["local"]["auroc_by_cohort"]["BRCA"]]
                cells += [entry["auroc"], entry["calibration_error"]]
                rows.append([model, images, *map(with_interval, cells)])
        if rows:
            head = ["model", "images", "BRCA, fedavg", "BRCA, local", "mean of cohorts, fedavg", "calibration error"]
            seeds = reports[f"maps-convolutional-{task}"]["settings"]["seeds"]
            made.append((f"All modalities everywhere, {task}, no privacy ({seeds} seeds)", head, rows))
    return made


def held_out(reports: Reports, name: str) -> dict | None:
    """Return the report of the same run with whole tissue source sites held out, if there is one."""
    group, _, rest = name.partition("-")
    return reports.get(f"{group}-held-out-{rest}")


def privacy(reports: Reports) -> list[Table]:
    """Return the AUROC by epsilon, each with its paired difference to the same seeds without privacy."""
    tables: list[Table] = []
    for task in TASKS:
        plain = reports.get(f"main-tri-modal-{task}")
        if plain is None:
            continue
        apart = [r for n, r in reports.items() if n.startswith("privacy-held-out") and n.endswith(task)]
        seeds = min((r["settings"]["seeds"] for r in apart), default=0)
        cells = (with_interval(plain["methods"]["fedavg"]["auroc"]), "-")
        cells += (_first(reports.get(f"main-held-out-{task}"), seeds),)
        rows = [["no privacy", *cells * 2, *_scores(plain), "-"]]
        for epsilon in (16, 8, 4, 2, 1):
            row = [f"epsilon {epsilon}"]
            for noise in ("shared", "local"):
                name = f"privacy-epsilon-{epsilon}-{noise}-{task}"
                row += [*_against(reports.get(name), plain), _auroc(held_out(reports, name))]
            shared = reports.get(f"privacy-epsilon-{epsilon}-shared-{task}")
            local = reports.get(f"privacy-epsilon-{epsilon}-local-{task}")
            rows.append([*row, *_scores(shared), _scores(local)[0]])
        head = ["", *(h for n in ("shared", "local") for h in (f"{n} noise", "minus no privacy", "sites held out"))]
        head += ["calibration error (shared)", "balanced accuracy (shared)", "calibration error (local)"]
        text = f"FedAvg by epsilon: tri-modal, {task}, delta 1e-4 ({plain['settings']['seeds']} seeds"
        tables.append((f"{text}, {seeds} where sites are held out)", head, rows))
    shown = [name for name in reports if _is_private_comparison(name)]
    return tables + [comparison(reports[name], held_out(reports, name)) for name in shown]


def _is_private_comparison(name: str) -> bool:
    return name.startswith(("privacy-epsilon-8-methods", "privacy-epsilon-8-shared", "privacy-epsilon-8-local"))


def _scores(report: dict | None) -> list[str]:
    if report is None:
        return ["-", "-"]
    entry = report["methods"]["fedavg"]
    return [with_interval(entry["calibration_error"]), with_interval(entry["balanced_accuracy"])]


def _auroc(report: dict | None) -> str:
    return with_interval(report["methods"]["fedavg"]["auroc"]) if report else "-"


def _first(report: dict | None, seeds: int) -> str:
    """Return FedAvg's AUROC over the first ``seeds`` seeds, to stand beside runs of as many."""
    if report is None or seeds < 2:
        return "-"
    return with_interval(interval(report["methods"]["fedavg"]["auroc_by_seed"][:seeds]))


def _against(report: dict | None, plain: dict) -> list[str]:
    if report is None:
        return ["-", "-"]
    entry = report["methods"]["fedavg"]
    return [with_interval(entry["auroc"]), with_interval(paired(report, "fedavg", plain, "fedavg"))]


def heterogeneity(reports: Reports) -> list[Table]:
    """Return one table per kind: stage mix varied with all modalities everywhere, and the other way round."""
    made = []
    kinds = {"class": ("100", "1", "0.3", "0.1"), "type": ("upper-bound", "tri-modal", "bi-modal", "one-modality")}
    texts = {
        "class": "Class-based: stage mix drawn from Dirichlet(alpha), all modalities everywhere",
        "type": "Type-based: which modalities an institution holds, stages stratified",
    }
    for kind, levels in kinds.items():
        there = [(level, r) for level in levels if (r := reports.get(f"heterogeneity-{kind}-{level}"))]
        if there:
            head = ["level", *there[0][1]["methods"]]
            head += [f"fedavg: {what}" for what in ("calibration error", "worst site", "sites held out")]
            rows = []
            for level, report in there:
                entries = report["methods"]
                cells = [with_interval(entries[n]["auroc"]) for n in entries]
                fedavg = [with_interval(entries["fedavg"][k]) for k in ("calibration_error", "worst_site")]
                rows.append([level, *cells, *fedavg, _auroc(reports.get(f"heterogeneity-held-out-{kind}-{level}"))])
            made.append((f"{texts[kind]} (early-late, {there[0][1]['settings']['seeds']} seeds)", head, rows))
    return made


def null(reports: Reports) -> list[Table]:
    return [comparison(r, None) for name, r in reports.items() if name.startswith("main-permuted")]


SECTIONS: Sequence[tuple[str, Callable[[Reports], list[Table]]]] = (
    ("What it had to show", targets),
    ("Clean data, tri-modal federation", clean),
    ("Flipped labels at two of nine institutions", flips),
    ("Privacy", privacy),
    ("The paper's network", mlp),
    ("Tissue maps through the convolutional encoder", maps),
    ("Other federations", federations),
    ("Class-based against type-based heterogeneity", heterogeneity),
    ("Permuted labels", null),
)


def markdown(table: Table) -> str:
    caption, head, rows = table
    lines = [f"**{caption}**", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def page(found: Sequence[tuple[str, list[Table]]], pictures: Mapping[str, str]) -> str:
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:105em;padding:0 1em;color:#1b1b1b}"
        "table{border-collapse:collapse;font-size:13px;margin:.5em 0 1.5em}th{text-align:left}"
        "td,th{padding:.25em .6em;border-bottom:1px solid #ccc}"
        "td{white-space:nowrap}td:first-child{white-space:normal}svg{max-width:100%;height:auto}h3{margin-top:2em}"
    )
    parts = ["<h1>Staging results</h1><p>Exact metrics on held-out patients of public data, outside the protocol."]
    parts.append(" How they were made and what is missed: docs/results.md.</p>")
    for section, tables in found:
        parts.append(f"<h2>{html.escape(section)}</h2>{pictures.get(section, '')}")
        parts += [_table(table) for table in tables]
    return f"<!doctype html><meta charset=utf-8><title>Staging results</title><style>{style}</style>{''.join(parts)}\n"


def _cell(text: str) -> str:
    whole = html.escape(text.strip("*"))
    return f"<b>{whole}</b>" if text.startswith("**") else whole


def _table(table: Table) -> str:
    caption, head, rows = table
    names = "".join(f"<th>{html.escape(n)}</th>" for n in head)
    cells = "".join("<tr>" + "".join(f"<td>{_cell(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<h3>{html.escape(caption)}</h3><table><tr>{names}</tr>{cells}</table>"


if __name__ == "__main__":
    main()
