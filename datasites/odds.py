"""What an epsilon means for one patient, in words that portal and report share."""

from __future__ import annotations

import math


def certainty(epsilon: float) -> str:
    """Return how sure somebody can become who gives even odds before and sees everything that leaves.

    ``certainty(1.0)`` is ``73 %``: with even odds and a failure probability of delta, the odds change at most by the
    factor e to the power of epsilon (Wasserman and Zhou 2010).

    Args:
        epsilon: at least 0; infinite means that there is no bound.
    """
    if math.isinf(epsilon):
        return "completely"
    percent = 100 / (1 + math.exp(-epsilon))
    return f"{percent:.0f} %" if percent < 99 else f"{percent:.2f} %" if percent < 99.99 else "almost certainty"
