"""Updates made by hand, honest or not: what an attacker with a site's key, or without one, can send."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import httpx
import numpy as np
from harness.consortium import Hospital, steps_of
from support.waiting import LONG_SECONDS

from datasites.node.credentials.tokens import make_token
from datasites.node.files import write_atomically
from datasites.study.messages import BlockShape, RoundKey, RoundPlan, UpdateHeader, WorkItem
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, dump, pack_envelope, parse, seal
from privacy.canonical import sha256_hex
from privacy.encryption import ciphertexts, ckks, pads
from privacy.identity import Identity

Blocks = Mapping[str, list[bytes]]


def asked(hospital: Hospital, kind: str, study: str) -> WorkItem:
    """Return what a hospital is asked to do in a study once it is; what others left on the board is passed over."""
    deadline = time.monotonic() + LONG_SECONDS
    while time.monotonic() < deadline:
        for item in hospital.work(wait=0.2):
            if (item.kind, item.study) == (kind, study):
                return item
        time.sleep(0.02)
    raise AssertionError(f"{hospital.participant.site} was not asked to {kind} {study}")


@dataclass(frozen=True, kw_only=True)
class Forger:
    """Makes updates of one hospital for one round and sends them any way it likes."""

    hospital: Hospital
    index: int
    proposal: Proposal
    item: WorkItem
    seed: bytes = field(default_factory=pads.new_seed, repr=False)

    @property
    def identity(self) -> Identity:
        """The hospital's own key."""
        return self.hospital.home.identity()

    @property
    def path(self) -> str:
        """Where updates of this round go."""
        return f"/studies/{self.item.study}/rounds/{self.item.round}/update"

    @property
    def plan(self) -> RoundPlan:
        """The plan of the round."""
        return parse(RoundPlan, dict(self.item.documents["plan"].payload))

    def ciphertexts(self, integers: Mapping[str, np.ndarray] | None = None) -> dict[str, list[bytes]]:
        """Encrypt and pad what the hospital would send, or other integers."""
        key = self.hospital.client.get_bytes(f"/blobs/{self.plan.key_hash}")
        values = integers or {
            b.name: steps_of(self.index, b.name, b.length)
            for b in self.proposal.blocks_of(self.hospital.participant.site)
        }
        bare = {name: ckks.encrypt(key, self.proposal.encryption, v) for name, v in values.items()}
        return pads.pad(bare, self.seed, self.proposal.encryption)

    def header(self, body: bytes, /, **changes: Any) -> UpdateHeader:
        """Return the header of ``body``, with ``changes``."""
        site = self.hospital.participant.site
        encryption = self.proposal.encryption
        header = UpdateHeader(
            study=self.item.study,
            proposal_hash=self.proposal.proposal_hash,
            round=self.item.round,
            plan_hash=self.plan.plan_hash,
            site=site,
            blocks=tuple(
                BlockShape(name=b.name, values=b.length, ciphertexts=encryption.ciphertexts_for(b.length))
                for b in self.proposal.blocks_of(site)
            ),
            body_hash=sha256_hex(body),
            body_bytes=len(body),
            pad=self.sealed_pad,
            releases={},
            journal_head=self.hospital.participant.journal.head.hash,
            ledger_head=self.hospital.participant.ledger.head.hash,
        )
        return replace(header, **changes)

    @cached_property
    def sealed_pad(self) -> str:
        """Return the seed of the hospital's pad, sealed to the keyholder."""
        key = parse(RoundKey, dict(self.item.documents["key"].payload))
        plan, site = self.plan, self.hospital.participant.site
        label = pads.PadLabel(study=plan.study, round=plan.round, plan_hash=plan.plan_hash, site=site)
        return pads.seal_seed(self.seed, key.pad_key, label)

    def envelope(self, blocks: Blocks, /, *, signer: Identity | None = None, **changes: Any) -> bytes:
        """Return a whole upload."""
        return self.envelope_of(ciphertexts.pack(blocks), signer=signer, **changes)

    def envelope_of(self, body: bytes, /, *, signer: Identity | None = None, **changes: Any) -> bytes:
        """Return a whole upload of any bytes."""
        return pack_envelope(self.signed(body, signer=signer, **changes), body)

    def signed(self, body: bytes, /, *, signer: Identity | None = None, **changes: Any) -> Signed:
        """Return the signed header alone."""
        return seal(signer or self.identity, "update", self.header(body, **changes))

    def token(self, body: bytes, *, signer: Identity | None = None, path: str = "") -> str:
        """Return a token for one upload."""
        return make_token(
            signer or self.identity,
            audience=self.proposal.orchestrator.public_key,
            method="PUT",
            target=path or self.path,
            body_hash=sha256_hex(body),
        )

    def send(self, body: Any, token: str | None, path: str = "") -> httpx.Response:
        """Send bytes with any token."""
        headers = {} if token is None else {"Authorization": token}
        url = self.hospital.url + (path or self.path)
        return httpx.put(url, content=body, headers=headers, trust_env=False, timeout=120.0)

    def commit(self, blocks: Blocks, /, **changes: Any) -> httpx.Response:
        """Send ciphertexts and remember them as the hospital's own, so that it will attest them."""
        body = ciphertexts.pack(blocks)
        signed = self.signed(body, **changes)
        folder = self.hospital.home.round_folder(self.item.study, self.item.round)
        write_atomically(folder / "plan.json", json.dumps(dump(self.plan)).encode())
        write_atomically(folder / "update.bin", body)
        write_atomically(folder / "header.json", json.dumps(dump(signed)).encode())
        return self.upload(pack_envelope(signed, body))

    def upload(self, envelope: bytes) -> httpx.Response:
        """Send an upload with a good token."""
        return self.send(envelope, self.token(envelope))


def with_coefficient(ciphertext: bytes, position: int, value: int) -> bytes:
    """Return a ciphertext with one coefficient replaced."""
    changed = bytearray(ciphertext)
    changed[8 * position : 8 * position + 8] = value.to_bytes(8, "little")
    return bytes(changed)


def transparent(ciphertext: bytes) -> bytes:
    """Return a ciphertext whose second polynomial is zero."""
    return ciphertext[: len(ciphertext) // 2] + bytes(len(ciphertext) // 2)


def probing(ciphertext: bytes, scale: int = 1 << 45) -> bytes:
    """Return (0, B): a valid polynomial that makes the decryption depend on the secret key alone."""
    half = len(ciphertext) // 2
    return bytes(half) + scale.to_bytes(8, "little") * (half // 8)
