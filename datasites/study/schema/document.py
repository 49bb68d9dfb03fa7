"""A study's schema: which modalities there are, how each column is read, and what is predicted. One signed document.

A consortium agrees on it before anybody reads a record, and every hospital brings its own tables to it. It is TOML or
JSON; its hash stands in every dataset and every proposal. Nothing in it is computed from patients.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

from pydantic import TypeAdapter

from datasites.study.data_use import check_codes
from datasites.study.schema.outcomes import Outcome
from datasites.study.schema.variables import Category, Level, Number, Variable, check_levels, check_variable_name
from datasites.study.signing import Message, Signed, dump, open_sealed, parse
from datasites.study.text import check_modality_name, check_prose
from privacy.canonical import canonical_hash
from privacy.errors import InvalidInput

ModalityKind = Literal["tabular", "embedding", "image-map", "sequence-counts"]
RowRule = Literal["one", "first", "last", "mean", "largest"]
Scaling = Literal["public", "released", "self"]

MOST_BYTES = 16 << 20
"""The longest schema that is read."""

_MOST_MODALITIES, _MOST_COLUMNS, _MOST_OUTCOMES = 32, 200_000, 100
_SCHEMA = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True, kw_only=True)
class Modality(Message):
    """What one kind of measurement holds: ``variables`` of their own, or many ``columns`` that are measured alike.

    ``tabular`` and ``sequence-counts`` have either; an ``embedding`` has ``width`` columns called ``prefix`` and a
    number, made by ``encoder``; an ``image-map`` has ``side`` x ``side`` x ``channels`` bytes. ``measure`` says how
    every one of the columns is read; ``centres`` and ``scales``, one per column, stand in the place of its own.

    ``rows`` says what is done with several rows of one patient: ``one`` refuses them; ``first`` and ``last`` go by
    ``order_by``; ``mean`` and ``largest`` are taken column by column, of numbers only.

    ``scaling`` says where centres and scales come from: ``public`` numbers (``source`` names them), ``released`` ones
    that hospitals were charged for, or ``self``: each hospital's own records, for which no epsilon can be stated.

    ``gain`` multiplies all inputs of the modality, before they are divided by the root of their number: one that brings
    a record to a norm near 1. Sparse inputs need more than 1, inputs far from their centre less.
    """

    name: str
    kind: ModalityKind
    label: str
    variables: tuple[Variable, ...] = ()
    columns: tuple[str, ...] = ()
    measure: Number | None = None
    centres: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    width: int = 0
    prefix: str = ""
    encoder: str = ""
    side: int = 0
    channels: int = 0
    rows: RowRule = "one"
    order_by: str = ""
    scaling: Scaling = "public"
    source: str = ""
    gain: float | None = None

    def __post_init__(self) -> None:
        check_modality_name(self.name)
        check_prose(self.label, "a modality's label")
        self._check_kind()
        self._check_columns()
        if self.gain is not None and not 0 < self.gain <= 1000:
            raise InvalidInput(f"modality {self.name}: expected a gain above 0 and at most 1000")
        if (self.rows in ("first", "last")) != bool(self.order_by):
            raise InvalidInput(f"modality {self.name}: order_by goes with the rules first and last, and they need it")
        if self.rows in ("mean", "largest") and any(isinstance(variable, Category) for variable in self.variables):
            raise InvalidInput(
                f"modality {self.name}: the {self.rows} of several rows is of numbers, not of categories"
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that a hospital's table has for this modality."""
        if self.kind == "embedding":
            return tuple(f"{self.prefix}{number}" for number in range(self.width))
        if self.kind == "image-map":
            side, channels = range(self.side), range(self.channels)
            return tuple(f"map:{row}.{column}.{channel}" for row in side for column in side for channel in channels)
        return self.columns or tuple(variable.name for variable in self.variables)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The names of the model's inputs, in order."""
        if self.variables:
            return tuple(name for variable in self.variables for name in variable.inputs())
        return self.names

    def centre_and_scale(self, place: int) -> tuple[float, float]:
        """Return centre and scale of one of the alike columns."""
        if self.measure is None:
            raise InvalidInput(f"modality {self.name} has variables of their own")
        centre = self.centres[place] if self.centres else self.measure.centre
        return centre, self.scales[place] if self.scales else self.measure.scale

    def _check_kind(self) -> None:
        wide = {"embedding": self.width > 0 and bool(self.encoder), "image-map": self.side > 0 and self.channels > 0}
        given = bool(self.variables) + bool(self.columns) + (self.width > 0) + (self.side > 0)
        if given != 1 or not wide.get(self.kind, bool(self.variables) or bool(self.columns)):
            raise InvalidInput(
                f"modality {self.name}: expected variables or columns for {self.kind}; for an embedding width and "
                "encoder, for an image-map side and channels, and nothing besides"
            )
        count = len(self.columns) + len(self.variables) + self.width + self.side * self.side * self.channels
        if min(self.width, self.side, self.channels) < 0 or count > _MOST_COLUMNS:
            raise InvalidInput(f"modality {self.name}: expected at most {_MOST_COLUMNS} columns")
        if (self.measure is None) != bool(self.variables):
            raise InvalidInput(f"modality {self.name}: columns that are alike need one measure, variables have none")

    def _check_columns(self) -> None:
        for name in self.names:
            check_variable_name(name)
        if len(set(self.names)) < len(self.names):
            raise InvalidInput(f"modality {self.name}: expected every column once")
        for what, numbers in (("centres", self.centres), ("scales", self.scales)):
            if numbers and (self.variables or len(numbers) != len(self.names) or not all(map(math.isfinite, numbers))):
                raise InvalidInput(f"modality {self.name}: expected one finite number per column as {what}")
        if self.scales and min(self.scales) <= 0:
            raise InvalidInput(f"modality {self.name}: expected scales above 0")


