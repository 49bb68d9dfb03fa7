"""Whether a schema's own scales leave anything of its values: a range that becomes one number teaches a model nothing.

>>> year = Number(name="year", low=1990, high=2030)       # centre 0 and scale 1: every year is cut off at 4
>>> varies(year)
False
"""

from __future__ import annotations

from datasites.study.schema.document import Modality
from datasites.study.schema.variables import Number

LEAST_RANGE = 0.2
"""The model's inputs at both ends of a plausible range have to be so far apart."""


def varies(variable: Number, centre: float | None = None, scale: float | None = None) -> bool:
    """Return whether the plausible range of a number becomes inputs that differ.

    Args:
        variable: with its range, transform and clip.
        centre: in the place of its own.
        scale: in the place of its own, above 0.
    """
    low, high = (float(variable.encoded(end, centre, scale)) for end in (variable.low, variable.high))
    return high - low >= LEAST_RANGE


def flat_columns(modality: Modality) -> tuple[str, ...]:
    """Return the columns whose whole plausible range becomes nearly one input, in order."""
    if modality.measure is not None:
        pairs = ((name, *modality.centre_and_scale(place)) for place, name in enumerate(modality.names))
        return tuple(name for name, centre, scale in pairs if not varies(modality.measure, centre, scale))
    return tuple(v.name for v in modality.variables if isinstance(v, Number) and not varies(v))
