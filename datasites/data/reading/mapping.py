"""A hospital's own file that says where its columns are: ``mapping.toml``, private, never sent anywhere.

::

    refuse_above = 0.05                       # share of a column's cells that may be refused (default 0.05)

    [tables.labs]
    file = "labs.csv"
    patient = "PatNr"                         # default: the schema's column of patients
    decimal = ","                             # else found out

    [columns."blood.albumin"]                 # modality.variable, or only the variable where that is one
    table = "labs"
    column = "Alb"
    unit = "g/L"

    [columns.age]
    table = "patients"
    from = "born"                             # years between two dates
    until = "diagnosed"

    [columns.sex.words]
    w = "female"
    "9" = ""                                  # says missing, also of a number

Without a mapping every column is looked for under the schema's own name.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasites.study.schema.document import StudySchema
from datasites.study.signing import Message, parse
from datasites.study.text import visible
from privacy.errors import InvalidInput

_MOST_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class TableRule(Message):
    """Where a table lies and how it is written; what is empty is found out or the schema's."""

    file: str
    patient: str = ""
    sheet: str = ""
    encoding: str = ""
    separator: str = ""
    decimal: str = ""


@dataclass(frozen=True, kw_only=True)
class ColumnRule(Message):
    """Where a variable stands: a ``column``, or the years ``since`` one date ``until`` another."""

    table: str = ""
    column: str = ""
    unit: str = ""
    decimal: str = ""
    since: str = ""
    until: str = ""
    words: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.since) != bool(self.until) or (self.since and self.column):
            raise InvalidInput("expected a column, or two columns of dates: from and until")
        if self.decimal not in ("", ".", ","):
            raise InvalidInput(f"expected a point or a comma as decimal, got {self.decimal[:5]!r}")


@dataclass(frozen=True, kw_only=True)
class LocalMapping(Message):
    """The whole file."""

    refuse_above: float = 0.05
    tables: Mapping[str, TableRule] = field(default_factory=dict)
    columns: Mapping[str, ColumnRule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.refuse_above <= 1:
            raise InvalidInput(f"expected refuse_above between 0 and 1, got {self.refuse_above:g}")
        for name, rule in self.columns.items():
            if rule.table and rule.table not in self.tables:
                raise InvalidInput(f"columns.{name}: there is no table {rule.table!r} in this mapping")

    def column(self, modality: str, variable: str) -> ColumnRule:
        """Return what is said of one variable, under its modality's name or its own; empty where nothing is."""
        return self.columns.get(f"{modality}.{variable}") or self.columns.get(variable) or ColumnRule()

    def check(self, schema: StudySchema) -> None:
        """Refuse a mapping of columns that the schema has not: a rule with a typing error would count for nothing.

        Raises:
            InvalidInput: a name is no variable, outcome, cohort or criterion of the schema.
        """
        known = {
            name for modality in schema.modalities for own in modality.names for name in (own, f"{modality.name}.{own}")
        }
        records = {column for outcome in schema.outcomes for column in outcome.columns}
        records |= {schema.cohort_column, *(criterion.column for criterion in schema.inclusion)}
        known |= records | {f"records.{name}" for name in records}
        for name in self.columns:
            if name not in known:
                near = difflib.get_close_matches(name, sorted(known), n=3)
                raise InvalidInput(
                    f"the mapping has columns.{visible(name)[:60]}, which is no variable, outcome, cohort or "
                    f"criterion of the schema{'; it has ' + ', '.join(near) if near else ''}"
                )


def read_mapping(path: Path) -> LocalMapping:
    """Read ``mapping.toml``.

    Raises:
        InvalidInput: it cannot be read, or has an unknown field; the message names it.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidInput(f"expected a mapping of at most {_MOST_BYTES >> 20} MiB at {path.name}")
        value = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"expected a mapping in TOML at {path}, could not read it: {error}") from error
    for rule in value.get("columns", {}).values():
        if isinstance(rule, dict) and "from" in rule:
            rule["since"] = rule.pop("from")
    return parse(LocalMapping, value)
