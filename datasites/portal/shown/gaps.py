"""What is missing of a modality, in words for the hospital's own people."""

from __future__ import annotations

from datasites.data.missing import Missing
from datasites.language import tr, tr_plural
from datasites.language.formats import percent

_SHOWN = 12
_LITTLE = 0.01


def gaps(missing: Missing) -> tuple[tuple[str, str], ...]:
    """Return the variables of a modality that lack most values, with the share of its patients who lack them."""
    most = sorted(_lacking(missing), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    return tuple((name, _share(count / missing.patients)) for name, count in most)


def gaps_left(missing: Missing) -> str:
    """Return how many more variables lack values, and how many lack none; empty where nothing lacks at all."""
    lacking = len(_lacking(missing))
    if not lacking:
        return ""
    more, full = lacking - _SHOWN, len(missing.variables) - lacking
    parts = []
    if more > 0:
        parts.append(tr_plural("{count} more lacks fewer values", "{count} more lack fewer values", more))
    if full:
        parts.append(tr_plural("{count} variable lacks none", "{count} variables lack none", full))
    return "".join(f"; {part}" for part in parts)


def _lacking(missing: Missing) -> list[tuple[str, int]]:
    return [(name, count) for name, count in missing.variables if count]


def _share(share: float) -> str:
    return tr("below {share}", share=percent(_LITTLE)) if share < _LITTLE else percent(share)