@dataclass(frozen=True, kw_only=True)
class PatientId(Message):
    """How rows of different tables are recognised as one patient's.

    With ``parts`` above 0 only the first so many parts of the id count, parted by ``separator``: TCGA's sample barcode
    TCGA-A1-A0SB-01A and its patient TCGA-A1-A0SB agree in three parts parted by "-".
    """

    column: str = "patient_id"
    separator: str = "-"
    parts: int = 0

    def __post_init__(self) -> None:
        check_variable_name(self.column)
        if not 0 <= self.parts <= 20 or not 1 <= len(self.separator) <= 3:
            raise InvalidInput("expected 0 to 20 parts of a patient's id and a separator of one to three characters")

    def of(self, text: str) -> str:
        """Return the patient that an id names: without spaces around it, cut to its first parts."""
        text = text.strip()
        return self.separator.join(text.split(self.separator)[: self.parts]) if self.parts else text


@dataclass(frozen=True, kw_only=True)
class Criterion(Message):
    """Who belongs to the study: rows whose ``column`` is one of some words, or lies between two numbers."""

    column: str
    label: str
    one_of: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        check_variable_name(self.column)
        check_prose(self.label, "a criterion in words")
        if bool(self.one_of) == (self.low is not None or self.high is not None):
            raise InvalidInput(f"criterion on {self.column!r}: expected words or bounds, one of both")


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_HasName)


