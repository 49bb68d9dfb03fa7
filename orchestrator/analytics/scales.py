"""Charged quantiles and means become the scaling constants of a schema: its next version, with where they come from.

A model reads a number as ``(transform(x) - centre) / scale``. Centre and scale may be public guesses, or be released by
a counting study that hospitals approved and were charged for. Nothing else of the patients enters the schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasites.study.schema.document import Modality, StudySchema
from datasites.study.schema.variables import TRANSFORMS, Number
from orchestrator.analytics.answers import Answer
from orchestrator.analytics.columns import Column, Columns
from privacy.errors import InvalidInput

QUARTILES = (0.25, 0.5, 0.75)
_NORMAL_QUARTILES = 1.349
"""Between the quartiles of a normal distribution lie so many standard deviations."""

_LEAST_SHARE = 115
"""A scale below this part of the range is no more than one of the public bins can tell."""

_Pair = tuple[float, float]
_Lines = Mapping[Any, Mapping[str, float]]


def rescaled(document: StudySchema, answers: Sequence[Answer], *, source: str) -> tuple[StudySchema, tuple[str, ...]]:
    """Return the schema's next version with released centres and scales, and a line for each number that kept its own.

    The centre is the median, the scale the distance of the quartiles over 1.349, both on the transformed scale; of an
    answer with means it is mean and standard deviation. A number of which the answer holds little but noise, or that
    hardly differs between patients, keeps the constants that it has.

    Args:
        document: the schema that the hospitals read their tables by.
        answers: of ``quantiles`` (with the quartiles) or ``means``, over everybody.
        source: the study that released them and what it cost; it stands in the schema for everybody to read.

    Raises:
        InvalidInput: another kind of answer, one by groups, of a variable that the schema has not, or nothing usable.
    """
    columns = Columns(
        features={m.name: m.inputs for m in document.modalities}, cohorts=(), task="", classes=0, document=document
    )
    found: dict[str, dict[str, _Pair]] = {}
    notes: list[str] = []
    for answer in answers:
        for name, lines in _numbers(answer).items():
            column = columns.number(name)
            pair = _from_quantiles(column, lines) if answer.kind == "quantiles" else _from_means(column, lines)
            if isinstance(pair, str):
                notes.append(f"{column.modality}.{column.name} keeps its centre and scale: {pair}")
            else:
                found.setdefault(column.modality, {})[column.name] = pair
    if not found:
        raise InvalidInput(f"no released number can scale a variable: {'; '.join(notes) or 'there is none'}")
    modalities = tuple(_scaled(m, found[m.name], source) if m.name in found else m for m in document.modalities)
    return replace(document, version=document.version + 1, modalities=modalities), tuple(notes)


def _numbers(answer: Answer) -> Mapping[str, _Lines]:
    """Return the lines of each variable that an answer is about, by quantile or by the name of the statistic."""
    lines: Mapping[Any, Mapping[Any, Any]] = answer.table.to_dict("index")
    if answer.kind == "quantiles":
        if answer.table.index.nlevels != 1 or not set(QUARTILES) <= set(lines):
            raise InvalidInput("expected the quantiles 0.25, 0.5 and 0.75 of everybody; ask without groups")
        return {answer.names[0]: lines}
    if answer.kind == "means":
        found: dict[str, dict[str, Mapping[str, float]]] = {}
        for key, line in lines.items():
            if key[-1] in found.setdefault(key[0], {}):
                raise InvalidInput("expected means of everybody; ask without groups")
            found[key[0]][key[-1]] = line
        return found
    raise InvalidInput(f"expected quantiles or means to scale by, got {answer.kind}: {answer.title[:80]}")


def _from_quantiles(column: Column, lines: _Lines) -> _Pair | str:
    variable, (low, high) = _number(column), column.range
    moved = TRANSFORMS[variable.transform]
    first, middle, third = (float(moved(lines[at]["value"])) for at in QUARTILES)
    if lines[0.5]["high"] - lines[0.5]["low"] > (high - low) / 2:
        return "the answer is mostly noise; ask with a larger epsilon, or more hospitals"
    return _pair(column, middle, (third - first) / _NORMAL_QUARTILES)


def _from_means(column: Column, lines: _Lines) -> _Pair | str:
    if _number(column).transform != "none":
        raise InvalidInput(f"expected quantiles of {column.name!r}: the schema transforms it, and means do not follow")
    low, high = column.range
    mean = lines["mean"]
    if mean["high"] - mean["low"] > (high - low) / 2:
        return "the answer is mostly noise; ask with a larger epsilon, or more hospitals"
    return _pair(column, mean["value"], lines["standard deviation"]["value"])


def _pair(column: Column, centre: float, scale: float) -> _Pair | str:
    variable = _number(column)
    low, high = (float(TRANSFORMS[variable.transform](end)) for end in column.range)
    if not (scale >= (high - low) / _LEAST_SHARE and low <= centre <= high):
        return "it hardly differs between patients, as far as the public bins tell"
    return float(f"{centre:.4g}"), float(f"{scale:.4g}")


def _number(column: Column) -> Number:
    if not isinstance(column.variable, Number):
        raise InvalidInput(f"expected a number of the schema, {column.name[:40]!r} has no scale of its own")
    return column.variable


def _scaled(modality: Modality, found: Mapping[str, _Pair], source: str) -> Modality:
    if modality.scaling == "self":
        raise InvalidInput(
            f"modality {modality.name}: each hospital scales it by its own records, so its numbers have no common unit"
        )
    which = f"centre and scale of {', '.join(found) if len(found) <= 12 else f'{len(found)} columns'} from {source}"
    told = f"{modality.source}; {which}" if modality.source else which
    if modality.measure is None:
        variables = tuple(
            replace(v, centre=found[v.name][0], scale=found[v.name][1])
            if isinstance(v, Number) and v.name in found
            else v
            for v in modality.variables
        )
        return replace(modality, variables=variables, scaling="released", source=told)
    own = [modality.centre_and_scale(place) for place in range(len(modality.names))]
    pairs = [found.get(name, pair) for name, pair in zip(modality.names, own, strict=True)]
    centres, scales = tuple(c for c, _ in pairs), tuple(s for _, s in pairs)
    return replace(modality, centres=centres, scales=scales, scaling="released", source=told)
