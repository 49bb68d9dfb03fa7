"""The orchestrator's study report: who took part, what each round did, how good the model is, what it cost.

    >>> facts = study_facts(client.get_json("/studies/pilot"), metrics=metrics, sites=site_results)
    >>> html, data = write_study_report(facts, folder)

It is a self-contained web page, the same facts as JSON (``docs/schemas/study-report.schema.json``), and an accessible
PDF that shows what the page shows, ready to print.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasites.node.files import write_atomically
from datasites.node.web.documents import inlined, render_page, render_pdf
from datasites.study.signing import parse
from datasites.study.text import delta_text, epsilon_text
from orchestrator.studies.facts import EvaluationFact, SiteFacts, StudyFacts
from orchestrator.studies.figures import pictures

NAME = "study-report"
_TEMPLATES = Path(__file__).parent / "templates"


def write_study_report(facts: StudyFacts | Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write ``study-report.html`` and ``study-report.json`` into ``folder`` and return their paths.

    Args:
        facts: as :func:`orchestrator.studies.facts.study_facts` collects them, or the same as plain JSON.
        folder: made when missing.

    Raises:
        InvalidInput: the plain JSON lacks a field, or has one that does not belong there.
    """
    known = facts if isinstance(facts, StudyFacts) else parse(StudyFacts, facts)
    html, data = folder / f"{NAME}.html", folder / f"{NAME}.json"
    plain = dataclasses.asdict(known)
    shown = inlined(pictures(known))
    page = render_page(_TEMPLATES / f"{NAME}.html", facts=plain, totals=totals(known), pictures=shown)
    write_atomically(html, page)
    write_atomically(data, json.dumps(plain, indent=2, allow_nan=False).encode())
    return html, data


def write_study_pdf(facts: StudyFacts, folder: Path) -> Path:
    """Write ``study-report.pdf`` (tagged, PDF/UA-1) into ``folder`` and return its path."""
    path = folder / f"{NAME}.pdf"
    write_atomically(path, render_pdf(_TEMPLATES / f"{NAME}.typ", _view(facts), pictures(facts)))
    return path


def study_schema() -> dict[str, Any]:
    """Return the published JSON schema of the report."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(StudyFacts).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tessera study report", **schema}


def totals(facts: StudyFacts) -> dict[str, Any]:
    """Return what the cards at the top show."""
    timed = [r.seconds for r in facts.rounds if r.seconds is not None]
    complete = sum(not r.missing for r in facts.rounds)
    return {
        "rounds": len(facts.rounds),
        "megabytes": sum(r.uplink_bytes for r in facts.rounds) / 1e6,
        "seconds": sum(timed),
        "complete": complete,
        "dropouts": sum(len(r.missing) for r in facts.rounds),
    }


def _view(facts: StudyFacts) -> dict[str, Any]:
    return {
        "study": facts.study,
        "orchestrator": facts.orchestrator,
        "state": f"{facts.state} ({facts.reason})" if facts.reason else facts.state,
        "proposal": facts.proposal_hash,
        "purpose": facts.purpose,
        "watermarks": facts.watermarks,
        "cards": _cards(facts),
        "facts": _facts(facts),
        "metrics": _metrics(facts),
        "sites": [_site(site) for site in facts.sites],
        "remarks": [line for site in facts.sites for line in _remarks(site)],
        "rounds": [
            (
                str(r.round),
                str(len(r.sites)),
                ", ".join(r.missing),
                f"{r.uplink_bytes:,}",
                "" if r.seconds is None else f"{r.seconds:.1f}",
                r.model_hash[:16],
            )
            for r in facts.rounds
        ],
    }


def _cards(facts: StudyFacts) -> list[tuple[str, str, str]]:
    found = totals(facts)
    missed = f"{found['complete']} with every hospital in the sum; {found['dropouts']} updates missed in all"
    cards = [("Rounds", f"{found['rounds']} of {facts.rounds_planned}", missed)]
    if facts.metrics:
        cards.append((facts.metrics[0].label, f"{facts.metrics[0].value:.3f}", facts.metrics_label))
    return [
        *cards,
        ("Sent by hospitals", f"{found['megabytes']:.1f} MB", "encrypted updates of all rounds"),
        ("Time in rounds", f"{found['seconds']:.0f} s", "from plan to checkpoint"),
    ]


def _facts(facts: StudyFacts) -> list[tuple[str, str]]:
    cost = (
        f"ε {epsilon_text(facts.epsilon_study)} at δ {delta_text(facts.delta)} for a hospital that was in every round; "
        f"add or remove one patient at one hospital; by privacy loss distributions; against {facts.against}"
    )
    return [
        ("Cost to one patient of one hospital", cost),
        ("Legal basis", facts.legal_basis),
        ("Task and model", f"{facts.task}, {facts.architecture}, {facts.aggregation}"),
        ("Noise", f"{facts.noise}, multiplier {facts.noise_multiplier:.3g}"),
        ("Keyholder", f"{facts.keyholder}; no sum over fewer than {facts.min_sites} hospitals is decrypted"),
    ]


def _metrics(facts: StudyFacts) -> list[dict[str, Any]]:
    rows = [(m.label, f"{m.value:.3f}", "") for m in facts.metrics]
    first = [{"caption": facts.metrics_label or "Metrics", "rows": rows}] if rows else []
    return first + [_evaluation(e) for e in facts.evaluations]


def _evaluation(e: EvaluationFact) -> dict[str, Any]:
    rows = [
        ("AUROC (mean over cohorts)", f"{e.auroc:.3f}", f"{e.auroc_error:.3f}"),
        ("Cross entropy, nats", f"{e.cross_entropy:.3f}", f"{e.cross_entropy_error:.3f}"),
    ]
    rows += [
        (f"AUROC, {cohort}", f"{area:.3f}", f"{e.auroc_error_by_cohort[cohort]:.3f}")
        for cohort, area in e.auroc_by_cohort.items()
    ]
    caption = (
        f"{e.label[:1].upper()}{e.label[1:]}: the model that went into round {e.round}, about {e.records} records of "
        f"{e.sites} hospitals, noise {e.noise_multiplier:.3g} times the largest effect of one patient"
    )
    return {"caption": caption, "rows": rows}


def _site(site: SiteFacts) -> tuple[str, ...]:
    told = site.delta is not None
    return (
        site.institution,
        f"{site.cohort}: {', '.join(site.modalities)}",
        str(site.patients),
        str(site.rounds),
        epsilon_text(site.epsilon_spent) if told else "not reported",
        epsilon_text(site.epsilon_cap) if told else "",
        delta_text(site.delta) if site.delta is not None else "",
        ", ".join(site.approved_by) or "not approved",
    )


def _remarks(site: SiteFacts) -> list[str]:
    missed = [f"missing in round {', '.join(map(str, site.missed_rounds))}"] if site.missed_rounds else []
    return [f"{site.institution}: {what}" for what in (*missed, *(f"refused {line}" for line in site.refusals))]
