"""Pads that are opened, part by part; what a round publishes of itself, and how everybody checks it.

Keyholder and helpers open the seeds of a list's sites with :func:`open_parts`: every seed must have the hash that its
site signed, so both holders of a part hold the same one. The keyholder takes the part that it lacks from a helper
(:func:`missing_part`). In a study that publishes, an :class:`~datasites.study.messages.Opening` carries the
round's secret key and the keyholder's two pad sums, and :func:`recomputed` gives everybody the integers anew.
"""

from __future__ import annotations

import hmac
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from safetensors.numpy import save

from datasites.keyholder.vouched import OwnParts, Vouched
from datasites.study.messages import Arrival, Clearance, PadSums, UpdateHeader
from datasites.study.proposal import Proposal
from privacy.canonical import sha256_hex
from privacy.encryption import ckks, pad_tags, pads, shares
from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import InvalidInput, Refused


class BadPads(Refused):
    """The pads of ``sites`` do not open, or are not those that they tagged; their updates cannot be used."""

    def __init__(self, sites: Sequence[str], what: str = "do not open; close the round without these sites") -> None:
        super().__init__(f"the pads of {', '.join(sites)} {what}")
        self.sites = tuple(sites)


class HelpersWanted(Refused):
    """The answers of ``helpers`` are missing, or those that came are not right."""

    def __init__(self, helpers: Sequence[str], reason: str) -> None:
        super().__init__(reason)
        self.helpers = tuple(helpers)


class FreshWanted(Refused):
    """The sites of a list have to attest it once more, with the word ``fresh``: who answers it was started anew."""

    def __init__(self, number: int, fresh: str, who: str = "the keyholder") -> None:
        super().__init__(
            f"round {number}: {who} was started anew since it made the key, and cannot know that it answered "
            "no other list; expected the hospitals to sign this one once more, for good"
        )
        self.fresh = fresh


@dataclass(frozen=True, kw_only=True)
class ListedPads:
    """What takes a list's pads off, in a study with helpers: the sums of the three parts, and the salts of each."""

    sums: Sequence[shares.PartSum]
    salts: Sequence[bytes]


@dataclass(frozen=True, kw_only=True)
class HelperAnswer:
    """A helper's signed answer, opened, and the sum of the part that the keyholder lacks."""

    sums: PadSums
    body: bytes


@dataclass
class Updates:
    """Which update of each site one party opens in a round: the first it was shown, of the process that it cleared.

    ``seen`` are the hashes of the seeds by site, and ``begun`` the words of the sites' processes: of that update, or of
    the clearance that a site got.
    """

    seen: dict[str, tuple[str, ...]] = field(default_factory=dict)
    begun: dict[str, str] = field(default_factory=dict)

    def see(self, headers: Mapping[str, UpdateHeader]) -> None:
        """Take note of a list's updates.

        Raises:
            BadPads: a site's second update in the round: it was restored in between, and stands in one list already.
        """
        twice = [
            site
            for site, header in headers.items()
            if self.seen.get(site, header.seed_hashes) != header.seed_hashes
            or self.begun.get(site, header.begun) != header.begun
        ]
        if twice:
            raise BadPads(sorted(twice), "are others than those of their first update in this round")
        self.seen |= {site: header.seed_hashes for site, header in headers.items()}
        self.begun |= {site: header.begun for site, header in headers.items()}

    def clear(self, arrival: Arrival) -> bool:
        """Open no update of a site but of one process; False where this is another one already.

        Of two words nobody here knows which is the younger one. So the first that is heard stays: an arrival that the
        orchestrator kept back would else bring back an update that was promised not to be opened.
        """
        return self.begun.setdefault(arrival.site, arrival.begun) == arrival.begun


def clearance_of(arrival: Arrival, party: str, unknown: Collection[int]) -> Clearance:
    """Return what a party says to a hospital that was started anew.

    Args:
        arrival: the hospital's word.
        party: who says it.
        unknown: the rounds in which an earlier update of the hospital may have been opened.
    """
    over = next(number for number in itertools.count() if number + 1 not in unknown)
    without = tuple(sorted(number for number in unknown if number > over))
    named = {"study": arrival.study, "site": arrival.site, "begun": arrival.begun}
    return Clearance(**named, party=party, over=over, without=without)


def counts_of(proposal: Proposal) -> dict[str, int]:
    """Return how many ciphertexts carry each exchanged block."""
    return {b.name: proposal.encryption.ciphertexts_for(b.length) for b in proposal.exchanged_blocks()}


