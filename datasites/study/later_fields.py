"""Fields of a proposal that came later: those that say nothing are not hashed, so that approvals keep their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ADDED: Mapping[str, tuple[Any, ...]] = {
    "centred": (False,),
    "cohort_gain": (1.0,),
    "standardised": ((), []),
    "gains": ({},),
    "shrunk": (False,),
    "public_centres": (False,),
    "counting": (None,),
}
"""Fields of the model that came later, with their defaults: not hashed there, so that approvals keep their names."""


def without_additions(proposal: dict[str, Any]) -> dict[str, Any]:
    """Return a proposal as it is hashed: without what came later and says nothing."""
    kept = {n: v for n, v in proposal["model"].items() if n not in _ADDED or v not in _ADDED[n]}
    found = {**proposal, "model": kept}
    for name in ("chain", "constants"):
        if found[name] is None:
            del found[name]
    return found
