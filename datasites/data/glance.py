"""A dataset at a glance, for people who decide: what is public about it, its terms, and a few rows of the mock.

Nothing public here is read from the private part; :class:`~datasites.data.missing.Whole` is for the hospital's own
people. The owner writes the terms into ``terms.toml`` beside ``schema.json``; what it does not say, the study's schema
says where it does (its data-use codes and its inclusion criteria)::

    data_use = ["DUO:0000006", "DUO:0000021"]     # GA4GH DUO, see datasites.study.data_use
    inclusion = "adults with a first diagnosis of lung cancer"
    period = "2015 to 2024"
    missing = "about one patient in ten has no slide"   # what the owner wants to say to others
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from datasites.data.dataset import read_schema
from datasites.data.missing import Whole, read_missing
from datasites.study.data_use import check_codes
from datasites.study.outcome_words import outcome_text
from datasites.study.schema.document import parse_schema
from datasites.study.text import check_prose
from models.config import Target
from privacy.errors import InvalidInput
from privacy.sentences import say

TERMS = "terms.toml"
STUDY_SCHEMA = "study-schema.json"
_ROWS, _COLUMNS, _NAMES = 5, 6, 12
_TEXTS = ("inclusion", "period", "missing")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the owner says of a dataset: data-use codes, who is in it, from when, and what is missing."""

    data_use: tuple[str, ...] = ()
    inclusion: str = ""
    period: str = ""
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Variables:
    """The variables of one modality: how many, and the names of the first."""

    modality: str
    count: int
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Some rows of one file of the mock part; all of them are made up."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Glance:
    """One dataset version; ``patients`` is the released count, with noise; ``missing`` is exact and stays here."""

    name: str
    version: int
    cohort: str
    task: str
    classes: int
    patients: int
    source: str
    variables: tuple[Variables, ...]
    preprocessing: Mapping[str, str]
    terms: Terms
    previews: tuple[Preview, ...]
    predicts: Target | None = None
    missing: Whole | None = None
    self_scaled: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """What the dataset's labels say, in words."""
        return outcome_text(self.task, self.predicts, self.classes)


def read_terms(folder: Path) -> Terms:
    """Read ``terms.toml`` of a dataset; what is not said there, its study's schema says, if it has one.

    Raises:
        InvalidInput: not TOML, an unknown field, an unknown code, or text that does not read as it is.
    """
    path, agreed = folder / TERMS, _agreed(folder)
    if not path.exists():
        return agreed
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InvalidInput(
            say(
                "expected the dataset's terms in TOML at {terms}, could not read them: {error}",
                terms=TERMS,
                error=error,
            )
        ) from error
    unknown = sorted(set(values) - {"data_use", *_TEXTS})
    if unknown:
        raise InvalidInput(
            say(
                "{terms} has the unknown field {unknown!r}; known are data_use, {texts}",
                terms=TERMS,
                unknown=unknown[0][:40],
                texts=", ".join(_TEXTS),
            )
        )
    codes = values.get("data_use", [])
    if not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
        raise InvalidInput(say("expected a list of codes as data_use in {terms}", terms=TERMS))
    if codes:
        check_codes(codes)
    texts = {name: values.get(name, "") for name in _TEXTS}
    if not all(isinstance(text, str) for text in texts.values()):
        raise InvalidInput(say("expected texts for {texts} in {terms}", texts=", ".join(_TEXTS), terms=TERMS))
    own = {name: check_prose(text, name) for name, text in texts.items()}
    own["inclusion"] = own["inclusion"] or agreed.inclusion
    return Terms(data_use=tuple(codes) or agreed.data_use, **own)


def _agreed(folder: Path) -> Terms:
    """Return what the study's schema says of who is in it and what for; nothing where there is no such schema."""
    path = folder / STUDY_SCHEMA
    return _agreed_at(path, path.stat().st_mtime_ns) if path.exists() else Terms()


@lru_cache(maxsize=16)
def _agreed_at(path: Path, _: int) -> Terms:
    schema = parse_schema(path.read_bytes(), toml=False)
    return Terms(data_use=schema.data_use, inclusion="; ".join(criterion.label for criterion in schema.inclusion))


def glance(folder: Path, patients: int) -> Glance:
    """Return what is shown of the dataset in ``folder``.

    Args:
        folder: the dataset; only its schema, its terms and its mock part are read.
        patients: the released count.

    Raises:
        InvalidInput: a file is missing or malformed.
    """
    schema = read_schema(folder)
    return Glance(
        name=schema.name,
        version=schema.version,
        cohort=schema.cohort,
        task=schema.task,
        classes=schema.classes,
        patients=patients,
        source=schema.source,
        variables=tuple(
            Variables(modality=m, count=len(schema.features[m]), names=schema.features[m][:_NAMES])
            for m in schema.modalities
        ),
        preprocessing=dict(schema.preprocessing),
        terms=read_terms(folder),
        predicts=schema.predicts,
        missing=read_missing(folder, schema),
        self_scaled=schema.self_scaled,
        previews=tuple(_preview(folder / "mock" / f"{name}.parquet") for name in ("records", *schema.modalities)),
    )


def _preview(path: Path) -> Preview:
    import pandas as pd

    try:
        table = pd.read_parquet(path).iloc[:_ROWS, :_COLUMNS]
    except (OSError, ValueError) as error:
        raise InvalidInput(say("expected the mock's rows in {name}, could not read them", name=path.name)) from error
    rows = tuple(tuple(_cell(value) for value in row) for row in table.itertuples(index=False))
    return Preview(name=path.stem, columns=tuple(map(str, table.columns)), rows=rows)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return (
        str(value)
        if isinstance(value, (str, int))
        else f"{len(value)} numbers"
        if hasattr(value, "__len__")
        else str(value)
    )