def parts_of(proposal: Proposal, helper: str) -> tuple[int, int]:
    """Return the parts that a helper knows.

    Raises:
        Refused: nobody of that name helps in this study.
    """
    for party, parts in zip(proposal.helpers, shares.HELPER_PARTS, strict=False):
        if party.name == helper:
            return parts
    raise Refused(f"{helper[:80]!r} is no helper of study {proposal.study!r}")


def open_seeds(sealed: Mapping[str, str], private: bytes, label: pads.PadLabel) -> dict[str, bytes]:
    """Return every site's one seed, in a study without helpers.

    Raises:
        BadPads: some do not open.
    """
    seeds, bad = {}, []
    for site, text in sealed.items():
        try:
            seeds[site] = pads.open_seed(text, private, replace(label, site=site))
        except Refused:
            bad.append(site)
    if bad:
        raise BadPads(bad)
    return seeds


def open_parts(
    headers: Mapping[str, UpdateHeader],
    sealed: Mapping[str, str],
    parts: tuple[int, int],
    private: bytes,
    label: pads.PadLabel,
) -> dict[int, dict[str, bytes]]:
    """Return a holder's seeds: by part, by site.

    Args:
        headers: the listed sites' headers, which say the hash of each seed.
        sealed: what each site sealed to the holder.
        parts: the holder's parts.
        private: the holder's key of the round.
        label: what the pads belong to; the site is filled in here.

    Raises:
        BadPads: some do not open, or hold other seeds than their sites signed for.
        Refused: none opens, which is no hospital's fault: the holder was started anew, and has another key.
    """
    found: dict[int, dict[str, bytes]] = {part: {} for part in parts}
    bad: list[str] = []
    closed = 0
    for site, header in headers.items():
        try:
            opened = pads.open_seed(sealed.get(site, ""), private, replace(label, site=site), seeds=len(parts))
        except Refused:
            bad.append(site)
            closed += 1
            continue
        for part, seed in shares.split(opened, parts).items():
            said = header.seed_hashes[part - 1].encode()
            if not hmac.compare_digest(shares.seed_hash(seed, part, site).encode(), said):
                bad.append(site)
            found[part][site] = seed
    if closed > 1 and closed == len(headers):
        raise Refused("no seed opens with the key that is held here; it was made after the hospitals sealed theirs")
    if bad:
        raise BadPads(sorted(set(bad)))
    return found


def own_parts(
    proposal: Proposal,
    contributors: Mapping[str, Sequence[str]],
    opened: Mapping[int, Mapping[str, bytes]],
) -> OwnParts:
    """Return a holder's seeds of a list, as :func:`open_parts` opened them, with the sums of their pads."""
    counts, encryption = counts_of(proposal), proposal.encryption
    sums = {part: shares.part_sum(seeds, contributors, counts, encryption) for part, seeds in opened.items()}
    return OwnParts(seeds=opened, sums=sums)


def require_vouched(
    proposal: Proposal, vouched: Vouched | None, headers: Mapping[str, UpdateHeader], own: OwnParts
) -> Vouched:
    """Check that the sites of a list vouch for the pads that a holder knows, and return what they vouch for.

    Raises:
        BadPads: a site tagged another pad than the one it sealed.
        Refused: the sites signed under another commitment than this holder's, or tagged no pads.
    """
    if vouched is None:
        raise Refused("expected every hospital of the list to tag its pads when it signs; none did")
    for part, total in own.sums.items():
        if not vouched.fits(part, total, proposal.encryption, own.salt(proposal, part, vouched.list_hash)):
            if wrong := vouched.wrong(part, own.seeds[part], headers, proposal.encryption):
                raise BadPads(wrong, "are not those that they tagged when they signed the list")
            raise Refused("the hospitals signed the list under a commitment to other pad sums than those known here")
    return vouched


def missing_part(
    proposal: Proposal,
    list_hash: str,
    answers: Sequence[HelperAnswer],
    own: Mapping[int, shares.PartSum],
    vouched: Vouched,
    *,
    everybody: bool,
) -> tuple[shares.PartSum, bytes]:
    """Return the sum of the part that the keyholder lacks, and its salt, after checking who says so.

    Args:
        proposal: the study's.
        list_hash: the list that is answered.
        answers: the helpers'.
        own: the keyholder's part sums, by part.
        vouched: what the sites vouch for.
        everybody: whether both helpers have to have answered.

    Raises:
        HelpersWanted: not enough helpers answered rightly.
    """
    hashes = {part: sha256_hex(shares.to_bytes(values)) for part, values in own.items()}
    good = [a for a in answers if _is_right(proposal, list_hash, a, hashes, vouched)]
    came = {answer.sums.helper for answer in good}
    wanted = [h.name for h in proposal.helpers if h.name not in came]
    if not good or (everybody and wanted):
        wrong = sorted({answer.sums.helper for answer in answers} - came)
        reason = f"expected the pad sums of {', '.join(wanted)}"
        raise HelpersWanted(wanted, f"{reason}; those of {', '.join(wrong)} are not right" if wrong else reason)
    return shares.from_bytes(good[0].body, counts_of(proposal), proposal.encryption), salt_in(good[0].sums)


