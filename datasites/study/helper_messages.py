"""The messages of a round in which two helpers hold part of the pads, beside those of every round.

==================  ======================  ==========================================================
message             signed by               says
==================  ======================  ==========================================================
:class:`HelperKey`  helper                  the key that sites seal its seeds of one round to
:class:`Void`       keyholder and helpers   I have answered no such list of this round and never will
:class:`PadSums`    helper                  hashes of the pad sums of one list; one of them comes along
:class:`Opening`    keyholder               hashes of the round's secret key and its two pad sums
==================  ======================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from datasites.study.signing import Message


@dataclass(frozen=True, kw_only=True)
class HelperKey(Message):
    """A helper's key of one (study, round), of X25519 and ML-KEM-768 (:mod:`privacy.encryption.pads`)."""

    study: str
    proposal_hash: str
    round: int
    helper: str
    pad_key: str


@dataclass(frozen=True, kw_only=True)
class Void(Message):
    """A party's word that it has not answered a list of this round, and never will."""

    study: str
    round: int
    list_hash: str
    party: str


@dataclass(frozen=True, kw_only=True)
class PadSums(Message):
    """A helper's one answer of a round.

    ``parts`` maps the number of each of its parts to the SHA-256 of the part's sum over the list; the sum of the part
    that the keyholder lacks comes along as bytes.
    """

    study: str
    round: int
    list_hash: str
    helper: str
    parts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Opening(Message):
    """What the keyholder publishes of an answered round: the hash of the secret key and those of its own pad sums.

    ``body_hash`` is that of all of it in one string: the key, then the sums of parts 1 and 2.
    """

    study: str
    round: int
    list_hash: str
    sum_hash: str
    integers_hash: str
    parts: Mapping[str, str]
    body_hash: str
