"""The liar's stage with two real helpers: every party's step can be told wrongly, left out, or told twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.consortium import Consortium, Hospital
from support.liar import LENGTH, SITES, Liar, Stage

from datasites.helper.custody import PadCustody
from datasites.helper.daemon import Helper
from datasites.hospital.rounds.beginnings import Beginning
from datasites.hospital.rounds.published import PublishedRounds
from datasites.keyholder.custody import KeyCustody
from datasites.keyholder.daemon import Keyholder
from datasites.keyholder.opened import counts_of
from datasites.keyholder.vouched import commitments_hash, opened_commitments
from datasites.study.messages import Attestation, Commitments, Opening, PadSums, Refusal, RoundKey, UpdateHeader, Void
from datasites.study.recomputed.chain import RoundEvidence
from datasites.study.signing import Signed, parse, seal
from privacy.canonical import sha256_hex
from privacy.encryption import ciphertexts, pad_tags, pads, shares, tags
from privacy.ledger.journal import Journal

List = tuple[Signed, list[Signed]]
"""A list that was fixed, and its sites' signatures under it."""
H, J = "helper-0", "helper-1"
ALL = (0, 1, 2, 3)


class HelpedStage(Stage):
    """One round with helpers ``H`` and ``J``."""

    def __init__(self, consortium: Consortium, liar: Liar, keyholder: Keyholder, folder: Path, number: int = 1) -> None:
        super().__init__(consortium, liar, keyholder, number)
        self.folder = folder
        self.commitments: dict[str, dict[str, Signed]] = {}
        self.helpers = {name: self.opened_helper(name) for name in consortium.helpers}
        for name in consortium.helpers:
            self.offer_key(name)

    # roles that start ------------------------------------------------------------------------------------------

    def opened_helper(self, name: str) -> Helper:
        home = self.consortium.homes[name]
        journal = Journal(self.folder / f"{name}.sqlite", home.identity())
        custody = PadCustody(self.folder / f"{name}-rounds", home.identity())
        return Helper(home=home, client=self.liar, custody=custody, journal=journal, queue=None)  # type: ignore[arg-type]

    def offer_key(self, name: str) -> None:
        self.helpers[name].handle(self.item("key"))
        self.helper_keys[f"key/{name}"] = self.liar.sent["helper-key"][-1]

    def restart_helper(self, name: str) -> None:
        self.helpers[name].journal.close()
        self.helpers[name] = self.opened_helper(name)

    def restart_keyholder(self) -> None:
        """Start the keyholder anew; what lies under its folder may have been restored before."""
        self.keyholder.custody.close()
        custody = KeyCustody(self.folder / "keys", self.keyholder.home.identity())
        self.keyholder = replace(self.keyholder, custody=custody)

    def restart_hospital(self, index: int) -> None:
        """Start a hospital anew: its files are all there."""
        hospital = self.consortium.hospitals[index]
        again = replace(hospital.participant, sent_now={}, beginning=Beginning())
        self.consortium.hospitals[index] = Hospital(
            home=hospital.home, url="", participant=again, approvals=hospital.approvals
        )

    def forget_upload(self, index: int) -> None:
        """Restore a hospital to before its upload of the round, and start it anew."""
        home, journal = self.consortium.hospitals[index].home, self.consortium.hospitals[index].participant.journal
        (home.round_folder(self.proposal.study, self.number) / "header.json").unlink()
        journal.by_round("update-encrypted")
        journal._looked["update-encrypted"][1].pop((self.proposal.study, self.number))  # it lacks the entry
        self.restart_hospital(index)

    def arrive(self, index: int) -> Signed:
        """Ask a hospital that was started anew to train; return what it says instead."""
        assert not self.train(index)
        return self.liar.sent["arrival"][-1]

    def ask_clearance(self, name: str, arrival: Signed) -> Signed | None:
        """Return what keyholder or helper says about a hospital that was started anew, or None where it refused."""
        before = len(self.liar.sent["clearance"])
        role = self.keyholder if name == "keyholder" else self.helpers[name]
        role.handle(self.item("clear", {"arrival": arrival}))
        return self.liar.sent["clearance"][-1] if len(self.liar.sent["clearance"]) > before else None

    def train_cleared(self, index: int, *names: str, **false: Signed) -> bool:
        """Return whether a hospital that was started anew sends an update, once it was told what others know.

        Args:
            index: which hospital.
            names: who is asked; nobody named: all three.
            false: what others say instead of the truth, by party.
        """
        arrival = self.arrive(index)
        said = {name: self.ask_clearance(name, arrival) for name in names or ("keyholder", H, J)} | false
        documents = {f"clearance/{name}": signed for name, signed in said.items() if signed is not None}
        return self.train(index, more={"arrival": arrival, **documents})

    def close(
        self,
        *,
        body: bytes | None = None,
        updates: list[Signed] | None = None,
        attest: tuple[int, ...] = ALL,
        closing: int = 1,
        documents: Mapping[str, Signed] | None = None,
        committing: tuple[str, ...] = ("keyholder", H, J),
    ) -> List:
        """Fix a list, have ``committing`` commit to its pad sums, and ask for attestations."""
        sealed, _ = super().close(body=body, updates=updates, attest=(), closing=closing)
        self.commitments[sealed.signature] = shown = self.committed(sealed, *committing)
        return sealed, self.attested(sealed, attest, {**shown, **(documents or {})})

    def committed(self, sealed: Signed, *names: str) -> dict[str, Signed]:
        """Return what parties commit to about a list, as documents of a work item; who refuses is missing."""
        documents = {"plan": self.plan, "key": self.key, "commitments": sealed}
        for name in names:
            before = len(self.liar.sent["pad-commitment"])
            role = self.keyholder if name == "keyholder" else self.helpers[name]
            role.handle(self.item("commit", documents))
            for signed in self.liar.sent["pad-commitment"][before:]:
                documents[f"commitment/{name}"] = signed
        return {place: signed for place, signed in documents.items() if place.startswith("commitment/")}

    def attested(self, sealed: Signed, sites: tuple[int, ...], documents: Mapping[str, Signed]) -> list[Signed]:
        """Return the signatures of sites that are asked to sign a list."""
        before = len(self.liar.sent["attestation"])
        for i in sites:
            self.consortium.hospitals[i].participant.handle(self.item("attest", {"commitments": sealed, **documents}))
        return self.liar.sent["attestation"][before:]

    def shown(self, closed: List) -> dict[str, Signed]:
        """Return the commitments that the sites of a list were shown."""
        return dict(self.commitments.get(closed[0].signature, {}))

    # lists -----------------------------------------------------------------------------------------------------

    def listed(self, *sites: int, asked: tuple[int, ...] | None = None, **named: Any) -> List:
        """Fix the list of these sites and of the true sum, and ask those ``asked`` (all of them) to sign it."""
        names = [f"site-{i}" for i in sites]
        body = self.sum_of([self.bodies[name] for name in names])
        updates = [self.updates[name] for name in names]
        return self.close(body=body, updates=updates, attest=sites if asked is None else asked, **named)

    def ask_pads(self, name: str, closed: List) -> Signed | None:
        """Return a helper's answer to a list, or None where it refused."""
        before = len(self.liar.sent["pads"])
        documents = {"plan": self.plan, "key": self.key, "commitments": closed[0], **self.shown(closed)}
        self.helpers[name].handle(self.item("pads", documents, closed[1]))
        if len(self.liar.sent["pads"]) == before:
            return None
        signed, body = self.liar.sent["pads"][-1]
        self.liar.blob(body)
        return signed

    def answers(self, closed: List, *names: str) -> dict[str, Signed]:
        found = {f"pads/{name}": self.ask_pads(name, closed) for name in names or (H, J)}
        return self.shown(closed) | {place: signed for place, signed in found.items() if signed is not None}

    def ask_void(self, name: str, closed: List) -> Signed | None:
        """Return a party's void of a list, or None where it refused."""
        before = len(self.liar.sent["void"])
        role = self.keyholder if name == "keyholder" else self.helpers[name]
        role.handle(self.item("void", {"commitments": closed[0]}))
        return self.liar.sent["void"][-1] if len(self.liar.sent["void"]) > before else None

    def voids(self, closed: List, *names: str) -> dict[str, Signed]:
        found = {f"void/1/{name}": self.ask_void(name, closed) for name in names or ("keyholder", H, J)}
        return {place: signed for place, signed in found.items() if signed is not None}

    def false_void(self, name: str, closed: List, **changes: Any) -> Signed:
        """Return a void that a lying party signs whatever it answered."""
        listed = parse(Commitments, dict(closed[0].payload))
        held = self.key if name == "keyholder" else self.helper_keys[f"key/{name}"]
        void = Void(
            study=listed.study,
            round=listed.round,
            list_hash=listed.list_hash,
            party=name,
            pad_key_hash=sha256_hex(str(held.payload["pad_key"]).encode()),
        )
        return seal(self.consortium.homes[name].identity(), "void", replace(void, **changes))

    def forged(self, index: int, closed: List) -> Signed:
        """Return what a hospital that lies signs under any list: its true tags, and no list that it signed before."""
        listed, name = parse(Commitments, dict(closed[0].payload)), f"site-{index}"
        blocks = ciphertexts.unpack(self.bodies[name], counts_of(self.proposal), self.proposal.encryption)
        challenge = tags.challenges(listed.list_hash, listed.sum_hash)
        shown = opened_commitments(self.proposal, listed, self.shown(closed).values()) if self.shown(closed) else {}
        digest = commitments_hash(self.proposal, shown)
        own = self.consortium.hospitals[index].participant.sent_now[(listed.study, listed.round)].own
        masked = pad_tags.pad_challenge(listed.list_hash, listed.sum_hash, digest)
        attestation = Attestation(
            study=listed.study,
            round=listed.round,
            plan_hash=listed.plan_hash,
            list_hash=listed.list_hash,
            sum_hash=listed.sum_hash,
            site=name,
            tags=tuple(map(str, tags.tag(blocks, challenge, self.proposal.encryption))),
            pad_tags=own.tags(listed.list_hash, masked, self.proposal.encryption),
            pad_commitments=digest,
        )
        return seal(self.consortium.homes[name].identity(), "attestation", attestation)

    # answers ---------------------------------------------------------------------------------------------------

    def read(self, closed: List, *helping: str) -> np.ndarray | None:
        """Return what the keyholder decrypts of a list with the answers of these helpers (both)."""
        return self.decrypt(*closed, documents=self.answers(closed, *helping))

    def published(self, closed: List, *helping: str) -> RoundEvidence:
        """Answer a list, and show what everybody is shown of it; the bytes lie in ``liar.opened``."""
        documents = self.answers(closed, *helping)
        assert self.decrypt(*closed, documents=documents) is not None
        helped = {place: signed for place, signed in documents.items() if place.startswith("pads/")}
        opening, body = self.liar.sent["opening"][-1]
        result, _ = self.liar.sent["result"][-1]
        listed = parse(Commitments, dict(closed[0].payload))
        self.liar.opened = {
            "sum": self.liar.blobs[listed.sum_hash],
            "opening": body,
            "pads": self.liar.blobs[next(iter(helped.values())).payload["parts"]["3"]],
            "key": self.liar.blobs[parse(RoundKey, dict(self.key.payload)).key_hash],
        }
        return RoundEvidence(
            plan=self.plan,
            commitments=closed[0],
            result=result,
            key=self.key,
            opening=opening,
            helped=tuple(helped.values()),
            attestations=tuple(closed[1]),
            pad_commitments=tuple(self.shown(closed).values()),
        )

    def recompute(self, evidence: RoundEvidence) -> bytes:
        """Return what a hospital recomputes from what it is shown."""
        participant = self.consortium.hospitals[0].participant
        rounds = PublishedRounds(client=self.liar, journal=participant.journal)  # type: ignore[arg-type]
        return rounds.integers(self.proposal, self.number, evidence)

    def opening(self, evidence: RoundEvidence, body: bytes, **changes: Any) -> RoundEvidence:
        """Return evidence with another opening that the keyholder signed."""
        assert evidence.opening is not None
        self.liar.opened["opening"] = body
        said = parse(Opening, dict(evidence.opening.payload))
        changed = replace(said, body_hash=sha256_hex(body), **changes)
        return replace(evidence, opening=seal(self.keyholder.home.identity(), "opening", changed))

    def pads_said(self, name: str, evidence: RoundEvidence, **parts: str) -> RoundEvidence:
        """Return evidence in which a helper signed other hashes."""
        key = self.consortium.homes[name].identity()
        helped = []
        for signed in evidence.helped:
            said = parse(PadSums, dict(signed.payload))
            if said.helper == name:
                signed = seal(key, "pads", replace(said, parts={**said.parts, **parts}))
            helped.append(signed)
        return replace(evidence, helped=tuple(helped))

    # what coalitions hold --------------------------------------------------------------------------------------

    def seeds(self, site: str, holder: str) -> dict[int, bytes]:
        """Return the seeds of a site that a holder opens with its own private key of the round."""
        header = parse(UpdateHeader, dict(self.updates[site].payload))
        label = pads.PadLabel(
            study=header.study, round=header.round, plan_hash=header.plan_hash, site=site, holder=self.key_of(holder)
        )
        if holder == "keyholder":
            key = parse(RoundKey, dict(self.key.payload))
            private = self.keyholder.custody._keys.load(key)[: pads.HYBRID_PRIVATE_BYTES]
            return shares.split(pads.open_seed(header.pad, private, label, seeds=2), shares.KEYHOLDER_PARTS)
        private = self.helpers[holder].custody._rounds[(header.study, header.round)].private
        parts = shares.HELPER_PARTS[self.consortium.helpers.index(holder)]
        return shares.split(pads.open_seed(header.helper_pads[holder], private, label, seeds=2), parts)

    def key_of(self, name: str) -> str:
        return self.consortium.homes[name].identity().public_key

    def secret(self) -> bytes:
        """Return the round's secret key, as the keyholder holds it before it answers."""
        return self.keyholder.custody._keys.load(parse(RoundKey, dict(self.key.payload)))[pads.HYBRID_PRIVATE_BYTES :]

    def single(self, site: str, seeds: Mapping[int, bytes]) -> dict[str, list[bytes]]:
        """Return one site's ciphertexts, which the orchestrator has, without the pads of these seeds."""
        counts = counts_of(self.proposal)
        blocks = ciphertexts.unpack(self.bodies[site], counts, self.proposal.encryption)
        sums = [
            shares.part_sum({site: seed}, {"shared": [site]}, counts, self.proposal.encryption)
            for seed in seeds.values()
        ]
        return shares.subtract(blocks, sums, self.proposal.encryption)

    def refusal(self, party: str) -> str:
        return self.liar.reasons(party)[-1]

    def wanted(self) -> tuple[str, ...]:
        return parse(Refusal, dict(self.liar.sent["refusal"][-1].payload)).wants


