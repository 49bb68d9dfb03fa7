"""The years from one date to another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from datasites.data.reading.cells.counting import Reading
from datasites.study.schema.variables import MISSING, plain
from privacy.sentences import say

if TYPE_CHECKING:
    import pandas as pd

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")
_NO_DATE = say("not a date such as 2024-05-31")


def years_between(since: pd.Series, until: pd.Series, reading: Reading) -> pd.Series:
    """Return the years from one date to another, float64 [rows], NaN where one is missing or no date (refused).

    Dates are written as ISO 8601 does, with year, month and day (2024-05-31); a year of 365.25 days. A row that is
    refused here is taken off the missing ones, among which the reader of the years counts it.
    """
    import pandas as pd

    texts = [
        cells.astype(object).where(cells.notna(), "").map(lambda cell: str(cell).strip()) for cells in (since, until)
    ]
    absent = [text.map(lambda word: plain(word) in MISSING) for text in texts]
    whole = [text.map(lambda word: bool(_DATE.fullmatch(word))) for text in texts]
    dates = [
        pd.to_datetime(text.where(fits, None), errors="coerce", format="ISO8601", utc=True)
        for text, fits in zip(texts, whole, strict=True)
    ]
    strange = [date.isna() & ~gone & ~(absent[0] | absent[1]) for date, gone in zip(dates, absent, strict=True)]
    for text, odd in ((texts[0], strange[0]), (texts[1], strange[1] & ~strange[0])):
        for word, count in text[odd].value_counts().items():
            reading.refuse(_NO_DATE, str(word), int(count))
    reading.missing -= int((strange[0] | strange[1]).sum())
    return (dates[1] - dates[0]).dt.total_seconds() / (365.25 * 86400)
