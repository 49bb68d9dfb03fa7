"""The messages of one encrypted round, and the approval before it.

======================  ======================  ======================================================
message                 signed by               says
======================  ======================  ======================================================
:class:`Proposal`       orchestrator            everything a study will do; its hash is what is approved
:class:`Approval`       datasite (+ reviewers)  this proposal hash may run here until it expires
:class:`RoundKey`       keyholder               the CKKS public key of one (study, round)
:class:`RoundPlan`      orchestrator            model, key and weights of one round; one for all sites
:class:`UpdateHeader`   datasite                hash and shape of the encrypted update, under one plan
:class:`Commitments`    orchestrator            whose updates are in the sum, and the hash of the sum
:class:`Attestation`    datasite                mine is in the list; here are my linear tags
:class:`SumResult`      keyholder               hash of the integers decrypted from one sum
:class:`LostRound`      orchestrator            this round has no sum; the model stays as it was
:class:`Refusal`        keyholder or datasite   why a round was not answered
:class:`HelperKey`      helper                  the key that sites seal its seeds of one round to
:class:`Arrival`        datasite                my process was started anew; my updates carry this word now
:class:`Clearance`      keyholder and helpers   in these rounds I open no update of it but under that word
:class:`Void`           keyholder and helpers   I have answered no such list of this round and never will
:class:`PadCommitment`  keyholder and helpers   hashes of my pad sums of a list that nobody has signed yet
:class:`PadSums`        helper                  hashes of the pad sums of one list; one of them comes along
:class:`Opening`        keyholder               hashes of the round's secret key and its two pad sums
======================  ======================  ======================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from datasites.study.signing import Message, Signed, dump
from privacy.canonical import CanonicalVersion, canonical_hash


def _digits(tag: Any) -> Any:
    """Return a tag as its digits; it was a JSON number before RFC 8785."""
    return str(tag) if type(tag) is int else tag


Tag = Annotated[str, BeforeValidator(_digits), StringConstraints(pattern="^(0|-?[1-9][0-9]{0,29})$")]


Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
"""A SHA-256 as hexadecimal digits."""

MOST_EARLIER = 256
"""So many lists of one round a site may have attested before."""

Parts = Annotated[Mapping[str, Digest], Field(max_length=3)]

RoundNumber = Annotated[int, Field(ge=0, le=1_000_000)]


@dataclass(frozen=True, kw_only=True)
class ReviewerSignature(Message):
    """One person's signature under a proposal hash, with a key of their own.

    The signature covers ``conditions``, what has to hold before the study may run, in the person's words, and the
    person's ``full_name`` and ``function`` as they were when they signed.
    """

    reviewer: str
    role: str
    public_key: str
    signature: str
    conditions: str = ""
    full_name: str = ""
    function: str = ""

    @property
    def titled(self) -> str:
        """The full name and function where they are known, otherwise the name of the account."""
        return ", ".join(part for part in (self.full_name or self.reviewer, self.function) if part)


@dataclass(frozen=True, kw_only=True)
class Approval(Message):
    """A datasite's word that a proposal may run on its data."""

    study: str
    proposal_hash: str
    site: str
    reviewers: tuple[ReviewerSignature, ...]
    approved: str
    expires: str


@dataclass(frozen=True, kw_only=True)
class RoundKey(Message):
    """The CKKS public key of one (study, round): who made it is the signature, what it is the hash.

    ``pad_key`` is the X25519 key that sites seal the seeds of their pads to (:mod:`privacy.encryption.pads`), 64
    hexadecimal digits.
    """

    study: str
    proposal_hash: str
    round: int
    key_hash: str
    key_bytes: int
    pad_key: str


@dataclass(frozen=True, kw_only=True)
class RoundPlan(Message):
    """What a round will do; every site must get the same one.

    ``weights[block][site]`` is relative to the largest (0.25 to 1). ``scales`` are the public per-modality
    blending scales (1 when blending is off). ``canonical`` is the version of its hash, the proposal's.
    """

    study: str
    proposal_hash: str
    round: int
    model_hash: str
    key_hash: str
    weights: Mapping[str, Mapping[str, float]]
    scales: Mapping[str, float]
    deadline_seconds: int
    canonical: CanonicalVersion = 1

    @cached_property
    def plan_hash(self) -> str:
        """SHA-256 of the canonical plan: ciphertext signatures and tags cover it."""
        return canonical_hash(dump(self), self.canonical)