@pytest.fixture(scope="module")
def helped_consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with Consortium(tmp_path_factory.mktemp("helped"), sites=SITES, helpers=2) as made:
        made.open_hospitals()
        yield made


@pytest.fixture
def helped(helped_consortium: Consortium, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HelpedStage]:
    consortium = helped_consortium
    changes = {"rounds": 2, **getattr(request, "param", {})}
    name = f"help-{sha256_hex(request.node.name.encode())[:12]}"
    proposal = consortium.proposal(name, length=LENGTH, **changes)
    liar, real = Liar(consortium, proposal), consortium.hospitals
    consortium.hospitals = [
        Hospital(home=h.home, url="", participant=replace(h.participant, client=liar), approvals=h.approvals)  # type: ignore[arg-type]
        for h in real
    ]
    for hospital in consortium.hospitals:
        hospital.approve(seal(consortium.identity, "proposal", proposal))
    home = consortium.homes["keyholder"]
    custody, journal = KeyCustody(tmp_path / "keys", home.identity()), Journal(tmp_path / "k.sqlite", home.identity())
    keyholder = Keyholder(home=home, client=liar, custody=custody, journal=journal, queue=None)  # type: ignore[arg-type]
    stage = HelpedStage(consortium, liar, keyholder, tmp_path)
    yield stage
    with contextlib.suppress(Exception):
        stage.keyholder.custody.close()
    journal.close()
    for helper in stage.helpers.values():
        helper.journal.close()
    consortium.hospitals = real
