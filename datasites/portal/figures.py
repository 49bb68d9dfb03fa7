"""What the pictures of the portal's pages show: the cost of a study as a bar, and a budget over time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from datasites.node.web.charts import bar, steps
from datasites.review.budgets import Budget, CostPreview
from datasites.study.text import epsilon_text
from privacy.ledger.views import Point


def cost_picture(cost: CostPreview) -> Markup:
    """Return the budget as one bar: spent before, added by this study at its worst, left, with the cap marked."""
    known = [v for v in (cost.before, cost.after) if math.isfinite(v)]
    limit = cost.cap if math.isfinite(cost.cap) else max([1.0, *known])
    after = cost.after if math.isfinite(cost.after) else limit * 1.5
    before = min(cost.before, after)
    return bar(
        [("spent", before), ("added" if cost.fits else "over", after - before)],
        label=f"Epsilon at delta {cost.delta:g}: {epsilon_text(cost.before)} before this study, "
        f"{epsilon_text(cost.after)} after it at its worst, the cap is {epsilon_text(cost.cap)}",
        limit=limit,
        limit_text=f"cap {epsilon_text(cost.cap)}",
        texts=(f"spent {epsilon_text(cost.before)}", f"after {epsilon_text(cost.after)}"),
    )


def timeline_picture(budget: Budget, history: Sequence[Point]) -> Markup:
    """Return epsilon spent after every entry of the ledger, oldest left, with the cap as a dashed line."""
    return steps(
        [point.spent.epsilon for point in history],
        label=f"Epsilon spent on {budget.population} over {len(history)} entries: now {epsilon_text(budget.spent)} "
        f"of {epsilon_text(budget.cap)}, delta {budget.delta:g}",
        limit=budget.cap,
        limit_text=f"cap {epsilon_text(budget.cap)}",
    )
