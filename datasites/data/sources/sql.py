"""One SQL query, streamed from the hospital's own database: the answer becomes one table."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import sqlalchemy as sa

from datasites.data.sources.extraction import Extraction
from privacy.errors import InvalidInput, TesseraError

_AT_ONCE = 5000
_LONGEST_QUERY = 1 << 20


def extract_sql(url: str, query_file: Path, made: Extraction) -> None:
    """Run a query in a transaction that is rolled back, and write its rows as table ``query``.

    Args:
        url: of the database, as SQLAlchemy writes it. It may hold a password and is in no message.
        query_file: one SELECT.
        made: gets the rows.

    Raises:
        InvalidInput: no query, a column without a name or twice, or a value that is no text, number or date.
        TesseraError: the database does not answer the query.
    """
    if not query_file.is_file() or query_file.stat().st_size > _LONGEST_QUERY:
        raise InvalidInput(f"expected a file with one SELECT at {query_file.name}")
    query = query_file.read_text(encoding="utf-8-sig").strip().rstrip(";")
    if not query.lower().startswith(("select", "with")):
        raise InvalidInput(f"{query_file.name}: expected one SELECT (or WITH ... SELECT)")
    try:
        engine = sa.create_engine(url)
    except (sa.exc.ArgumentError, ImportError) as error:
        raise InvalidInput(
            "expected a database URL such as postgresql://user@host/name whose driver is installed"
        ) from error
    try:
        with engine.connect() as connection:
            streamed = connection.execution_options(stream_results=True, yield_per=_AT_ONCE)
            result = streamed.execute(sa.text(query))
            names = [str(name).strip() for name in result.keys()]  # noqa: SIM118 - a result, not a mapping
            if not all(names) or len(set(names)) < len(names):
                raise InvalidInput("expected a name for every column of the query, each once; use AS")
            for row in result:
                made.add("query", {name: as_text(value, name) for name, value in zip(names, row, strict=True)})
            connection.rollback()
    except sa.exc.SQLAlchemyError as error:
        raise TesseraError(f"the database does not answer the query ({type(error).__name__})") from error
    finally:
        engine.dispose()


def as_text(value: object, where: str) -> str:
    """Return a value of a database as a hospital's table would write it.

    Raises:
        InvalidInput: bytes, lists and the like.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat(sep=" ") if isinstance(value, dt.datetime) else value.isoformat()
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, int | Decimal | str):
        return str(value)
    raise InvalidInput(f"column {where[:60]!r}: expected text, numbers and dates, got {type(value).__name__}; cast it")
