"""What the pictures of the study report show, with the sentence that says the same."""

from __future__ import annotations

from collections.abc import Mapping

from datasites.language import tr
from datasites.language.formats import decimal
from datasites.node.web.charts import Bar, Picture, Series, plot_bars, plot_lines, plot_presence, series_of
from datasites.study.text import delta_text, epsilon_text
from orchestrator.studies.facts import StudyFacts, losses_by_round, proximities_by_round


def pictures(facts: StudyFacts) -> tuple[Picture, ...]:
    """Return the pictures that the facts can fill."""
    drawn = []
    if facts.curve:
        drawn.append(_curve(facts))
    losses = losses_by_round(facts)
    if losses:
        drawn.append(_losses(losses))
    if facts.rounds:
        drawn.append(_weights(facts))
        if any(scale != 1 for line in facts.rounds for scale in line.scales.values()):
            drawn.append(_scales(facts))
        proximities = proximities_by_round(facts)
        if proximities:
            drawn.append(_proximities(proximities))
        drawn.append(_presence(facts))
    if any(site.epsilon_spent is not None for site in facts.sites):
        drawn.append(_budgets(facts))
    return tuple(drawn)


def _curve(facts: StudyFacts) -> Picture:
    points = tuple(
        (point.round, (point.auroc if point.auroc is not None else point.concordance) or 0.0) for point in facts.curve
    )
    measure = "AUROC" if facts.curve[0].auroc is not None else tr("Concordance")
    (first, before), (last, now) = points[0], points[-1]
    return Picture(
        name="curve",
        svg=plot_lines([Series(name=measure, points=points)], unit=measure, height=2.8, level=0.5),
        caption=tr(
            "{measure} after each round ({data}); dotted: guessing.",
            measure=measure,
            data=facts.metrics_label or tr("held-out patients"),
        ),
        alternative=tr(
            "Line chart: {measure} {before} in round {first}, {now} in round {last}.",
            measure=measure,
            before=decimal(before, 3),
            first=first,
            now=decimal(now, 3),
            last=last,
        ),
    )


def _losses(losses: Mapping[str, list[tuple[int, float]]]) -> Picture:
    named = {name.replace(".", " "): points for name, points in losses.items()}
    last = "; ".join(f"{name} {decimal(points[-1][1], 3)}" for name, points in losses.items())
    return Picture(
        name="losses",
        svg=plot_lines(series_of(named), unit=tr("loss sum per patient, nats"), height=2.9),
        caption=tr(
            "Noised, clipped loss sums, divided by the patients of the hospitals that sent them. Their cost is part "
            "of the epsilon charged."
        ),
        alternative=tr("Line chart, last values: {values}.", values=last),
    )


def _weights(facts: StudyFacts) -> Picture:
    found: dict[str, list[tuple[int, float]]] = {site.name: [] for site in facts.sites}
    for line in facts.rounds:
        for site in facts.sites:
            values = [of[site.name] for of in line.weights.values() if site.name in of]
            if values:
                found[site.name].append((line.round, sum(values) / len(values)))
    means = [
        f"{site} {decimal(sum(value for _, value in points) / len(points), 2)}" if points else f"{site} {tr('none')}"
        for site, points in found.items()
    ]
    shown = series_of({site: points for site, points in found.items() if points})
    return Picture(
        name="weights",
        svg=plot_lines(shown, unit=tr("relative weight"), top=1.05),
        caption=tr(
            "Weight of each hospital over time, relative to the largest, mean over the blocks it contributes to."
        ),
        alternative=tr("Line chart of weights by round; means: {values}.", values="; ".join(means)),
    )


def _scales(facts: StudyFacts) -> Picture:
    blocks = sorted({block for line in facts.rounds for block in line.scales} - {"shared"})
    found = {b: [(line.round, line.scales[b]) for line in facts.rounds if b in line.scales] for b in blocks}
    last = ", ".join(f"{b} {decimal(facts.rounds[-1].scales.get(b, 1.0), 2)}" for b in blocks)
    return Picture(
        name="blending",
        svg=plot_lines(series_of(found), unit=tr("step, relative to the largest"), height=2.6, top=1.05),
        caption=tr("Gradient blending: how long each modality's step is, the same public number at every hospital."),
        alternative=tr("Line chart of blending scales by round; last: {values}.", values=last),
    )


def _proximities(found: Mapping[str, list[tuple[int, float]]]) -> Picture:
    ordered = dict(sorted(found.items()))
    means = ", ".join(f"{site} {decimal(sum(v for _, v in p) / len(p), 2)}" for site, p in ordered.items())
    return Picture(
        name="proximity",
        svg=plot_lines(series_of(ordered), unit=tr("cosine with the others"), level=0.0),
        caption=tr(
            "Proximity: the cosine between each hospital's noised update and the mean of the others', as the hospital "
            "reported it."
        ),
        alternative=tr("Line chart of cosines by round; means: {values}.", values=means),
    )


def _presence(facts: StudyFacts) -> Picture:
    rows = [(s.name, [(line.round, s.name in line.sites) for line in facts.rounds]) for s in facts.sites]
    missing = [
        tr("{site} missed {count}", site=site.name, count=len(site.missed_rounds))
        for site in facts.sites
        if site.missed_rounds
    ]
    return Picture(
        name="presence",
        svg=plot_presence(rows),
        caption=tr("Who was in the sum of each round (square: in the sum; cross: missing)."),
        alternative=tr(
            "Chart of presence by round: {values}.", values=", ".join(missing) or tr("nobody missed a round")
        ),
    )


def _budgets(facts: StudyFacts) -> Picture:
    bars, told = [], []
    for site in facts.sites:
        if site.epsilon_spent is not None:
            spent = epsilon_text(site.epsilon_spent)
            bars.append(Bar(name=site.name, value=site.epsilon_spent, mark=site.epsilon_cap, text=spent))
            told.append(f"{site.name} " + tr("{spent} of {cap}", spent=spent, cap=epsilon_text(site.epsilon_cap)))
    deltas = sorted({s.delta for s in facts.sites if s.epsilon_spent is not None and s.delta is not None})
    return Picture(
        name="budgets",
        svg=plot_bars(bars, unit=tr("epsilon spent (bar) under the hospital's cap (line)")),
        caption=tr(
            "Epsilon that each hospital has spent in all its studies, as it reported (δ {deltas}; add or remove one "
            "patient; Gaussian DP filter).",
            deltas=", ".join(map(delta_text, deltas)) or tr("not reported"),
        ),
        alternative=tr("Bar chart of epsilon by hospital: {values}.", values="; ".join(told)),
    )