@dataclass(frozen=True, kw_only=True)
class BlockShape(Message):
    """How many values a block has and how many ciphertexts carry them."""

    name: str
    values: int
    ciphertexts: int


@dataclass(frozen=True, kw_only=True)
class UpdateHeader(Message):
    """A site's commitment to one encrypted update.

    ``releases`` are named, already noised numbers charged in the ledger (losses, ...). ``pad`` is the seed of the pad
    over the ciphertexts, sealed to the keyholder (:mod:`privacy.encryption.pads`). ``journal_head`` and
    ``ledger_head`` are the site's chain heads, so that its peers countersign them. In a study with helpers, ``pad`` are
    the keyholder's two seeds, ``helper_pads`` those of each helper by name, and ``seed_hashes`` the hashes of all three
    (:mod:`privacy.encryption.shares`). ``begun`` is the word of the site's process (:class:`Arrival`).
    """

    study: str
    proposal_hash: str
    round: int
    plan_hash: str
    site: str
    blocks: tuple[BlockShape, ...]
    body_hash: str
    body_bytes: int
    pad: str
    releases: Mapping[str, float]
    journal_head: Digest
    ledger_head: Digest
    helper_pads: Mapping[str, str] = field(default_factory=dict)
    seed_hashes: tuple[str, ...] = ()
    begun: Annotated[str, StringConstraints(pattern="^[0-9a-f]{0,64}$")] = ""


@dataclass(frozen=True, kw_only=True)
class Commitments(Message):
    """The closed list of a round: every update header in it, and the hash of their sum.

    ``closing`` counts how often the list had to be redone because somebody vanished before tagging. ``canonical`` is
    the version of its hash, the proposal's.
    """

    study: str
    round: int
    plan_hash: str
    closing: int
    updates: tuple[Signed, ...]
    sum_hash: str
    canonical: CanonicalVersion = 1

    @cached_property
    def list_hash(self) -> str:
        """SHA-256 of the canonical list."""
        return canonical_hash(dump(self), self.canonical)


@dataclass(frozen=True, kw_only=True)
class Attestation(Message):
    """A site's word that its update is in the list, with the linear tags of its own ciphertexts.

    Tags are below 2**60, beyond what a JSON number carries in RFC 8785, and travel as decimal digits.
    ``earlier`` are the hashes of the other lists of this round that it attested before. ``fresh`` repeats what a
    keyholder or helpers that were started anew drew for this start (joined by ``+``): the site says now, and for good,
    that it signs no other list after this one in this round. With helpers, ``pad_tags`` are the masked tags of the
    site's three pads by part (:mod:`privacy.encryption.pad_tags`), and ``pad_commitments`` is the hash of the
    commitments that they are under.
    """

    study: str
    round: int
    plan_hash: str
    list_hash: str
    sum_hash: str
    site: str
    tags: tuple[Tag, ...]
    earlier: Annotated[tuple[Digest, ...], Field(max_length=MOST_EARLIER)] = ()
    fresh: str = ""
    pad_tags: Mapping[str, tuple[Tag, ...]] = field(default_factory=dict)
    pad_commitments: str = ""


@dataclass(frozen=True, kw_only=True)
class SumResult(Message):
    """The keyholder's answer: the hash of the integers (see ``privacy.encryption.ckks``) it decrypted from one sum.

    ``plan_hash`` and ``list_hash`` say under which plan and for which list, so that everybody computes the same next
    model from it; results from before chains of models lack them.
    """

    study: str
    round: int
    sum_hash: str
    integers_hash: str
    plan_hash: str = ""
    list_hash: str = ""


