"""Costs as canonical JSON, as they stand in a ledger's entries.

A field that came later is left out where it says nothing, so that entries of older code read as they were meant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from privacy.ledger.costs import NO_DIVERGENCE, Cost, PeriodicCost, StudyCost


def cost_to_json(cost: Cost) -> dict[str, Any]:
    """Return a cost as canonical JSON; an infinite divergence becomes null."""
    plain: dict[str, Any] = {"rdp": _finite(cost.rdp), "delta": cost.delta, "total_variation": cost.total_variation}
    if cost.others != cost.rdp:
        plain["mu_squared"] = None if math.isinf(cost.mu_squared) else cost.mu_squared
        plain["failure"] = cost.failure
        if any(cost.others):
            plain["rest"] = _finite(cost.others)
    return plain


def cost_from_json(data: Mapping[str, Any]) -> Cost:
    """Read a cost back from :func:`cost_to_json`; entries of older code have no Gaussian part."""
    rdp = _values(data["rdp"])
    delta, total_variation = float(data["delta"]), float(data["total_variation"])
    if "mu_squared" not in data:
        return Cost(rdp=rdp, delta=delta, total_variation=total_variation)
    squared = data["mu_squared"]
    return Cost(
        rdp=rdp,
        delta=delta,
        total_variation=total_variation,
        mu_squared=math.inf if squared is None else float(squared),
        failure=float(data["failure"]),
        rest=_values(data["rest"]) if "rest" in data else NO_DIVERGENCE,
    )


def study_to_json(cost: StudyCost) -> dict[str, Any]:
    """Return a study's cost as canonical JSON."""
    plain = {
        "rounds": cost.rounds,
        "round": cost_to_json(cost.round),
        "periodic": [_periodic_to_json(item) for item in cost.periodic],
        "once": cost_to_json(cost.once),
    }
    if cost.apart:
        plain["apart"] = [_periodic_to_json(item) for item in cost.apart]
    return plain if cost.together == 1 else {**plain, "together": cost.together}


def _periodic_to_json(item: PeriodicCost) -> dict[str, Any]:
    plain: dict[str, Any] = {"every_rounds": item.every_rounds, "cost": cost_to_json(item.cost)}
    return plain if item.last_round is None else {**plain, "last_round": item.last_round}


def study_from_json(data: Mapping[str, Any]) -> StudyCost:
    """Read a study's cost back from :func:`study_to_json`."""
    return StudyCost(
        rounds=int(data["rounds"]),
        round=cost_from_json(data["round"]),
        periodic=tuple(map(_periodic_from_json, data["periodic"])),
        once=cost_from_json(data["once"]),
        together=int(data.get("together", 1)),
        apart=tuple(map(_periodic_from_json, data.get("apart", ()))),
    )


def _periodic_from_json(item: Mapping[str, Any]) -> PeriodicCost:
    return PeriodicCost(
        every_rounds=int(item["every_rounds"]), cost=cost_from_json(item["cost"]), last_round=item.get("last_round")
    )


def _finite(values: tuple[float, ...]) -> list[float | None]:
    return [None if math.isinf(value) else value for value in values]


def _values(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.inf if value is None else float(value) for value in values)
