"""A hospital's pads in a round: to whom their seeds are sealed, and which list of the round it may sign.

A hospital signs one list a round and never another, unless everybody who could answer the first one has signed never to
(docs/decisions/0018-pads-among-helpers.md). Without helpers this is the keyholder alone, and one that was started anew
has the list signed once more (docs/decisions/0019-one-list-without-helpers.md).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from datasites.keyholder.checks import WORDS
from datasites.study.messages import HelperKey, Refusal, RoundKey, RoundPlan, Void, WorkItem
from datasites.study.proposal import Proposal
from datasites.study.recomputed import checks
from datasites.study.signing import open_sealed
from privacy.canonical import sha256_hex
from privacy.encryption import pad_tags, pads, shares, tags
from privacy.encryption.ciphertexts import pack
from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import InvalidInput, Refused
from privacy.ledger.journal import Journal

_log = logging.getLogger(__name__)
_WORD = re.compile("[0-9a-f]{1,64}")


@dataclass(frozen=True, kw_only=True)
class PadKeys:
    """The keys that the seeds of a round are sealed to: the keyholder's, and by name those of the helpers."""

    round_key: RoundKey
    helpers: Mapping[str, HelperKey] = field(default_factory=dict)

    @classmethod
    def of(cls, proposal: Proposal, plan: RoundPlan, item: WorkItem) -> PadKeys:
        """Check the keys that come with a round's plan; in a study with helpers one of theirs is enough.

        A helper whose key nothing can be sealed to counts as absent: it alone would stop the study otherwise.

        Raises:
            Refused: a key is for another study, round or plan, nothing can be sealed to the keyholder's, or to no
                helper's.
            InvalidInput, Tampered: a key is not signed by its owner.
        """
        key = open_sealed(
            item.documents["key"], "round-key", proposal.keyholder.public_key, RoundKey, since=proposal.canonical
        )
        checks.check_key(proposal, plan, key)
        _require_sealable(proposal, key.pad_key, proposal.keyholder.name)
        found, unusable = {}, ""
        for helper in proposal.helpers:
            signed = item.documents.get(f"key/{helper.name}")
            if signed is None:
                continue
            offered = open_sealed(signed, "helper-key", helper.public_key, HelperKey, since=proposal.canonical)
            about = (offered.study, offered.proposal_hash, offered.round, offered.helper)
            if about != (plan.study, plan.proposal_hash, plan.round, helper.name):
                raise Refused(f"the key of {helper.name} is for another study or round")
            try:
                _require_sealable(proposal, offered.pad_key, helper.name)
            except Refused as error:
                unusable = f" ({error})"
                _log.warning("round %d: %s; this helper counts as absent", plan.round, error)
                continue
            found[helper.name] = offered
        if proposal.helpers and not found:
            raise Refused(f"no helper's key came with the plan; without one no pad is split{unusable}")
        return cls(round_key=key, helpers=found)


@dataclass(frozen=True, kw_only=True)
class OwnPads:
    """A hospital's three seeds of a round and their pads by part; in memory only, until it signs the round's list."""

    seeds: tuple[bytes, ...] = field(default=(), repr=False)
    rows: Mapping[int, shares.PartSum] = field(default_factory=dict, repr=False)

    def tags(
        self, list_hash: str, challenge: tags.Challenge, parameters: EncryptionParameters
    ) -> dict[str, tuple[str, ...]]:
        """Return the masked tags of the three pads under a list, as they are signed."""
        pads_ = zip(self.rows.items(), self.seeds, strict=True)
        found = {
            part: pad_tags.pad_tag(rows, seed, part, list_hash, challenge, parameters) for (part, rows), seed in pads_
        }
        return {str(part): tuple(map(str, tag)) for part, tag in found.items()}


@dataclass(frozen=True, kw_only=True)
class Padded:
    """What a hospital sends: the padded body, and for the header the sealed seeds and their hashes.

    ``own`` stays here, with helpers.
    """

    body: bytes
    pad: str
    helper_pads: Mapping[str, str] = field(default_factory=dict)
    seed_hashes: tuple[str, ...] = ()
    own: OwnPads = OwnPads()


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What this process knows of an update that it made: to which keys its pads were sealed, and the pads.

    ``public`` is the round's public key, under which it was encrypted.
    """

    keys: PadKeys
    public: bytes = b""
    own: OwnPads = OwnPads()


def padded(
    proposal: Proposal, plan: RoundPlan, site: str, keys: PadKeys, blocks: Mapping[str, Sequence[bytes]]
) -> Padded:
    """Pad a hospital's ciphertexts with fresh seeds, which no file keeps, and seal the seeds."""

    def label(holder: str = "") -> pads.PadLabel:
        return pads.PadLabel(study=plan.study, round=plan.round, plan_hash=plan.plan_hash, site=site, holder=holder)

    if not proposal.helpers:
        seed = pads.new_seed()
        body = pack(pads.pad(blocks, seed, proposal.encryption))
        return Padded(body=body, pad=pads.seal_seed(seed, keys.round_key.pad_key, label()))
    seeds = shares.new_seeds()
    sealed = {}
    for helper, parts in zip(proposal.helpers, shares.HELPER_PARTS, strict=True):
        if helper.name in keys.helpers:
            offered = keys.helpers[helper.name].pad_key
            sealed[helper.name] = pads.seal_seed(shares.joined(seeds, parts), offered, label(helper.public_key))
    own = shares.joined(seeds, shares.KEYHOLDER_PARTS)
    rows = shares.pad_rows(seeds, {name: len(chunks) for name, chunks in blocks.items()}, proposal.encryption)
    return Padded(
        body=pack(shares.pad_all(blocks, rows, proposal.encryption)),
        pad=pads.seal_seed(own, keys.round_key.pad_key, label(proposal.keyholder.public_key)),
        helper_pads=sealed,
        seed_hashes=tuple(shares.seed_hash(seed, part, site) for part, seed in zip(shares.PARTS, seeds, strict=True)),
        own=OwnPads(seeds=seeds, rows=rows),
    )


