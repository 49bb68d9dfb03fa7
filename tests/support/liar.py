"""The orchestrator as a liar: real hospitals and a real keyholder, to whom a test tells one round step by step.

No network here: the liar answers the others' requests itself and signs whatever it likes with the true key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.consortium import Consortium, Hospital, zeros
from safetensors.numpy import load

from datasites.keyholder.custody import KeyCustody
from datasites.keyholder.daemon import Keyholder
from datasites.study.messages import Commitments, Refusal, RoundKey, RoundPlan, SumResult, WorkItem
from datasites.study.proposal import Proposal
from datasites.study.recomputed.chain import ModelChain, RoundEvidence
from datasites.study.signing import Signed, dump, parse, seal, unpack_envelope
from privacy.canonical import plain_json, sha256_hex
from privacy.encryption import ciphertexts
from privacy.encryption.ciphertexts import RunningSum
from privacy.ledger.journal import Journal

LENGTH, SITES = 700, 4


class Liar:
    """What the orchestrator says and hears, one client for everybody."""

    def __init__(self, consortium: Consortium, proposal: Proposal) -> None:
        self.consortium, self.proposal, self.identity = consortium, proposal, consortium.identity
        self.blobs: dict[str, bytes] = {}
        self.sent: dict[str, list[Any]] = defaultdict(list)
        self.approvals: dict[str, Any] = {}
        self.model_hash = self.blob(zeros(proposal))
        self.chain = ModelChain(proposal, zeros(proposal)) if proposal.chain else None
        self.evidence: dict[int, tuple[RoundEvidence, bytes]] = {}
        self.opened: dict[str, bytes] = {}

    def blob(self, data: bytes) -> str:
        self.blobs[sha256_hex(data)] = data
        return sha256_hex(data)

    def get_bytes(self, path: str, **_: Any) -> bytes:
        if path.endswith("/evidence"):
            return plain_json(dump(self.evidence[int(path.split("/")[-2])][0]))
        if path.endswith("/integers"):
            return self.evidence[int(path.split("/")[-2])][1]
        if "/opened/" in path:
            return self.opened[path.rsplit("/", 1)[1]]
        return self.blobs[path.removeprefix("/blobs/")]

    def get_json(self, path: str, **_: Any) -> Any:
        proposal = dump(seal(self.identity, "proposal", self.proposal))
        return {"proposal": proposal, "approvals": self.approvals}

    def put_bytes(self, path: str, body: bytes, **_: Any) -> Any:
        self.sent[path.rsplit("/", 1)[1]].append(unpack_envelope(body))

    def post_json(self, path: str, value: Any, **_: Any) -> Any:
        if path.endswith("/approvals"):
            self.approvals[value["payload"]["site"]] = value
        else:
            self.sent[path.rsplit("/", 1)[1]].append(parse(Signed, value))

    def close(self) -> None: ...

    def reasons(self, party: str) -> list[str]:
        refusals = [parse(Refusal, dict(s.payload)) for s in self.sent["refusal"]]
        return [r.reason for r in refusals if r.party == party]


class Stage:
    """One round told step by step; every step can be told wrongly."""

    def __init__(self, consortium: Consortium, liar: Liar, keyholder: Keyholder, number: int = 1) -> None:
        self.consortium, self.liar, self.keyholder, self.number = consortium, liar, keyholder, number
        self.proposal = liar.proposal
        keyholder.handle(self.item("key"))
        self.key, public = liar.sent["key"][-1]
        liar.blob(public)
        self.plan = seal(liar.identity, "round-plan", self.round_plan())
        self.bodies: dict[str, bytes] = {}
        self.updates: dict[str, Signed] = {}
        self.helper_keys: dict[str, Signed] = {}

    def item(self, kind: Any, documents: dict[str, Signed] | None = None, attestations: Any = ()) -> WorkItem:
        return WorkItem(
            kind=kind,
            study=self.proposal.study,
            round=self.number,
            closing=1,
            documents=documents or {},
            attestations=tuple(attestations),
        )

    def round_plan(self, **changes: Any) -> RoundPlan:
        plan = RoundPlan(
            study=self.proposal.study,
            proposal_hash=self.proposal.proposal_hash,
            round=self.number,
            model_hash=self.liar.model_hash,
            key_hash=parse(RoundKey, dict(self.key.payload)).key_hash,
            weights={"shared": dict.fromkeys(self.consortium.names, 1.0)},
            scales={"shared": 1.0},
            deadline_seconds=30,
            canonical=self.proposal.canonical,
        )
        return replace(plan, **changes)

    def train(
        self,
        index: int,
        plan: Signed | None = None,
        key: Signed | None = None,
        more: Mapping[str, Signed] | None = None,
    ) -> bool:
        """Return whether hospital ``index`` sent an update; ``more`` are other documents that it is shown."""
        before = len(self.liar.sent["update"])
        documents = {"plan": plan or self.plan, "key": key or self.key, **self.helper_keys, **(more or {})}
        self.consortium.hospitals[index].participant.handle(self.item("train", documents))
        if len(self.liar.sent["update"]) == before:
            return False
        signed, body = self.liar.sent["update"][-1]
        self.updates[f"site-{index}"], self.bodies[f"site-{index}"] = signed, body
        return True

    def train_all(self) -> None:
        for index in range(SITES):
            assert self.train(index)

    def sum_of(self, bodies: list[bytes]) -> bytes:
        chunks = self.proposal.encryption.ciphertexts_for(LENGTH)
        running = RunningSum(self.proposal.encryption, ciphertexts=chunks)
        for body in bodies:
            running.add(ciphertexts.unpack(body, {"shared": chunks}, self.proposal.encryption)["shared"])
        return ciphertexts.pack({"shared": running.to_ciphertexts()})

    def close(
        self,
        *,
        body: bytes | None = None,
        updates: list[Signed] | None = None,
        attest: tuple[int, ...] = (0, 1, 2, 3),
        closing: int = 1,
        documents: Mapping[str, Signed] | None = None,
    ) -> tuple[Signed, list[Signed]]:
        """Fix a list and a sum, and ask for attestations."""
        data = self.sum_of(list(self.bodies.values())) if body is None else body
        commitments = Commitments(
            study=self.proposal.study,
            round=self.number,
            plan_hash=parse(RoundPlan, dict(self.plan.payload)).plan_hash,
            closing=closing,
            updates=tuple(updates if updates is not None else self.updates.values()),
            sum_hash=self.liar.blob(data),
            canonical=self.proposal.canonical,
        )
        sealed = seal(self.liar.identity, "commitments", commitments)
        before = len(self.liar.sent["attestation"])
        for i in attest:
            self.consortium.hospitals[i].participant.handle(
                self.item("attest", {"commitments": sealed, **(documents or {})})
            )
        return sealed, self.liar.sent["attestation"][before:]

    def decrypt(
        self,
        commitments: Signed,
        attestations: list[Signed],
        plan: Signed | None = None,
        documents: Mapping[str, Signed] | None = None,
    ) -> np.ndarray | None:
        """Return the integers, or None where the keyholder refused."""
        before = len(self.liar.sent["result"])
        shown = {"plan": plan or self.plan, "key": self.key, "commitments": commitments, **(documents or {})}
        self.keyholder.handle(self.item("decrypt", shown, attestations))
        if len(self.liar.sent["result"]) == before:
            return None
        signed, integers = self.liar.sent["result"][-1]
        evidence = RoundEvidence(plan=plan or self.plan, commitments=commitments, result=signed)
        self.liar.evidence[self.number] = (evidence, integers)
        assert parse(SumResult, dict(signed.payload)).integers_hash == sha256_hex(integers)
        return load(integers)["shared"]

    def following(self) -> Stage:
        """Return the next round, planned as everybody expects: from the model that follows from this one's answer."""
        assert self.liar.chain is not None
        self.liar.chain.take(*self.liar.evidence[self.number])
        self.liar.model_hash = self.liar.blob(self.liar.chain.model)
        return Stage(self.consortium, self.liar, self.keyholder, number=self.number + 1)

    @property
    def why(self) -> str:
        return self.liar.reasons("keyholder")[-1]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with Consortium(tmp_path_factory.mktemp("liar"), sites=SITES) as made:
        made.open_hospitals()
        yield made


@pytest.fixture
def stage(consortium: Consortium, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    proposal = consortium.proposal(
        f"lie-{sha256_hex(request.node.name.encode())[:12]}",
        length=LENGTH,
        **{"rounds": 2, **getattr(request, "param", {})},
    )
    liar = Liar(consortium, proposal)
    hospitals = []
    for h in consortium.hospitals:
        participant = replace(h.participant, client=liar)  # type: ignore[arg-type]
        hospitals.append(Hospital(home=h.home, url="", participant=participant, approvals=h.approvals))
    real, consortium.hospitals = consortium.hospitals, hospitals
    for hospital in hospitals:
        hospital.approve(seal(consortium.identity, "proposal", proposal))
    home = consortium.homes["keyholder"]
    custody = KeyCustody(tmp_path / "keys", home.identity())
    journal = Journal(tmp_path / "journal.sqlite", home.identity())
    keyholder = Keyholder(home=home, client=liar, custody=custody, journal=journal, queue=None)  # type: ignore[arg-type]
    yield Stage(consortium, liar, keyholder)
    custody.close()
    journal.close()
    consortium.hospitals = real
