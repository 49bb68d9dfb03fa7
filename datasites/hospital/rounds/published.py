"""A published round: this hospital recomputes its integers from the sum, the round's key and the pad sums.

Nothing here trusts the keyholder alone. The list and the tags are checked as the keyholder checks them. The key has to
decrypt what is encrypted here to the round's public key. Each pad sum has to be the one that its holders committed to
before the list was signed, and that all sites of the list vouch for. So it does not matter which helper was gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from datasites.keyholder.checks import CheckedSum, SumRequest, check_sum_request
from datasites.keyholder.opened import counts_of, integers_of, opening_bytes, parts_of, split_opening
from datasites.node.http import SignedClient
from datasites.study.messages import Opening, PadSums, RoundKey
from datasites.study.proposal import Proposal
from datasites.study.recomputed.chain import RoundEvidence, integers_limit
from datasites.study.recomputed.checks import check_public_key
from datasites.study.signing import open_sealed
from privacy.canonical import sha256_hex
from privacy.encryption import ckks, shares
from privacy.encryption.ciphertexts import body_bytes
from privacy.errors import InvalidInput, Refused, Tampered, UnsafeSum
from privacy.ledger.journal import Journal

UNCONFIRMED = "sum-unconfirmed"


def most_bytes(proposal: Proposal) -> int:
    """Return how many bytes the files of one round of a study have together at most."""
    counts, encryption = counts_of(proposal), proposal.encryption
    if not proposal.published:
        return integers_limit(proposal)
    return body_bytes(counts, encryption) + opening_bytes(proposal) + shares.sum_bytes(counts, encryption)


@dataclass(frozen=True, kw_only=True)
class PublishedRounds:
    """Fetches and checks what a round of a study publishes; ``files`` are those that are here already, by name."""

    client: SignedClient
    journal: Journal
    files: Mapping[str, bytes] = field(default_factory=dict)

    def integers(self, proposal: Proposal, number: int, evidence: RoundEvidence) -> bytes:
        """Return the integers of a round as safetensors, recomputed here.

        Raises:
            Refused: they are not what the keyholder signed, or something that they follow from does not hold.
        """
        try:
            return self._recomputed(proposal, number, evidence)
        except (InvalidInput, Tampered, UnsafeSum) as error:
            raise Refused(f"the sum of round {number} cannot be recomputed: {error}") from error

    def _recomputed(self, proposal: Proposal, number: int, evidence: RoundEvidence) -> bytes:
        if evidence.plan is None or evidence.commitments is None or evidence.key is None or evidence.opening is None:
            raise Refused(f"round {number} was to be published, and its plan, list, key or opening is missing")
        key = open_sealed(evidence.key, "round-key", proposal.keyholder.public_key, RoundKey, since=proposal.canonical)
        size = body_bytes(counts_of(proposal), proposal.encryption)
        request = SumRequest(
            plan=evidence.plan,
            commitments=evidence.commitments,
            attestations=evidence.attestations,
            pad_commitments=evidence.pad_commitments,
            body=self._fetched(proposal, number, "sum", size),
        )
        checked = check_sum_request(proposal, key, request)
        opening = open_sealed(
            evidence.opening, "opening", proposal.keyholder.public_key, Opening, since=proposal.canonical
        )
        about = (proposal.study, number, checked.list_hash, checked.sum_hash)
        if checked.round != number or (opening.study, opening.round, opening.list_hash, opening.sum_hash) != about:
            raise Refused(f"the opening of round {number} is of another study, round, list or sum")
        body = self._fetched(proposal, number, "opening", opening_bytes(proposal))
        if sha256_hex(body) != opening.body_hash:
            raise Refused("the opening does not have the hash that the keyholder signed")
        published, sums, salts = split_opening(proposal, body)
        third = self._fetched(proposal, number, "pads", shares.sum_bytes(counts_of(proposal), proposal.encryption))
        self._check_sums(proposal, checked, evidence, {**sums, shares.MISSING_PART: third}, salts)
        public = self._fetched(proposal, number, "key", ckks.public_key_bytes(proposal.encryption))
        if sha256_hex(public) != key.key_hash:
            raise Refused("the orchestrator sent another public key than the keyholder signed")
        check_public_key(proposal, number, public)
        secret = ckks.secret_of(published, public, proposal.encryption)
        parts = [shares.from_bytes(s, counts_of(proposal), proposal.encryption) for s in (*sums.values(), third)]
        bare = shares.subtract(checked.ciphertexts, parts, proposal.encryption)
        integers = integers_of(proposal, secret, bare, checked.contributors)
        if sha256_hex(integers) != opening.integers_hash:
            raise Refused("the keyholder signed other integers than key, sum and pad sums give")
        return integers

    def _check_sums(
        self,
        proposal: Proposal,
        checked: CheckedSum,
        evidence: RoundEvidence,
        sums: Mapping[int, bytes],
        salts: Mapping[int, bytes],
    ) -> None:
        """Check every pad sum: all listed sites vouch for it.

        In rounds from before sites did, a pad sum has to be the one that a helper signed; whose word is missing is
        journaled.
        """
        if checked.vouched is not None:
            for part, data in sums.items():
                total = shares.from_bytes(data, counts_of(proposal), proposal.encryption)
                if not checked.vouched.fits(part, total, proposal.encryption, salts[part]):
                    raise Refused(f"pad sum {part} is not the one that the hospitals of the list vouch for")
            return
        hashes = {part: sha256_hex(data) for part, data in sums.items()}
        seen = set()
        for helper in proposal.helpers:
            signed = next((s for s in evidence.helped if s.public_key == helper.public_key), None)
            if signed is None:
                continue
            said = open_sealed(signed, "pads", helper.public_key, PadSums, since=proposal.canonical)
            about = (said.study, said.round, said.list_hash)
            if about != (proposal.study, checked.round, checked.list_hash):
                raise Refused(f"{helper.name} answered another list than the keyholder")
            for part in parts_of(proposal, helper.name):
                if said.parts.get(str(part)) != hashes[part]:
                    raise Refused(f"{proposal.keyholder.name} and {helper.name} know different pad sums of part {part}")
            seen.add(helper.name)
        missing = [helper.name for helper in proposal.helpers if helper.name not in seen]
        if len(missing) == len(proposal.helpers):
            raise Refused("no helper confirmed a pad sum of the round")
        if missing:
            entry = {"study": proposal.study, "round": checked.round, "helpers": missing}
            self.journal.append(UNCONFIRMED, entry)

    def _fetched(self, proposal: Proposal, number: int, what: str, size: int) -> bytes:
        if what in self.files:
            return self.files[what]
        return self.client.get_bytes(f"/studies/{proposal.study}/rounds/{number}/opened/{what}", max_bytes=size)
