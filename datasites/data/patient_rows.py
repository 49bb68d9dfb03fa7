"""One row a patient: which ids are the same patient, and which rows are copies of another's.

Every bound of a study is for one record a patient. A patient who stands in a dataset twice would be charged once and
counted twice.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidInput

_TELLING = 16
"""So many different values in a row do not agree with another row's by chance."""

_HASH_BYTES = 16
_NO_LETTER = re.compile(r"[^a-z0-9]+")


def plain_id(case: str) -> str:
    """Return a case id without the differences that make no other patient: case, Unicode form, spaces, punctuation."""
    if case.isascii():  # nearly all; a table has a million
        return _NO_LETTER.sub("", case.lower())
    return "".join(c for c in unicodedata.normalize("NFKC", case).casefold() if c.isalnum())


def check_patients(cases: Sequence[str]) -> None:
    """Refuse case ids that name one patient twice: every bound here is for one record a patient.

    Two spellings are one patient when they differ in case, in Unicode form, or in spaces and punctuation only.

    Raises:
        InvalidInput: an id is no text or has no letter or digit, or a patient stands there twice; none is named.
    """
    if not all(isinstance(case, str) for case in cases):
        raise InvalidInput("expected case ids as text, got another type; write them as strings")
    plain = [plain_id(case) for case in cases]
    if not all(plain):
        raise InvalidInput(f"expected a case id for every row, {sum(not p for p in plain)} are empty")
    repeated = len(plain) - len(set(plain))
    if repeated:
        raise InvalidInput(
            f"expected one row per patient, {repeated} rows repeat a case id (capitals, spaces and punctuation do not "
            "count); merge them"
        )


def check_rows(modality: str, cases: Sequence[str], blocks: Iterable[NDArray[np.float32]]) -> None:
    """Refuse one modality's rows when a patient has two, or when two patients have the very same measurements.

    Few or constant values can agree by chance; ``_TELLING`` different ones or more do not.

    Args:
        modality: its name.
        cases: of the rows.
        blocks: the rows, some at a time.

    Raises:
        InvalidInput: so it is; no patient is named.
    """
    check_patients(cases)
    rows = row_hashes(blocks)
    repeated = len(rows) - len(np.unique(rows))
    if repeated:
        raise InvalidInput(
            f"expected one {modality} row per patient, {repeated} rows repeat another case's values exactly; "
            "leave out the copies"
        )


def row_hashes(blocks: Iterable[NDArray[np.float32]], *, telling: bool = True) -> NDArray[np.void]:
    """Return a hash of every row, 16 bytes each, or only of those that cannot agree with another by chance.

    Args:
        blocks: the rows, some at a time; a large table's rows are held as hashes only.
        telling: leave out rows of fewer different values than ``_TELLING``.
    """
    found = bytearray()
    for block in blocks:
        for row in block[_different(block) >= _TELLING] if telling else block:
            found += hashlib.blake2b(row.tobytes(), digest_size=_HASH_BYTES).digest()
    return np.frombuffer(bytes(found), dtype=f"V{_HASH_BYTES}")


def _different(block: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return how many different values each row has."""
    if not block.shape[1]:
        return np.zeros(len(block), dtype=np.int64)
    ordered = np.sort(block, axis=1)
    found: NDArray[np.int64] = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1)
    return found