def _require_sealable(proposal: Proposal, pad_key: str, owner: str) -> None:
    """Check, before a round is charged, that seeds can be sealed to a key."""
    try:
        pads.require_pad_key(pad_key, hybrid=bool(proposal.helpers))
    except InvalidInput as error:
        raise Refused(f"the pad key of {owner} is of no use: {error}") from error


def require_may_sign(
    proposal: Proposal,
    journal: Journal,
    item: WorkItem,
    list_hash: str,
    sealed_to: PadKeys | None,
) -> None:
    """Check that this hospital may sign a list: its first of the round, the same once more, or after voids.

    Args:
        proposal: the study's.
        journal: this hospital's own, which names every list before it was signed.
        item: what is asked, with the voids of earlier lists; of kind ``confirm`` to sign the newest list for good.
        list_hash: the list.
        sealed_to: the keys that this hospital's pads were sealed to; None if the update was sent before this process
            began.

    Raises:
        Refused: another list was signed, and somebody who could answer it has not declared it void; another one was
            signed for good; or the update was sent before this process began. Then no second list is signed, and with
            helpers none, nor any for good, since the journal may be an older copy.
    """
    signed = dict.fromkeys(_lists(journal, item, "attested"))  # in the order of their first signatures
    if set(_lists(journal, item, "confirmed")) - {list_hash}:
        raise Refused(f"round {item.round}: another list was signed here for good; no other is signed")
    if item.kind == "confirm":
        if [*signed][-1:] != [list_hash]:
            raise Refused(f"round {item.round}: only the newest list that was signed here is signed for good")
        if proposal.helpers and sealed_to is None:
            raise Refused(
                f"round {item.round}: this hospital was started anew since it sent its update, and cannot know that "
                "this is the newest list that it signed"
            )
        return
    if list_hash in signed:
        return
    if sealed_to is None and not (proposal.helpers or signed):
        return
    if sealed_to is None:
        raise Refused(
            f"round {item.round}: this hospital was started anew since it sent its update, and cannot know that it "
            "signed no other list"
        )
    voids = {(void.list_hash, void.party, void.pad_key_hash) for void in _voids(proposal, item)}
    holders = {proposal.keyholder.name: sealed_to.round_key.pad_key}
    holders |= {name: key.pad_key for name, key in sealed_to.helpers.items()}
    held = {party: sha256_hex(key.encode()) for party, key in holders.items()}
    missing = sorted({party for other in signed for party, key in held.items() if (other, party, key) not in voids})
    if missing:
        raise Refused(
            f"round {item.round}: another list was signed here; expected {', '.join(missing)} to declare it void first"
        )


def signed_before(journal: Journal, item: WorkItem, list_hash: str) -> bool:
    """Return whether this hospital has signed a list of a round."""
    return list_hash in _lists(journal, item, "attested")


def asked_for_good(proposal: Proposal, item: WorkItem) -> str:
    """Return the words of a keyholder or helpers that were started anew and want the list signed once more.

    Returns:
        The words, joined; nothing if the item asks for a first signature.

    Raises:
        Refused: nobody who could ask for it asks for anything of this round.
        InvalidInput, Tampered: they did not sign this.
    """
    if item.kind != "confirm":
        return ""
    askers = {f"refusal/{helper.name}": helper for helper in proposal.helpers} or {"refusal": proposal.keyholder}
    words = []
    for place, party in askers.items():
        signed = item.documents.get(place)
        if signed is None:
            continue
        asked = open_sealed(signed, "refusal", party.public_key, Refusal, since=proposal.canonical)
        if (asked.study, asked.round) != (item.study, item.round) or not _WORD.fullmatch(asked.fresh):
            raise Refused(f"round {item.round}: {party.name} asks nobody to sign once more")
        words.append(asked.fresh)
    if not words:
        raise Refused(f"round {item.round}: nobody asks to sign once more")
    return WORDS.join(sorted(words))


def _lists(journal: Journal, item: WorkItem, kind: str) -> Iterable[str]:
    """Yield the hashes of the lists of a round that were signed here (``attested``), or for good (``confirmed``)."""
    for said in journal.by_round(kind).get((item.study, item.round), ()):
        yield str(said["list_hash"])


def _voids(proposal: Proposal, item: WorkItem) -> Iterable[Void]:
    """Yield the voids that come with a work item, each signed by its party and about this round."""
    parties = {party.name: party for party in (proposal.keyholder, *proposal.helpers)}
    for place, signed in item.documents.items():
        if place.startswith("void/"):
            name = place.rpartition("/")[2]
            if name not in parties:
                raise Refused(f"{name[:80]!r} cannot declare a list of this study void")
            void = open_sealed(signed, "void", parties[name].public_key, Void, since=proposal.canonical)
            if (void.study, void.round, void.party) == (item.study, item.round, name):
                yield void
