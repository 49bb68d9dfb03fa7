"""The keyholder's record of its rounds: its tables, and what its rows say."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from datasites.study.messages import RoundKey
from privacy.canonical import sha256_hex
from privacy.storage import Schema, sql

SCHEMA = Schema(
    "answers",
    table="rounds",
    migrations=(
        sql("""
CREATE TABLE IF NOT EXISTS rounds (
    study TEXT NOT NULL, round INTEGER NOT NULL, proposal_hash TEXT NOT NULL,
    key_hash TEXT NOT NULL, public BLOB NOT NULL, pad_key TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'deciding', 'answered', 'unsafe', 'forgotten')),
    sum_hash TEXT, integers BLOB,
    PRIMARY KEY (study, round));
CREATE TABLE IF NOT EXISTS resumed (study TEXT PRIMARY KEY, unsafe INTEGER NOT NULL);
"""),
        sql("""
ALTER TABLE rounds ADD COLUMN list_hash TEXT;
ALTER TABLE rounds ADD COLUMN opening BLOB;
CREATE TABLE IF NOT EXISTS voids (
    study TEXT NOT NULL, round INTEGER NOT NULL, list_hash TEXT NOT NULL, PRIMARY KEY (study, round, list_hash));
"""),
    ),
)
NEW_ROUND = """
INSERT INTO rounds (study, round, proposal_hash, key_hash, public, pad_key, state) VALUES (?, ?, ?, ?, ?, ?, 'open')
RETURNING *"""
CLOSED_ROUND = """
INSERT OR REPLACE INTO rounds (study, round, proposal_hash, key_hash, public, pad_key, state, sum_hash)
VALUES (?, ?, ?, ?, ?, ?, 'forgotten', ?)"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The integers of one sum: safetensors with one signed-integer vector per block, and their SHA-256.

    ``opening`` is what is published of the round (:mod:`datasites.keyholder.opened`), where the study publishes.
    """

    sum_hash: str
    integers: bytes
    integers_hash: str
    opening: bytes | None = None


def round_key_of(row: sqlite3.Row) -> RoundKey:
    """Return the key record of a round."""
    return RoundKey(
        study=row["study"],
        proposal_hash=row["proposal_hash"],
        round=row["round"],
        key_hash=row["key_hash"],
        key_bytes=len(row["public"]),
        pad_key=row["pad_key"],
    )


def answer_of(row: sqlite3.Row) -> Answer:
    """Return the answer of a round that was answered."""
    integers = bytes(row["integers"])
    opening = None if row["opening"] is None else bytes(row["opening"])
    return Answer(sum_hash=row["sum_hash"], integers=integers, integers_hash=sha256_hex(integers), opening=opening)
