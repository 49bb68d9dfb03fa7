"""Numbers, dates and lists as the readers of a language write them.

English is written without Babel, since the command line speaks English and should start fast.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from datasites.language.catalog import DEFAULT, LOCALES, current


def decimal(value: float, digits: int) -> str:
    """Return a finite number with exactly ``digits`` decimals.

    >>> decimal(1234.5, 2)
    '1,234.50'
    """
    if current() == DEFAULT:
        return f"{value:,.{digits}f}"
    from babel.numbers import format_decimal

    pattern = "#,##0" + ("." + "0" * digits if digits else "")
    return format_decimal(value, format=pattern, locale=LOCALES[current()])


_WRITTEN_OUT = range(-6, 9)
"""Powers of ten of which a number is written with all its zeros."""


def significant(value: float, digits: int) -> str:
    """Return a finite number with at most ``digits`` significant digits and no trailing zeros, as people write it.

    >>> significant(0.25, 3), significant(1e-05, 3), significant(1.5e-12, 3), significant(1234567.0, 3)
    ('0.25', '0.00001', '1.5 * 10^-12', '1,230,000')
    """
    text = f"{value:.{digits}g}"
    head, small_or_large, power = text.partition("e")
    places = len(head.partition(".")[2])
    if not small_or_large:
        return text if current() == DEFAULT else decimal(value, places)
    exponent = int(power)
    if exponent in _WRITTEN_OUT:
        return decimal(float(text), max(0, places - exponent))
    return f"{decimal(float(head), places)} * 10^{exponent}"


def whole(value: int) -> str:
    """Return a whole number with its thousands parted."""
    return decimal(value, 0)


def percent(share: float) -> str:
    """Return a share as whole percent.

    >>> percent(0.256)
    '26 %'
    """
    if current() == DEFAULT:
        return f"{100 * share:.0f} %"
    from babel.numbers import format_percent

    return format_percent(share, format="#,##0\u202f%", locale=LOCALES[current()])


def day(moment: dt.datetime) -> str:
    """Return a date in words, in the time zone of ``moment``."""
    from babel.dates import format_date

    return format_date(moment, format="long", locale=LOCALES[current()])


def moment(text: str) -> str:
    """Return an ISO time in words, in UTC and, where this machine's zone differs, in local time.

    What is no time is returned as it is.
    """
    try:
        when = dt.datetime.fromisoformat(text)
    except ValueError:
        return text
    utc = when.astimezone(dt.UTC)
    shown = f"{day(utc)}, {utc:%H:%M} UTC"
    local = when.astimezone()
    if not local.utcoffset():
        return shown
    date = "" if local.date() == utc.date() else f"{day(local)}, "
    return f"{shown} ({date}{local:%H:%M} {local.tzname()})"


def instant(when: dt.datetime) -> str:
    """Return a time in UTC, as short as a table needs it."""
    utc = when.astimezone(dt.UTC)
    if current() == DEFAULT:
        return utc.strftime("%d %b %Y, %H:%M UTC")
    from babel.dates import format_date

    return f"{format_date(utc, format='medium', locale=LOCALES[current()])}, {utc:%H:%M} UTC"


def short(when: dt.datetime) -> str:
    """Return a date as short as an axis needs it, in UTC."""
    from babel.dates import format_date

    return format_date(when.astimezone(dt.UTC), format="medium", locale=LOCALES[current()])


def listed(items: Iterable[str]) -> str:
    """Return names as a list of the language, as in "a, b and c"."""
    names = list(items)
    if len(names) < 2 or current() == DEFAULT:
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
    from babel.lists import format_list

    return format_list(names, locale=LOCALES[current()])
