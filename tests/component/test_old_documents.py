"""Documents that commit 4c19b18 signed: their bytes, hashes and signatures hold, and nothing that was forged does."""

from __future__ import annotations

import json
import tarfile
from typing import Any

import pytest
from support.old_stores import FIXTURE

from datasites.study.messages import RoundPlan
from datasites.study.proposal import Proposal
from datasites.study.signing import parse
from privacy.canonical import canonical_hash, canonical_json
from privacy.errors import InvalidInput, Tampered
from privacy.identity import verify

with tarfile.open(FIXTURE / "stores-4c19b18.tar.xz") as _archive:
    _file = _archive.extractfile("documents.json")
    assert _file is not None
    OLD: dict[str, Any] = json.load(_file)


@pytest.mark.parametrize("name", OLD["documents"])
def test_an_old_document_keeps_its_bytes_hash_and_signature(name: str) -> None:
    old = OLD["documents"][name]
    assert canonical_json(old["payload"], 1).decode() == old["canonical"]
    assert canonical_hash(old["payload"], 1) == old["sha256"]
    signed = old["public_key"], old["kind"], old["payload"], old["signature"]
    if old["valid"]:
        verify(*signed, 1)
    else:
        with pytest.raises(Tampered):
            verify(*signed, 1)
    with pytest.raises((Tampered, InvalidInput)):  # tags of that time are integers that version 2 has no room for
        verify(*signed, 2)  # an old signature holds under no other version


@pytest.mark.parametrize("name", [n for n, d in OLD["documents"].items() if d["kind"] in ("proposal", "round-plan")])
def test_old_proposals_and_plans_keep_the_names_that_approvals_and_noise_hang_on(name: str) -> None:
    old = OLD["documents"][name]
    if old["kind"] == "proposal":
        proposal = parse(Proposal, old["payload"])
        assert (proposal.proposal_hash, proposal.plan_hash) == (old["proposal_hash"], old["plan_hash"])
    else:
        assert parse(RoundPlan, old["payload"]).plan_hash == old["sha256"]


@pytest.mark.parametrize("old", [v for v in OLD["values"] if v["rfc8785"]], ids=lambda old: old["canonical"])
def test_numbers_are_written_as_each_version_says(old: dict[str, Any]) -> None:
    assert canonical_json(old["value"], 1).decode() == old["canonical"]
    assert canonical_json(old["value"], 2).decode() == old["rfc8785"]
