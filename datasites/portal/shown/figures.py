"""What the pictures of the portal's pages show: the cost of a study as a bar, and a budget over time."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

from markupsafe import Markup

from datasites.language import tr, tr_plural
from datasites.node.web.charts import bar, steps
from datasites.review.budgets import Budget, CostPreview
from datasites.study.text import delta_text, epsilon_text
from privacy.ledger.views import Point


def cost_picture(cost: CostPreview) -> Markup:
    """Return the budget as one bar: spent before, added by this study at its worst, left, with the cap marked."""
    known = [v for v in (cost.before, cost.after) if math.isfinite(v)]
    limit = cost.cap if math.isfinite(cost.cap) else max([1.0, *known])
    after = cost.after if math.isfinite(cost.after) else limit * 1.5
    before = min(cost.before, after)
    return bar(
        [("spent", before), ("added" if cost.fits else "over", after - before)],
        label=tr(
            "Epsilon at delta {delta}: {before} before this study, {after} after it at its worst, the cap is {cap}",
            delta=delta_text(cost.delta),
            before=epsilon_text(cost.before),
            after=epsilon_text(cost.after),
            cap=epsilon_text(cost.cap),
        ),
        limit=limit,
        limit_text=tr("cap {epsilon}", epsilon=epsilon_text(cost.cap)),
        texts=(
            tr("spent {epsilon}", epsilon=epsilon_text(cost.before)),
            tr("after {epsilon}", epsilon=epsilon_text(cost.after)),
        ),
    )


def timeline_picture(budget: Budget, history: Sequence[Point]) -> Markup:
    """Return epsilon spent after every entry of the ledger, oldest left, with the cap as a dashed line."""
    return steps(
        [(dt.datetime.fromisoformat(point.at), point.spent.epsilon) for point in history],
        label=tr_plural(
            "Epsilon spent on {population} over {count} entry: now {spent} of {cap}, delta {delta}",
            "Epsilon spent on {population} over {count} entries: now {spent} of {cap}, delta {delta}",
            len(history),
            population=budget.population,
            spent=epsilon_text(budget.spent),
            cap=epsilon_text(budget.cap),
            delta=delta_text(budget.delta),
        ),
        limit=budget.cap,
        limit_text=tr("cap {epsilon}", epsilon=epsilon_text(budget.cap)),
    )
