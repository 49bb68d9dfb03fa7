"""Where a test's roles come from: one process that has imported what they need, once for all consortia of a session.

A role takes seconds to import what it needs, and its checks of chains import it again. In a benchmark every role
starts as the product starts it.
"""

from __future__ import annotations

import atexit
import os
from functools import lru_cache

from datasites.node.warm import Warm

_ROLES = (
    "orchestrator.daemon",
    "datasites.keyholder.daemon",
    "datasites.helper.daemon",
    "privacy.ledger.verification:expected_structure",
)


@lru_cache(maxsize=1)
def role_starter() -> Warm | None:
    """Return the process that this test session's roles are forked from; None outside of pytest."""
    if "PYTEST_VERSION" not in os.environ:
        return None
    warm = Warm.start(_ROLES)
    atexit.register(warm.close)
    return warm
