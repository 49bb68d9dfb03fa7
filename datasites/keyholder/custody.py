"""One round, one key, one sum: round keys are made once, used once and destroyed; answers repeat from the record.

A round passes through these states, each durable before anything leaves::

    (none) --open_round--> open --answer--> deciding --> answered    the key is destroyed
                             |                  `------> unsafe      a slot was no honest sum: the key is destroyed
                             `--forget--> forgotten                  the study is over: the key is destroyed

From ``deciding`` on the round knows one sum hash and will never look at another; after a crash there, the same sum is
decided again. At rest each secret key is one encrypted file, destroyed when its round is over.

    >>> custody = KeyCustody(home / "keys", identity)
    >>> round_key, public = custody.open_round(proposal, 1)
    >>> checked = check_sum_request(proposal, round_key, request, answered_sum=custody.answered_sum("pilot", 1))
    >>> custody.answer(checked).integers_hash
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from safetensors.numpy import save

from datasites.keyholder.checks import CheckedSum
from datasites.node.files import sync_folder, write_atomically
from datasites.study.messages import RoundKey
from datasites.study.proposal import Proposal
from privacy.canonical import canonical_json, sha256_hex
from privacy.encryption import ckks, pads
from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import Refused, Tampered, UnsafeSum
from privacy.identity import Identity
from privacy.storage import Schema, open_sqlite, sql

_NONCE_BYTES = 12


class KeyFiles:
    """The secret keys of one keyholder.

    Args:
        folder: where the files lie; made with mode 0700.
        identity: the keyholder; a secret derived from it encrypts the keys.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._cipher = ChaCha20Poly1305(identity.derive_secret("round-keys"))

    def store(self, key: RoundKey, secret: bytes) -> None:
        """Write one secret key, encrypted, whole or not at all."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, secret, _label(key))
        write_atomically(self._path(key.study, key.round), sealed)

    def load(self, key: RoundKey) -> bytes:
        """Return one secret key.

        Raises:
            Refused: it was destroyed.
            Tampered: its file was changed, or is that of another keyholder, round or key.
        """
        path = self._path(key.study, key.round)
        if not path.exists():
            raise Refused(f"the key of round {key.round} is gone")
        sealed = path.read_bytes()
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _label(key))
        except (InvalidTag, ValueError) as error:
            raise Tampered(f"the stored key of round {key.round} was changed; the round is lost") from error

    def destroy_all_but(self, wanted: Collection[tuple[str, int]]) -> None:
        """Destroy every key but those of the given (study, round) pairs."""
        kept = {self._path(study, number) for study, number in wanted}
        for path in [p for p in self._folder.glob("*.key") if p not in kept]:
            with path.open("r+b") as file:
                file.write(os.urandom(path.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
            sync_folder(self._folder)

    def _path(self, study: str, number: int) -> Path:
        return self._folder / f"{sha256_hex(study.encode())[:32]}-{number}.key"


def _label(key: RoundKey) -> bytes:
    return canonical_json({"study": key.study, "round": key.round, "key_hash": key.key_hash}, 1)


UNSAFE_SUMS_UNTIL_PAUSE = 2
"""So many sums with unsafe slots pause a study: each such refusal tells an attacker at most one bit."""

_SCHEMA = Schema(
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
    ),
)


class BadPads(Refused):
    """The pads of ``sites`` do not open; the round may be closed again without them."""

    def __init__(self, sites: Sequence[str]) -> None:
        super().__init__(f"the pads of {', '.join(sites)} do not open; close the round without these sites")
        self.sites = tuple(sites)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The integers of one sum: safetensors with one signed-integer vector per block, and their SHA-256."""

    sum_hash: str
    integers: bytes
    integers_hash: str


