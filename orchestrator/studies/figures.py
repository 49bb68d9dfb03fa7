"""The pictures of the study report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasites.report.figures import CAP, INK, PROMISED, SPENT, Picture, new_axes, to_svg
from datasites.report.words import number, small
from orchestrator.studies.facts import StudyFacts, losses_by_round, proximities_by_round

_COLOURS = ("#0b6b66", "#8a5a00", "#3d5a98", "#98202a", "#5b7a1e", "#7b4a8b", "#1d2b36", "#b3541e", "#3f8ea3")
_DASHES = ("-", "--", ":")


def pictures(facts: StudyFacts) -> tuple[Picture, ...]:
    """Return the pictures that the facts can fill."""
    drawn = []
    if facts.curve:
        drawn.append(_curve(facts))
    losses = losses_by_round(facts)
    if losses:
        drawn.append(_loss_lines(losses))
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
    figure, axes = new_axes(2.8)
    rounds, values = [p.round for p in facts.curve], [p.auroc for p in facts.curve]
    axes.plot(rounds, values, color=SPENT, linewidth=2, marker="o", markersize=4)
    axes.axhline(0.5, color=CAP, linestyle=":", linewidth=1.2)
    _by_round(axes, "AUROC")
    caption = f"AUROC after each round ({facts.metrics_label or 'held-out patients'}); dotted: guessing."
    alternative = f"Line chart: AUROC {values[0]:.3f} in round {rounds[0]}, {values[-1]:.3f} in round {rounds[-1]}."
    return Picture(name="curve", svg=to_svg(figure), caption=caption, alternative=alternative)


def _loss_lines(losses: Mapping[str, list[tuple[int, float]]]) -> Picture:
    figure, axes = new_axes(2.9)
    for index, (name, points) in enumerate(losses.items()):
        axes.plot(*zip(*points, strict=True), label=name.replace(".", " "), **_style(index))
    _by_round(axes, "loss sum per patient, nats")
    axes.legend(frameon=False, fontsize=8, ncols=2)
    caption = "Noised, clipped loss sums per patient listed by the hospitals that sent them (part of the charged cost)."
    last = "; ".join(f"{name} {points[-1][1]:.3f}" for name, points in losses.items())
    return Picture(name="losses", svg=to_svg(figure), caption=caption, alternative=f"Line chart, last values: {last}.")


def _weights(facts: StudyFacts) -> Picture:
    figure, axes = new_axes(3.1)
    for index, site in enumerate(facts.sites):
        points = [
            (line.round, _mean_weight(line.weights, site.name)) for line in facts.rounds if site.name in line.sites
        ]
        points = [(n, w) for n, w in points if w is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=site.name, **_style(index))
    _by_round(axes, "relative weight")
    axes.set_ylim(0, 1.05)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.2))
    means = []
    for site in facts.sites:
        values = [w for line in facts.rounds if (w := _mean_weight(line.weights, site.name)) is not None]
        means.append(f"{site.name} {sum(values) / len(values):.2f}" if values else f"{site.name} none")
    return Picture(
        name="weights",
        svg=to_svg(figure),
        caption="Weight of each hospital over time, relative to the largest, mean over the blocks it contributes to.",
        alternative=f"Line chart of weights by round; means: {', '.join(means)}.",
    )


def _scales(facts: StudyFacts) -> Picture:
    figure, axes = new_axes(2.6)
    blocks = sorted({block for line in facts.rounds for block in line.scales} - {"shared"})
    for index, block in enumerate(blocks):
        points = [(line.round, line.scales[block]) for line in facts.rounds if block in line.scales]
        axes.plot(*zip(*points, strict=True), label=block, **_style(index))
    _by_round(axes, "step, relative to the largest")
    axes.set_ylim(0, 1.05)
    axes.legend(frameon=False, fontsize=8, ncols=3)
    last = ", ".join(f"{b} {facts.rounds[-1].scales.get(b, 1.0):.2f}" for b in blocks)
    return Picture(
        name="blending",
        svg=to_svg(figure),
        caption="Gradient blending: how long each modality's step is, the same public number at every hospital.",
        alternative=f"Line chart of blending scales by round; last: {last}.",
    )


def _proximities(found: Mapping[str, list[tuple[int, float]]]) -> Picture:
    figure, axes = new_axes(3.1)
    for index, (site, points) in enumerate(sorted(found.items())):
        axes.plot(*zip(*points, strict=True), label=site, **_style(index))
    axes.axhline(0.0, color=CAP, linestyle=":", linewidth=1.2)
    _by_round(axes, "cosine with the others")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.2))
    means = ", ".join(f"{site} {sum(v for _, v in p) / len(p):+.2f}" for site, p in sorted(found.items()))
    return Picture(
        name="proximity",
        svg=to_svg(figure),
        caption="Proximity: the angle between each hospital's noised update and the mean of the others', as it said.",
        alternative=f"Line chart of cosines by round; means: {means}.",
    )


def _presence(facts: StudyFacts) -> Picture:
    figure, axes = new_axes(0.9 + 0.26 * len(facts.sites))
    axes.grid(visible=False)
    names = [site.name for site in facts.sites]
    for line in facts.rounds:
        for row, name in enumerate(reversed(names)):
            here = name in line.sites
            axes.plot(line.round, row, marker="s" if here else "x", color=SPENT if here else CAP, markersize=6)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    _by_round(axes, "")
    missing = [f"{site.name} missed {len(site.missed_rounds)}" for site in facts.sites if site.missed_rounds]
    return Picture(
        name="presence",
        svg=to_svg(figure),
        caption="Who was in the sum of each round (square: in the sum; cross: missing).",
        alternative="Chart of presence by round: " + (", ".join(missing) or "nobody missed a round") + ".",
    )


def _budgets(facts: StudyFacts) -> Picture:
    shown = [site for site in facts.sites if site.epsilon_spent is not None]
    figure, axes = new_axes(0.9 + 0.34 * len(shown))
    for row, site in enumerate(reversed(shown)):
        axes.barh(row, site.epsilon_spent, height=0.56, color=SPENT)
        if site.epsilon_cap is not None:
            axes.plot([site.epsilon_cap] * 2, [row - 0.36, row + 0.36], color=PROMISED, linewidth=2.4)
        axes.text(site.epsilon_spent, row, f"  {number(site.epsilon_spent)}", va="center", color=INK, fontsize=9)
    axes.set_yticks(range(len(shown)), [site.name for site in reversed(shown)])
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)
    axes.set_xlabel("epsilon spent (bar) under the hospital's cap (line)")
    deltas = sorted({site.delta for site in shown if site.delta is not None})
    text = ", ".join(f"{site.name} {number(site.epsilon_spent)} of {number(site.epsilon_cap)}" for site in shown)
    return Picture(
        name="budgets",
        svg=to_svg(figure),
        caption="Epsilon that each hospital has spent in all its studies, as it reported "
        f"(δ {', '.join(small(d) for d in deltas) or 'not reported'}; add or remove one patient; Rényi DP filter).",
        alternative=f"Bar chart of epsilon by hospital: {text}.",
    )


def _mean_weight(weights: Mapping[str, Mapping[str, float]], site: str) -> float | None:
    values = [of[site] for of in weights.values() if site in of]
    return sum(values) / len(values) if values else None


def _style(index: int) -> dict[str, Any]:
    dash = _DASHES[index // len(_COLOURS) % len(_DASHES)]
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "linestyle": dash,
        "linewidth": 1.8,
        "marker": "o",
        "markersize": 3,
    }


def _by_round(axes: Any, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("round")
    axes.set_ylabel(label)