@dataclass(frozen=True, kw_only=True)
class StudySchema(Message):
    """The whole document. ``cohorts`` are the cancers or centres with a bias of their own, read from ``cohort_column``.

    ``never`` are columns that must not become inputs, whoever offers them: they define the outcome or follow from it.
    """

    format: Literal[1] = 1
    name: str
    version: int
    title: str
    description: str = ""
    cohorts: tuple[Level, ...]
    cohort_column: str = ""
    patient: PatientId = PatientId()
    modalities: tuple[Modality, ...]
    outcomes: tuple[Outcome, ...]
    inclusion: tuple[Criterion, ...] = ()
    never: tuple[str, ...] = ()
    data_use: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _SCHEMA.fullmatch(self.name) or not 1 <= self.version < 1 << 31:
            raise InvalidInput("expected a schema's name of letters, digits, dots and dashes, and a version from 1 on")
        check_prose(self.title, "a title")
        if self.description:
            check_prose(self.description, "a description")
        check_levels(self.cohorts, "cohorts", least=1)
        if len(self.cohorts) > 1 and not self.cohort_column:
            raise InvalidInput("several cohorts need a cohort_column that tells them apart")
        if not (0 < len(self.modalities) <= _MOST_MODALITIES and 0 < len(self.outcomes) <= _MOST_OUTCOMES):
            raise InvalidInput(f"expected 1 to {_MOST_MODALITIES} modalities and 1 to {_MOST_OUTCOMES} outcomes")
        for what, named in (("modality", self.modalities), ("outcome", self.outcomes)):
            if len({thing.name for thing in named}) < len(named):
                raise InvalidInput(f"expected every {what} once")
        if self.data_use:
            check_codes(self.data_use)
        self._check_leaks()

    def modality(self, name: str) -> Modality:
        """Return the modality called ``name``.

        Raises:
            InvalidInput: there is none.
        """
        return self._named("modality", self.modalities, name)

    def outcome(self, name: str) -> Outcome:
        """Return the outcome called ``name``.

        Raises:
            InvalidInput: there is none.
        """
        return self._named("outcome", self.outcomes, name)

    @cached_property
    def schema_hash(self) -> str:
        """SHA-256 of the canonical schema: what hospitals sign and proposals name."""
        return canonical_hash(dump(self))

    def _named(self, what: str, things: Sequence[T], name: str) -> T:
        for thing in things:
            if thing.name == name:
                return thing
        known = ", ".join(thing.name for thing in things)
        raise InvalidInput(f"schema {self.name} has no {what} {name[:40]!r}; it has {known}")

    def _check_leaks(self) -> None:
        outcome = {column.casefold() for o in self.outcomes for column in o.columns}
        never = {name.casefold() for name in self.never}
        for modality in self.modalities:
            for name in modality.names:
                if name.casefold() in outcome | never:
                    why = "an outcome is read from it" if name.casefold() in outcome else "the schema says never"
                    raise InvalidInput(f"modality {modality.name}: column {name!r} cannot be an input: {why}")


def parse_schema(data: bytes, *, toml: bool) -> StudySchema:
    """Read a schema from TOML or JSON.

    Raises:
        InvalidInput: longer than 16 MiB, or no schema; the message names line or field.
    """
    if len(data) > MOST_BYTES:
        raise InvalidInput(f"expected a schema of at most {MOST_BYTES >> 20} MiB, got {len(data)} bytes")
    try:
        text = data.decode("utf-8-sig")
        value: Any = tomllib.loads(text) if toml else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"expected a schema in {'TOML' if toml else 'JSON'}, could not read it: {error}") from error
    if not isinstance(value, Mapping):
        raise InvalidInput("expected a schema with named fields at its top")
    return parse(StudySchema, value)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the document, as ``docs/schemas/study-schema.schema.json`` publishes it."""
    found = TypeAdapter(StudySchema).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A study's schema"} | found


@dataclass(frozen=True, kw_only=True)
class Agreement(Message):
    """One hospital's word that it brings its patients by this very schema; signed as ``study-schema``."""

    schema: str
    version: int
    schema_hash: str
    party: str
    institution: str


def check_agreement(schema: StudySchema, signed: Signed, keys: Mapping[str, str]) -> str:
    """Return who signed this schema.

    Args:
        schema: the one that was to be signed.
        signed: the agreement.
        keys: by name, of those who can sign.

    Raises:
        InvalidInput: an unknown party, another key, or another schema than this one.
        Tampered: the signature does not hold.
    """
    party = str(signed.payload.get("party"))
    if party not in keys:
        raise InvalidInput(f"expected an agreement of {', '.join(keys)}, got one of {party[:80]!r}")
    found = open_sealed(signed, "study-schema", keys[party], Agreement)
    if found.schema_hash != schema.schema_hash:
        raise InvalidInput(
            f"{party} signed schema {found.schema}, version {found.version} ({found.schema_hash[:12]}), not this one "
            f"({schema.schema_hash[:12]}); see `tessera schema diff`"
        )
    return party
