"""The model card: what a reader has to know before using a model, in Markdown (the same facts lie there as JSON)."""

from __future__ import annotations

from datasites.study.outcome_words import outcome_text
from tessera.facts import ModelFacts


def card_of(facts: ModelFacts) -> str:
    """Return the model card in Markdown."""
    sections = [
        ("", [f"# Model of {_plain(facts.origin.study)}", "", _plain(facts.purpose)]),
        ("What it does", _does(facts)),
        ("What it was trained on", _trained(facts)),
        ("Privacy", [f"* {facts.privacy.statement}", f"* Noise: {facts.privacy.noise}."]),
        ("How good it is", _scores(facts)),
        ("What it is not for", _limits(facts)),
        ("Where it comes from", _origin(facts)),
        ("Licence", [f"* {_plain(facts.licence)}"]),
    ]
    lines = []
    for title, text in sections:
        lines += [*([f"## {title}", ""] if title else []), *text, ""]
    return "\n".join(lines)


def _does(facts: ModelFacts) -> list[str]:
    kind = "an own network (its code is in `code/`)" if facts.code else f"Tessera's {facts.config.architecture} model"
    inputs = ", ".join(f"{modality} ({len(facts.features[modality])} inputs)" for modality in facts.config.modalities)
    return [
        f"* Predicts {_plain(_outcome(facts))}: {', '.join(map(_plain, facts.classes))}.",
        f"* Reads {inputs}. A patient may lack some of them.",
        f"* Knows the cohorts {', '.join(map(_plain, facts.cohorts))}.",
        f"* Is {kind}.",
        '* Use: `tessera.load("FOLDER").predict(frames)`, or `tessera predict FOLDER TABLE --out FILE`.',
    ]


def _outcome(facts: ModelFacts) -> str:
    return outcome_text(facts.task, facts.config.predicts, facts.config.classes)


def _trained(facts: ModelFacts) -> list[str]:
    origin = facts.origin
    who = "Simulated hospitals" if origin.simulated else "Hospitals"
    lines = [f"* {who}: {len(origin.hospitals)}, together about {origin.patients} patients, in {origin.rounds} rounds."]
    return lines + [f"* {_plain(name)}: {', '.join(held)}" for name, held in origin.hospitals.items()]


def _scores(facts: ModelFacts) -> list[str]:
    if not facts.metrics:
        return ["* Not measured."]
    return [f"* {facts.metrics_label}:", *(f"  * {name}: {value:.4f}" for name, value in facts.metrics.items())]


def _limits(facts: ModelFacts) -> list[str]:
    return [
        "* It is a research model and no medical device: nobody has shown that decisions about patients get better.",
        f"* It says nothing of patients unlike those of {', '.join(map(_plain, facts.cohorts))}.",
        _calibration(facts),
    ]


def _calibration(facts: ModelFacts) -> str:
    found = facts.calibration
    if found is None:
        return "* Its probabilities were not calibrated on your patients."
    stays = " Private records were used without noise: this copy stays where it was made." if found.confined else ""
    return (
        f"* Its probabilities were calibrated on {found.patients} patients of {_plain(found.where)} (slope "
        f"{found.slope:.3f}; calibration error {found.error_before:.3f} before, {found.error_after:.3f} after, on "
        f"them), and on nobody else's.{stays}"
    )


def _origin(facts: ModelFacts) -> list[str]:
    origin = facts.origin
    named = (
        ("study", origin.study),
        ("proposal", origin.proposal_hash),
        ("parameters (SHA-256)", origin.model_hash),
        ("Tessera's code", origin.code_hash),
        ("installed versions", origin.lock_hash),
        ("began with the model of", origin.began_with),
        ("made", facts.made),
    )
    return [f"* {name}: `{value.replace('`', '')}`" for name, value in named if value]


def _plain(text: str) -> str:
    """Return text that Markdown shows as it stands, on one line."""
    flat = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in flat)