class KeyCustody:
    """The round keys and answers of one keyholder.

    Args:
        folder: where keys and record lie; made with mode 0700.
        identity: the keyholder.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._keys = KeyFiles(folder, identity)
        self._lock = threading.RLock()
        self._made_now: set[tuple[str, int]] = set()
        self._record = open_sqlite(folder / "answers.sqlite", _SCHEMA, pragmas={"synchronous": "FULL"})
        self._record.row_factory = sqlite3.Row
        self._sweep()

    def close(self) -> None:
        """Close the record."""
        self._record.close()

    def open_round(self, proposal: Proposal, number: int) -> tuple[RoundKey, bytes]:
        """Return a round's key record and public key, made at the first call and the same ever after.

        Args:
            proposal: as :func:`datasites.keyholder.checks.check_study` returned it.
            number: the round, 1 to ``proposal.rounds``.

        Raises:
            Refused: no such round, the round is over, or the study is paused.
        """
        if not 1 <= number <= proposal.rounds:
            raise Refused(f"expected a round between 1 and {proposal.rounds}, got {number}")
        with self._transaction():
            self._require_running(proposal.study)
            row = self._row(proposal.study, number) or self._make_key(proposal, number)
            if row["proposal_hash"] != proposal.proposal_hash:
                raise Refused(f"round {number} has a key for another proposal of the same name")
            if row["state"] not in ("open", "deciding"):
                raise Refused(f"round {number} is over and its key destroyed")
            return _round_key(row), bytes(row["public"])

    def round_key(self, study: str, number: int) -> RoundKey:
        """Return the key record of a round, also after its key was destroyed.

        Raises:
            Refused: this keyholder made no key for it.
        """
        row = self._row(study, number)
        if row is None:
            raise Refused(f"no key was made here for round {number} of this study")
        return _round_key(row)

    def answered_sum(self, study: str, number: int) -> str | None:
        """Return the hash of the one sum this round is bound to, or None while it is open."""
        row = self._row(study, number)
        return None if row is None else row["sum_hash"]

    def answer(self, checked: CheckedSum) -> Answer:
        """Decrypt a checked sum, or repeat the answer it was given before; afterwards the key is gone.

        Raises:
            BadPads: a listed site's pad does not open; the round is not bound to this sum.
            UnsafeSum: a slot is no honest sum; nothing leaves, the key is destroyed, the round is over.
            Refused: the round is bound to another sum, is over, or the study is paused.
            Tampered: the stored key was changed or belongs to another keyholder.
        """
        study, number = checked.proposal.study, checked.round
        with self._lock:
            seeds = self._seeds(checked)
            row = self._claim(checked)
            if row["state"] == "answered":
                return _answer(row)
            try:
                integers = self._decrypt(checked, _round_key(row), seeds)
            except UnsafeSum:
                self._finish(study, number, "unsafe", None)
                raise
            self._finish(study, number, "answered", integers)
            return Answer(sum_hash=checked.sum_hash, integers=integers, integers_hash=sha256_hex(integers))

    def unsafe_sums(self, study: str) -> int:
        """Return how many sums of ``study`` had unsafe slots since its operator last resumed it."""
        query = "SELECT COUNT(*) - COALESCE((SELECT unsafe FROM resumed WHERE study = ?), 0) FROM rounds"
        row = self._record.execute(f"{query} WHERE study = ? AND state = 'unsafe'", (study, study)).fetchone()
        return int(row[0])

    def resume(self, study: str) -> None:
        """Let a paused study go on: for the keyholder's operator, after looking into it."""
        with self._lock:
            self._record.execute(
                "INSERT OR REPLACE INTO resumed SELECT ?, COUNT(*) FROM rounds WHERE study = ? AND state = 'unsafe'",
                (study, study),
            )

    def forget(self, study: str) -> None:
        """Destroy the remaining keys of a study that is over; its answers stay on record."""
        left = "study = ? AND state IN ('open', 'deciding')"
        with self._lock:
            if self._record.execute(f"SELECT 1 FROM rounds WHERE {left}", (study,)).fetchone():  # noqa: S608 - a constant
                self._record.execute(f"UPDATE rounds SET state = 'forgotten' WHERE {left}", (study,))  # noqa: S608
            self._sweep()

    def answered(self) -> list[tuple[str, int]]:
        """Return every (study, round) that was answered here."""
        rows = self._record.execute("SELECT study, round FROM rounds WHERE state = 'answered'").fetchall()
        return [(row["study"], row["round"]) for row in rows]

    def lacks(self, key: RoundKey, sum_hash: str | None = None) -> bool:
        """Return whether this record does not know a key that was signed here, or the sum it was used for."""
        row = self._row(key.study, key.round)
        if row is None or row["key_hash"] != key.key_hash:
            return True
        return sum_hash is not None and (row["sum_hash"], row["state"]) != (sum_hash, "answered")

    def close_round(self, key: RoundKey, sum_hash: str | None = None) -> None:
        """Write a round down as over whose key or answer this record has forgotten; its key is destroyed."""
        with self._transaction():
            self._record.execute(
                "INSERT OR REPLACE INTO rounds VALUES (?, ?, ?, ?, ?, ?, 'forgotten', ?, NULL)",
                (key.study, key.round, key.proposal_hash, key.key_hash, b"", key.pad_key, sum_hash),
            )
        self._sweep()

    def _make_key(self, proposal: Proposal, number: int) -> sqlite3.Row:
        pair, pad = ckks.generate_round_key(proposal.encryption), pads.generate_pad_key()
        row: sqlite3.Row = self._record.execute(
            "INSERT INTO rounds VALUES (?, ?, ?, ?, ?, ?, 'open', NULL, NULL) RETURNING *",
            (proposal.study, number, proposal.proposal_hash, sha256_hex(pair.public), pair.public, pad.public),
        ).fetchone()
        self._keys.store(_round_key(row), pad.private + pair.secret)
        self._made_now.add((proposal.study, number))
        return row

    def _seeds(self, checked: CheckedSum) -> dict[str, bytes]:
        """Open the pads of the listed sites; none where the round is over and its key destroyed."""
        row = self._row(checked.proposal.study, checked.round)
        if row is None or row["state"] not in ("open", "deciding"):
            return {}
        private = self._keys.load(_round_key(row))[: pads.PRIVATE_BYTES]
        label = partial(pads.PadLabel, study=row["study"], round=row["round"], plan_hash=checked.plan_hash)
        seeds, bad = {}, []
        for site, sealed in checked.pads.items():
            try:
                seeds[site] = pads.open_seed(sealed, private, label(site=site))
            except Refused:
                bad.append(site)
        if bad:
            raise BadPads(bad)
        return seeds

    def _claim(self, checked: CheckedSum) -> sqlite3.Row:
        """Bind the round to this sum, durably and before any decryption; another sum is refused for ever."""
        study, number = checked.proposal.study, checked.round
        with self._transaction():
            row = self._row(study, number)
            if row is None or row["proposal_hash"] != checked.proposal.proposal_hash:
                raise Refused(f"no key was made here for round {number} of this proposal")
            if row["sum_hash"] not in (None, checked.sum_hash):
                raise Refused(f"round {number} was answered with another sum; one sum per round")
            if row["state"] in ("unsafe", "forgotten"):
                raise Refused(f"round {number} is over and its key destroyed")
            if row["state"] != "answered":
                self._require_running(study)
                self._require_first_list(row, checked)
                self._record.execute(
                    "UPDATE rounds SET state = 'deciding', sum_hash = ? WHERE study = ? AND round = ?",
                    (checked.sum_hash, study, number),
                )
            return row

    def _require_first_list(self, row: sqlite3.Row, checked: CheckedSum) -> None:
        """Refuse a redone list under a key from before this start: restored from a backup, we would not know of a sum.

        Whoever could be singled out by a second sum of the round attested both lists, and says so.
        """
        if row["state"] == "open" and checked.redone and (row["study"], row["round"]) not in self._made_now:
            raise Refused(
                f"round {row['round']}: sites attested another list before, and this keyholder was started anew since "
                "it made the key; it cannot know that it answered no other sum, so this round gets none"
            )

    def _decrypt(self, checked: CheckedSum, key: RoundKey, seeds: Mapping[str, bytes]) -> bytes:
        proposal, secret = checked.proposal, self._keys.load(key)[pads.PRIVATE_BYTES :]
        bare = pads.remove(checked.ciphertexts, seeds, checked.contributors, proposal.encryption)
        totals = {
            block.name: ckks.decrypt_sum(
                secret,
                proposal.encryption,
                bare[block.name],
                values=block.length,
                contributors=len(checked.contributors[block.name]),
            )
            for block in proposal.exchanged_blocks()
        }
        return integers_to_bytes(totals, proposal.encryption)

    def _finish(self, study: str, number: int, state: str, integers: bytes | None) -> None:
        self._record.execute(
            "UPDATE rounds SET state = ?, integers = ? WHERE study = ? AND round = ?", (state, integers, study, number)
        )
        self._sweep()

    def _sweep(self) -> None:
        """Destroy every key whose round is over, or whose record a crash kept from being written."""
        rows = self._record.execute("SELECT study, round FROM rounds WHERE state IN ('open', 'deciding')")
        self._keys.destroy_all_but({(row["study"], row["round"]) for row in rows})

    def _require_running(self, study: str) -> None:
        if self.unsafe_sums(study) >= UNSAFE_SUMS_UNTIL_PAUSE:
            raise Refused("the study is paused after sums with unsafe slots; the keyholder's operator has to resume it")

    def _row(self, study: str, number: int) -> sqlite3.Row | None:
        with self._lock:
            query = "SELECT * FROM rounds WHERE study = ? AND round = ?"
            row: sqlite3.Row | None = self._record.execute(query, (study, number)).fetchone()
            return row

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._record.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._record.execute("COMMIT")
            except BaseException:
                if self._record.in_transaction:  # SQLite itself ends some that fail, on a full disk for one
                    self._record.execute("ROLLBACK")
                raise


def integers_to_bytes(totals: Mapping[str, np.ndarray], parameters: EncryptionParameters) -> bytes:
    """Return sums as safetensors: by block, in the smallest signed type that holds every possible sum."""
    reach = parameters.sites * parameters.levels
    kind = next(t for t in (np.int16, np.int32, np.int64) if reach <= np.iinfo(t).max)
    return bytes(save({name: np.ascontiguousarray(totals[name].astype(kind)) for name in sorted(totals)}))


def _round_key(row: sqlite3.Row) -> RoundKey:
    return RoundKey(
        study=row["study"],
        proposal_hash=row["proposal_hash"],
        round=row["round"],
        key_hash=row["key_hash"],
        key_bytes=len(row["public"]),
        pad_key=row["pad_key"],
    )


def _answer(row: sqlite3.Row) -> Answer:
    integers = bytes(row["integers"])
    return Answer(sum_hash=row["sum_hash"], integers=integers, integers_hash=sha256_hex(integers))
