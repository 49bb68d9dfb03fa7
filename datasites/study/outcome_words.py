"""What a study predicts, in words: the outcome's name and its kind. Four staging tasks go by their names alone."""

from __future__ import annotations

from datasites.language import mark, tr
from models.config import Target

STAGING_TASKS = frozenset({"I-II", "early-late", "ordinal", "I-IV"})
_KINDS = {
    "binary": mark("yes or no"),
    "ordered": mark("classes in order"),
    "categorical": mark("classes without an order"),
    "count": mark("a count"),
    "continuous": mark("a bounded number"),
    "survival": mark("survival"),
}


def outcome_text(task: str, predicts: Target | None, classes: int) -> str:
    """Return the outcome's name and its kind, in the language that is spoken.

    >>> outcome_text("relapse", None, 2)
    'relapse (yes or no)'
    """
    if predicts is None and task in STAGING_TASKS:
        return task
    kind = predicts.kind if predicts else "binary" if classes == 2 else "ordered"
    return tr("{name} ({kind})", name=task, kind=tr(_KINDS[kind]))
