"""The report ready for a template: every figure with its sentence, every time in words."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from datasites.report import words
from datasites.report.facts import Epsilon, Report

_TIMES = {"at", "made", "last_entry"}


def presentable(report: Report) -> dict[str, Any]:
    """Return the report as nested dictionaries of text and numbers.

    Each :class:`Epsilon` gains ``text`` (``ε 3.21``) and ``fine`` (delta, adjacency, accountant, against whom); times
    are written out.
    """
    shown: dict[str, Any] = _present(report)
    return shown


def _present(value: Any, name: str = "") -> Any:
    if isinstance(value, Epsilon):
        return {
            **dataclasses.asdict(value),
            "text": f"ε {words.number(value.value)}",
            "fine": _fine(value),
            **_cells(value),
        }
    if dataclasses.is_dataclass(value):
        return {field.name: _present(getattr(value, field.name), field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_present(item) for item in value]
    if isinstance(value, str) and name in _TIMES:
        return _time(value)
    return value


def _fine(epsilon: Epsilon) -> str:
    return f"at δ {words.small(epsilon.delta)}; {epsilon.adjacency}; by {epsilon.accountant}; against {epsilon.against}"


def _cells(epsilon: Epsilon) -> dict[str, str]:
    return {"number": words.number(epsilon.value), "small": words.small(epsilon.delta)}


def _time(text: str) -> str:
    try:
        moment = dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except ValueError:
        return text
    return f"{moment:%d %B %Y, %H:%M} UTC".lstrip("0")
