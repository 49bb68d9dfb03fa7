"""What is wrong with the shape of a value, in our own sentences: a validator's own wording reaches nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from privacy.sentences import Sentence, say, say_plural

_WHAT: Mapping[str, Callable[[str, Mapping[str, Any]], str]] = {
    "missing": lambda where, _: say("{where} is missing", where=where),
    "string_pattern_mismatch": lambda where, _: say("{where} has another form than expected here", where=where),
    "string_too_long": lambda where, limits: say_plural(
        "{where} is longer than {count} character",
        "{where} is longer than {count} characters",
        limits.get("max_length", 0),
        where=where,
    ),
    "string_too_short": lambda where, limits: say_plural(
        "{where} is shorter than {count} character",
        "{where} is shorter than {count} characters",
        limits.get("min_length", 0),
        where=where,
    ),
    "literal_error": lambda where, _: say("{where} is none of the values that are known here", where=where),
    "enum": lambda where, _: say("{where} is none of the values that are known here", where=where),
    "extra_forbidden": lambda where, _: say("{where} is not known here; leave it out", where=where),
    "int_parsing": lambda where, _: say("{where} has to be a whole number", where=where),
    "int_type": lambda where, _: say("{where} has to be a whole number", where=where),
    "int_from_float": lambda where, _: say("{where} has to be a whole number", where=where),
    "int_parsing_size": lambda where, _: say("{where} is too large a number", where=where),
    "float_parsing": lambda where, _: say("{where} has to be a number", where=where),
    "float_type": lambda where, _: say("{where} has to be a number", where=where),
    "string_type": lambda where, _: say("{where} has to be a text", where=where),
    "bool_parsing": lambda where, _: say("{where} has to be true or false", where=where),
    "bool_type": lambda where, _: say("{where} has to be true or false", where=where),
    "datetime_parsing": lambda where, _: say("{where} has to be a day and time such as 2026-08-21T09:30Z", where=where),
    "datetime_from_date_parsing": lambda where, _: say(
        "{where} has to be a day and time such as 2026-08-21T09:30Z", where=where
    ),
    "finite_number": lambda where, _: say("{where} has to be a finite number", where=where),
    "tuple_type": lambda where, _: say("{where} has to be a list", where=where),
    "list_type": lambda where, _: say("{where} has to be a list", where=where),
    "model_type": lambda where, _: say("{where} has to be a section with its own settings", where=where),
    "dict_type": lambda where, _: say("{where} has to be a section with its own settings", where=where),
    "too_short": lambda where, limits: say_plural(
        "{where} needs at least {count} entry",
        "{where} needs at least {count} entries",
        limits.get("min_length", 0),
        where=where,
    ),
    "too_long": lambda where, limits: say_plural(
        "{where} may have at most {count} entry",
        "{where} may have at most {count} entries",
        limits.get("max_length", 0),
        where=where,
    ),
    "json_invalid": lambda _where, _: say("the body is not valid JSON"),
    "greater_than": lambda where, limits: say("{where} has to be above {limit}", where=where, limit=limits.get("gt")),
    "less_than": lambda where, limits: say("{where} has to be below {limit}", where=where, limit=limits.get("lt")),
    "greater_than_equal": lambda where, limits: say(
        "{where} has to be at least {limit}", where=where, limit=limits.get("ge")
    ),
    "less_than_equal": lambda where, limits: say("{where} may be at most {limit}", where=where, limit=limits.get("le")),
}


def expected(error: Mapping[str, Any], where: str) -> str:
    """Return what was expected at one place; what was given is not repeated.

    Args:
        error: one of pydantic's errors: its kind and its limits.
        where: the place, as its reader knows it.
    """
    own = (error.get("ctx") or {}).get("error")  # a rule of ours, raised inside a validator
    if isinstance(own, Exception) and own.args:
        return say("{where}: {why}", where=where, why=own.args[0] if isinstance(own.args[0], Sentence) else str(own))
    what = _WHAT.get(str(error.get("type", "")))
    return what(where, error.get("ctx") or {}) if what else say("{where} is not as expected here", where=where)
