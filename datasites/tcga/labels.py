"""The stage label of each task."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from privacy.errors import InvalidInput

TASKS: Mapping[str, tuple[int | None, int | None, int | None, int | None]] = {
    "I-II": (0, 1, None, None),
    "early-late": (0, 0, 1, 1),
    "ordinal": (0, 1, 2, 2),
}
"""The class of stages I, II, III and IV; None means that such cases are left out."""

_POSITION = {"I": 0, "II": 1, "III": 2, "IV": 3}


def class_count(task: str) -> int:
    """Return the number of classes of ``task``: 2, or 3 for the ordinal one."""
    return 1 + max(c for c in classes_of(task) if c is not None)


def classes_of(task: str) -> tuple[int | None, ...]:
    """Return the class of each stage under ``task``.

    Raises:
        InvalidInput: no task of that name.
    """
    if task not in TASKS:
        raise InvalidInput(f"unknown task {task!r}: expected one of {', '.join(TASKS)}")
    return TASKS[task]


def labels(clinical: pd.DataFrame, task: str) -> dict[str, int]:
    """Return the class of every labelled case of a clinical table, by case id, in the order of the ids."""
    mapping = classes_of(task)
    found: dict[str, int] = {}
    for case, stage in clinical["stage"].sort_index().items():
        label = None if pd.isna(stage) else mapping[_POSITION[str(stage)]]
        if label is not None:
            found[str(case)] = label
    return found
