"""How long a study's rounds wait for hospitals that are late, away, or have not approved yet.

Part of the proposal, so that whoever approves knows whose absence the study puts up with. Nothing here changes how many
hospitals a sum needs (``min_sites``), nor what a round costs: an update that comes too late is charged and never used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasites.study.signing import Message
from privacy.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Patience(Message):
    """What a study puts up with.

    Args:
        grace_seconds: a round closes so many seconds after enough hospitals have come, at least 0; None waits for all
            until the deadline.
        pass_over_after: a hospital that missed so many rounds one after another is neither asked nor waited for until
            it asks for work again; 0 waits for everybody in every round.
        starts_with: the study begins once so many hospitals have approved; the others join with their approvals. 0
            waits for all.
    """

    grace_seconds: int | None = None
    pass_over_after: int = 0
    starts_with: int = 0

    def __post_init__(self) -> None:
        if self.grace_seconds is not None and not 0 <= self.grace_seconds <= 7 * 24 * 3600:
            raise InvalidInput(f"expected a grace of 0 seconds to a week, got {self.grace_seconds}")
        if not 0 <= self.pass_over_after <= 1000:
            raise InvalidInput(f"expected 0 to 1000 missed rounds before a hospital is passed over, got {self}")
        if self.starts_with < 0:
            raise InvalidInput(f"expected a number of hospitals to begin with, got {self.starts_with}")

    def check(self, *, min_sites: int, participants: int) -> None:
        """Check against the study that it is of.

        Raises:
            InvalidInput: the study would begin with fewer hospitals than a sum needs, or with more than take part.
        """
        if self.starts_with and not min_sites <= self.starts_with <= participants:
            raise InvalidInput(
                f"expected the study to begin with {min_sites} to {participants} hospitals, got {self.starts_with}"
            )


WAITS_FOR_ALL = Patience()


def passed_over(past: Sequence[Mapping[str, Any]], sites: frozenset[str], after: int) -> frozenset[str]:
    """Return who is passed over in the next round, unless it has asked for work since.

    Args:
        past: the checkpoints of the rounds so far, oldest first: ``sites`` came, ``passed_over`` were not asked; a
            round with ``lost`` tells nothing.
        sites: who could be asked.
        after: how many rounds in a row somebody may miss; 0 passes over nobody.
    """
    return frozenset(site for site in sites if after and _missed(past, site) >= after)


def _missed(past: Sequence[Mapping[str, Any]], site: str) -> float:
    """Return how many rounds ``site`` missed since it came last; without end once it was passed over."""
    missed = 0
    for checkpoint in reversed(past):
        if site in checkpoint["sites"]:
            break
        if site in checkpoint.get("passed_over", ()):
            return float("inf")
        if not checkpoint.get("lost") and site not in checkpoint.get("not_joined", ()):
            missed += 1
    return missed
