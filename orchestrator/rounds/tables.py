"""The tables of an orchestrator's database, and the migrations that make them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from privacy.storage import Schema, sql

if TYPE_CHECKING:
    from alembic.operations import Operations

METADATA = sa.MetaData()
STUDIES = sa.Table(
    "studies",
    METADATA,
    sa.Column("study", sa.String(80), primary_key=True),
    sa.Column("proposal", sa.Text, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
)
DOCUMENTS = sa.Table(
    "documents",
    METADATA,
    sa.Column("study", sa.String(80), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(20), primary_key=True),
    sa.Column("closing", sa.Integer, primary_key=True),
    sa.Column("author", sa.String(80), primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)
LEADERSHIP = sa.Table(
    "leadership",
    METADATA,
    sa.Column("role", sa.String(20), primary_key=True),
    sa.Column("holder", sa.String(200), nullable=False),
    sa.Column("public_key", sa.String(64), nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
)
JOURNAL = sa.Table(
    "journal_entries",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    *(
        sa.Column(name, sa.Text, nullable=False)
        for name in ("kind", "body", "at", "previous_hash", "hash", "signature")
    ),
)


def _longer_kinds(op: Operations) -> None:
    """Make room for kinds above 20 letters, which SQLite never counted: no helper's round ended on PostgreSQL."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(sa.text("ALTER TABLE documents ALTER COLUMN kind TYPE VARCHAR(60)"))


SCHEMA = Schema(
    "orchestrator",
    table="studies",
    migrations=(
        sql("""
CREATE TABLE IF NOT EXISTS studies (
    study VARCHAR(80) NOT NULL, proposal TEXT NOT NULL, state VARCHAR(20) NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (study));
CREATE TABLE IF NOT EXISTS documents (
    study VARCHAR(80) NOT NULL, round INTEGER NOT NULL, kind VARCHAR(20) NOT NULL, closing INTEGER NOT NULL,
    author VARCHAR(80) NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (study, round, kind, closing, author));
"""),
        sql("""
CREATE TABLE IF NOT EXISTS leadership (
    role VARCHAR(20) NOT NULL, holder VARCHAR(200) NOT NULL, public_key VARCHAR(64) NOT NULL, epoch INTEGER NOT NULL,
    until FLOAT NOT NULL,
    PRIMARY KEY (role));
CREATE TABLE IF NOT EXISTS journal_entries (
    number INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, at TEXT NOT NULL, previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL, signature TEXT NOT NULL,
    PRIMARY KEY (number));
"""),
        _longer_kinds,
    ),
)
"""The migrations make the tables; the tables above are what queries name. A test compares the two."""
