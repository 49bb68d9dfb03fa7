"""The reading report: what became of every cell, row and patient. It is for the hospital's own people and stays there.

It names columns and spellings, never a patient; how ids look is shown with every letter as A and every digit as 9.
"""

from __future__ import annotations

from dataclasses import dataclass

from datasites.data.missing import Changes
from datasites.study.signing import Message


@dataclass(frozen=True, kw_only=True)
class Strange(Message):
    """A spelling that was refused, why, and in how many cells."""

    spelling: str
    reason: str
    cells: int


@dataclass(frozen=True, kw_only=True)
class ColumnFacts(Message):
    """How one column was read; ``understood``, ``missing`` and ``refused`` add up to its cells."""

    group: str
    variable: str
    table: str
    column: str
    understood: int
    missing: int
    refused: int
    mapped: tuple[str, ...]
    strange: tuple[Strange, ...]

    @property
    def cells(self) -> int:
        """How many cells it has."""
        return self.understood + self.missing + self.refused


@dataclass(frozen=True, kw_only=True)
class TableFacts(Message):
    """One table for one modality: its rows and patients, and how many of them are patients of the study.

    ``looks`` and ``wanted`` show how its ids look and how the study's do, where some did not join; ``hint`` says what
    would make more of them agree.
    """

    group: str
    table: str
    rows: int
    without_id: int
    patients: int
    joined: int
    looks: str = ""
    wanted: str = ""
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class ModalityFacts(Message):
    """How many patients of the dataset have a modality; ``empty`` had a row in which every value was missing."""

    name: str
    patients: int
    empty: int


@dataclass(frozen=True, kw_only=True)
class Step(Message):
    """One reason to leave patients out, and how many; every patient is counted at the first reason only."""

    reason: str
    patients: int


@dataclass(frozen=True, kw_only=True)
class ReadingReport(Message):
    """Everything that was read. ``seen`` patients less those of ``left_out`` are ``patients``, those of the dataset.

    ``problems`` are reasons to refuse the tables; nothing is written while there is one. ``warnings`` are for the
    steward to judge: a variable that nearly tells the outcome, inputs that hardly differ.
    """

    schema: str
    schema_version: int
    schema_hash: str
    outcome: str
    read_at: str
    seen: int
    left_out: tuple[Step, ...]
    patients: int
    outcomes: tuple[Step, ...]
    cohorts: tuple[Step, ...]
    modalities: tuple[ModalityFacts, ...]
    tables: tuple[TableFacts, ...]
    columns: tuple[ColumnFacts, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    changes: Changes | None = None