@dataclass(frozen=True, kw_only=True)
class LostRound(Message):
    """The orchestrator's word that a round has no sum and never will: the model stays as it was before the round."""

    study: str
    proposal_hash: str
    round: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class WorkItem(Message):
    """One thing a party is asked to do now (``GET /work``); doing it twice does no harm.

    ``documents`` are the signed messages the task is about: ``train`` carries ``plan`` and ``key``, ``attest`` the
    ``commitments``, ``decrypt`` all of these, ``key`` none, ``finished`` and ``forget`` none. With helpers, ``train``
    carries their keys (``key/NAME``), and ``commit`` asks keyholder and helpers for their commitments to a list that
    nobody has signed; ``attest``, ``pads`` and ``decrypt`` carry these (``commitment/NAME``). ``pads`` carries what
    ``decrypt`` carries, and ``decrypt`` also the helpers' answers (``pads/NAME``). When a list was redone, ``attest``
    carries the voids of earlier ones (``void/CLOSING/NAME``), and ``void`` the ``commitments`` of the list that is to
    be void. ``confirm`` asks to attest once more: it carries the ``commitments`` and the keyholder's ``refusal``, or
    those of helpers (``refusal/NAME``). ``clear`` asks keyholder and helpers for their clearance of a hospital and
    carries its ``arrival``; a ``train`` that follows carries that, too, and what they said (``clearance/NAME``).
    """

    kind: Literal[
        "key", "train", "attest", "confirm", "decrypt", "forget", "finished", "commit", "pads", "void", "clear"
    ]
    study: str
    round: RoundNumber
    closing: RoundNumber
    documents: Mapping[str, Signed]
    attestations: tuple[Signed, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Refusal(Message):
    """Why a role did not do its part of a round.

    ``without`` are the sites whose updates the keyholder cannot use; the round may be closed again without them. A
    hospital that names itself sends no update in this round, however often it is asked.
    ``wants`` are the helpers whose answers the keyholder needs before it decrypts. ``fresh`` asks the sites of the list
    to attest it once more with this word: a helper was started anew in this round, or without helpers the keyholder.
    """

    study: str
    round: RoundNumber
    party: str
    reason: str
    without: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    fresh: str = ""


@dataclass(frozen=True, kw_only=True)
class HelperKey(Message):
    """A helper's key of one (study, round), of X25519 and ML-KEM-768 (:mod:`privacy.encryption.pads`)."""

    study: str
    proposal_hash: str
    round: int
    helper: str
    pad_key: str


@dataclass(frozen=True, kw_only=True)
class Arrival(Message):
    """A hospital's word that its process was started anew: its updates of a study carry the word ``begun`` now.

    It draws the word at its start (32 hexadecimal digits), so whatever answers it is younger than the start.
    """

    study: str
    site: str
    begun: str


@dataclass(frozen=True, kw_only=True)
class Clearance(Message):
    """What keyholder or helper says about the updates of a hospital that was started anew.

    In no round of the study, but those up to ``over`` and those in ``without``, has ``party`` opened an update of
    ``site`` that lacks the word ``begun``, and with the keys that it holds it opens none
    (docs/decisions/0025-cleared-after-a-start.md).
    """

    study: str
    site: str
    begun: str
    party: str
    over: int
    without: tuple[int, ...]

    def covers(self, number: int) -> bool:
        """Return whether this is said of a round."""
        return number > self.over and number not in self.without


@dataclass(frozen=True, kw_only=True)
class Void(Message):
    """A party's word that it has not answered a list of this round, and never will.

    ``pad_key_hash`` is the SHA-256 of the pad key that the party holds of the round: it speaks for that key alone. One
    that has forgotten a key knows nothing of what it answered with it.
    """

    study: str
    round: int
    list_hash: str
    party: str
    pad_key_hash: str = ""


@dataclass(frozen=True, kw_only=True)
class PadCommitment(Message):
    """What a party will say about the pads of a list, fixed before a site signs the list.

    ``parts`` maps the number of each of its parts to a hash over the part's sum and its masks
    (:func:`privacy.encryption.pad_tags.commitment`).
    """

    study: str
    round: int
    list_hash: str
    party: str
    parts: Parts


@dataclass(frozen=True, kw_only=True)
class PadSums(Message):
    """A helper's one answer of a round.

    ``parts`` maps the number of each of its parts to the SHA-256 of the part's sum over the list; the sum of the part
    that the keyholder lacks comes along as bytes. ``salt`` is that of the commitment to this part, 64 hexadecimal
    digits (:func:`privacy.encryption.pad_tags.salt_of`).
    """

    study: str
    round: int
    list_hash: str
    helper: str
    parts: Parts
    salt: str = ""


@dataclass(frozen=True, kw_only=True)
class Opening(Message):
    """What the keyholder publishes of an answered round: the hash of the secret key and those of its own pad sums.

    ``body_hash`` is that of all of it in one string: the key, then the sums of parts 1 and 2, then the salts of the
    commitments to all three.
    """

    study: str
    round: int
    list_hash: str
    sum_hash: str
    integers_hash: str
    parts: Parts
    body_hash: str
