"""A submitted proposal is checked where it lies; nothing of a refused one stays."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from datasites.hospital.proposals import receive_proposal
from datasites.study.signing import dump
from datasites.syft.runner import PROPOSAL_FILE
from privacy.errors import Refused, Tampered


@pytest.fixture
def job(tmp_path, desk, new_proposal):
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "plan.toml").write_bytes(b"architecture = 'linear'\n")
    (folder / PROPOSAL_FILE).write_text(json.dumps(dump(desk.sealed(new_proposal()))))
    return folder


@pytest.fixture
def plans(tmp_path):
    return tmp_path / "plans"


def test_a_good_proposal_is_kept_apart_from_the_job_and_receiving_it_again_changes_nothing(desk, job, plans, now):
    request = receive_proposal(desk.store, job, plans, now=now)
    (job / "plan.toml").write_bytes(b"changed by a later synchronisation")
    assert (request.folder / "plan.toml").read_bytes() == b"architecture = 'linear'\n"
    assert not (request.folder / PROPOSAL_FILE).exists()
    (job / "plan.toml").write_bytes(b"architecture = 'linear'\n")
    assert receive_proposal(desk.store, job, plans, now=now).folder == request.folder
    assert len(list(plans.iterdir())) == 1


def test_nothing_is_copied_before_signature_and_files_are_checked(desk, job, plans, now, tmp_path):
    secret = tmp_path / "records.parquet"
    secret.write_bytes(b"private")
    (job / "link").symlink_to(secret)
    with pytest.raises(Refused, match="link"):
        receive_proposal(desk.store, job, plans, now=now)
    (job / "link").unlink()
    (job / "bomb.bin").write_bytes(bytes(1000))
    with pytest.raises(Refused, match="added"):
        receive_proposal(desk.store, job, plans, now=now)
    (job / "bomb.bin").unlink()
    forged = json.loads((job / PROPOSAL_FILE).read_bytes())
    forged["payload"]["rounds"] += 1
    (job / PROPOSAL_FILE).write_text(json.dumps(forged))
    with pytest.raises(Tampered):
        receive_proposal(desk.store, job, plans, now=now)
    assert not plans.exists()
    assert desk.store.requests() == ()


def test_what_the_review_refuses_is_deleted_again_and_what_it_took_stays(desk, job, plans, now, new_proposal):
    kept = receive_proposal(desk.store, job, plans, now=now).folder
    expired = replace(new_proposal(nonce="7" * 32), expires=now.isoformat())
    (job / PROPOSAL_FILE).write_text(json.dumps(dump(desk.sealed(expired))))
    with pytest.raises(Refused, match="expired"):
        receive_proposal(desk.store, job, plans, now=now)
    assert list(plans.iterdir()) == [kept]
    assert len(desk.store.requests()) == 1