def _is_right(
    proposal: Proposal, list_hash: str, answer: HelperAnswer, own: Mapping[int, str], vouched: Vouched
) -> bool:
    """Say whether an answer is of this list, with its parts, its bytes, the keyholder's sum of the shared part, and a
    sum of the other one that the sites vouch for."""
    sums = answer.sums
    parts = parts_of(proposal, sums.helper)
    if sums.list_hash != list_hash or set(sums.parts) != {str(part) for part in parts}:
        return False
    shared = all(sums.parts[str(part)] == own[part] for part in parts if part in own)
    if not shared or sha256_hex(answer.body) != sums.parts[str(shares.MISSING_PART)]:
        return False
    try:
        total = shares.from_bytes(answer.body, counts_of(proposal), proposal.encryption)
    except InvalidInput:
        return False
    return vouched.fits(shares.MISSING_PART, total, proposal.encryption, salt_in(sums))


def salt_in(sums: PadSums) -> bytes:
    """Return the salt that a helper's answer says; one that is no such salt is empty, and fits nothing."""
    try:
        return bytes.fromhex(sums.salt)
    except ValueError:
        return b""


def integers_of(
    proposal: Proposal,
    secret: bytes,
    bare: Mapping[str, Sequence[bytes]],
    contributors: Mapping[str, Sequence[str]],
) -> bytes:
    """Decrypt a sum without pads and return its integers as safetensors.

    Raises:
        UnsafeSum: a slot is no honest sum.
    """
    blocks = proposal.exchanged_blocks()
    sums = [
        ckks.BlockSum(ciphertexts=bare[b.name], values=b.length, contributors=len(contributors[b.name])) for b in blocks
    ]
    found = ckks.decrypt_sums(secret, proposal.encryption, sums)
    totals = {block.name: values for block, values in zip(blocks, found, strict=True)}
    return integers_to_bytes(totals, proposal.encryption)


def pack_opening(
    proposal: Proposal, secret: bytes, sums: Sequence[shares.PartSum], salts: Sequence[bytes] = ()
) -> bytes:
    """Return what is published of a round in one string: the secret key, the keyholder's pad sums, and the salts of the
    commitments to all three (none in studies from before there were salts)."""
    published = ckks.published_secret(secret, proposal.encryption)
    return published + b"".join(shares.to_bytes(part) for part in sums) + b"".join(salts)


def opening_bytes(proposal: Proposal) -> int:
    """Return the only length that :func:`pack_opening` gives."""
    sums = len(shares.KEYHOLDER_PARTS) * shares.sum_bytes(counts_of(proposal), proposal.encryption)
    return ckks.secret_key_bytes(proposal.encryption) + sums + len(shares.PARTS) * _salt_bytes(proposal)


def _salt_bytes(proposal: Proposal) -> int:
    return pad_tags.SALT_BYTES if proposal.protocol >= 2 else 0


def split_opening(proposal: Proposal, body: bytes) -> tuple[bytes, dict[int, bytes], dict[int, bytes]]:
    """Return the published secret key, and by part the bytes of the keyholder's pad sums, and all three salts.

    Raises:
        InvalidInput: another length.
    """
    if len(body) != opening_bytes(proposal):
        raise InvalidInput(f"expected an opening of {opening_bytes(proposal)} bytes, got {len(body)}")
    start, size = ckks.secret_key_bytes(proposal.encryption), shares.sum_bytes(counts_of(proposal), proposal.encryption)
    salt, end = _salt_bytes(proposal), start + len(shares.KEYHOLDER_PARTS) * size
    sums = {
        part: body[start + index * size : start + (index + 1) * size]
        for index, part in enumerate(shares.KEYHOLDER_PARTS)
    }
    salts = {part: body[end + index * salt : end + (index + 1) * salt] for index, part in enumerate(shares.PARTS)}
    return body[:start], sums, salts


def integers_to_bytes(totals: Mapping[str, np.ndarray], parameters: EncryptionParameters) -> bytes:
    """Return sums as safetensors: by block, in the smallest signed type that holds every possible sum."""
    reach = parameters.sites * parameters.levels
    kind = next(t for t in (np.int16, np.int32, np.int64) if reach <= np.iinfo(t).max)
    return bytes(save({name: np.ascontiguousarray(totals[name].astype(kind)) for name in sorted(totals)}))
