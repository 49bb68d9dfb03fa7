"""The study report as an accessible PDF, set with typst: what the web page says, ready to print."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from datasites.files import write_atomically
from datasites.report.words import number, small
from orchestrator.study_facts import EvaluationFact, SiteFacts, StudyFacts
from orchestrator.study_figures import pictures
from orchestrator.study_report import NAME, totals

_TEMPLATE = Path(__file__).parent / "templates" / f"{NAME}.typ"


def write_study_pdf(facts: StudyFacts, folder: Path) -> Path:
    """Write ``study-report.pdf`` (tagged, PDF/UA-1) into ``folder`` and return its path."""
    import typst

    drawn = pictures(facts)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for picture in drawn:
            (place / f"{picture.name}").write_bytes(picture.svg)
        shown = [{"name": p.name, "caption": p.caption, "alternative": p.alternative} for p in drawn]
        (place / "view.json").write_text(json.dumps({**_view(facts), "pictures": shown}, allow_nan=False))
        (place / "report.typ").write_bytes(_TEMPLATE.read_bytes())
        document: bytes = typst.compile(
            str(place / "report.typ"), root=str(place), format="pdf", pdf_standards=["ua-1"]
        )
    path = folder / f"{NAME}.pdf"
    write_atomically(path, document)
    return path


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
        f"ε {number(facts.epsilon_study)} at δ {small(facts.delta)} for a hospital that was in every round; add or "
        f"remove one patient at one hospital; by privacy loss distributions; against {facts.against}"
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
        number(site.epsilon_spent) if told else "not reported",
        number(site.epsilon_cap) if told else "",
        small(site.delta) if site.delta is not None else "",
        ", ".join(site.approved_by) or "not approved",
    )


def _remarks(site: SiteFacts) -> list[str]:
    missed = [f"missing in round {', '.join(map(str, site.missed_rounds))}"] if site.missed_rounds else []
    return [f"{site.institution}: {what}" for what in (*missed, *(f"refused {line}" for line in site.refusals))]
