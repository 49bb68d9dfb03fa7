"""A server's rule of one's own in live rounds, with real sandboxes for it, and in the simulation."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.live_study import WorkersHere, _dataset
from support.played import Played

import tessera
from datasites.data.ingest import ingest
from datasites.data.synthetic import SyntheticShape, generate
from datasites.hospital.rounds.models import FOLLOWED
from datasites.review.accounts import Account
from datasites.review.environment import code_hash
from datasites.review.policy import SandboxPolicy
from datasites.strategy.own_step import InThisProcess
from datasites.study.signing import dump, seal
from datasites.worker.pool import WorkerPool
from datasites.worker.rule import sandboxed_rules
from datasites.worker.trainer import SandboxedTrainer
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.sites import make_sites, offer, patients, simulated_membership
from orchestrator.studies.proposing.brought import Brought
from orchestrator.studies.proposing.own_code import with_rule
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import StudySettings
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput
from privacy.identity import Identity
from tessera.own_code import rule_of

TABLES = generate(seed=4, shape=SyntheticShape(patients={"BRCA": 60, "LUSC": 60, "LIHC": 60}))
SETTINGS = StudySettings(
    study="own-rule", purpose="Whether it works.", legal_basis="Synthetic patients.", task="early-late", rounds=2,
    epsilon=4.0, noise="shared", seed=11, min_sites=3, steps_per_round=1, helpers=0,
)  # fmt: skip


class FedYogi(tessera.ServerStep):
    """As published."""

    def step(self, model: Any, mean_update: Any, state: Any) -> Any:
        first = 0.9 * state.get("first", np.zeros_like(model)) + 0.1 * mean_update
        square = mean_update**2
        past = state.get("second", np.full_like(model, 1e-6))
        state["first"], state["second"] = first, past - 0.01 * square * np.sign(past - square)
        return model + self.rate * first / (np.sqrt(state["second"]) + 1e-3)


@pytest.fixture
def pool(warm_here: None) -> Iterator[WorkerPool]:
    with WorkerPool(SandboxPolicy()) as made:
        yield made


def approve(hospital: Any, signed: Any, files: dict[str, bytes]) -> None:
    """Have two people of a hospital approve a study that brings code."""
    folder, now = hospital.home.folder / "code", dt.datetime.now(dt.UTC)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    policy = hospital.approvals.policy
    study = policy.study.model_copy(update={"allow_free_python": True})
    hospital.approvals.policy = policy.model_copy(update={"study": study})
    found = hospital.approvals.receive(signed, folder, now=now)
    for role in ("steward", "privacy-officer"):
        key = Identity.generate()
        who = Account(name=f"{role}-{hospital.participant.site}", role=role, public_key=key.public_key)
        found = hospital.approvals.approve(found.proposal_hash, reviewer=who, key=key, now=now)
    hospital.client.post_json(f"/studies/{found.proposal.study}/approvals", dump(found.approval))


def test_live_rounds_with_an_own_rule_give_the_model_of_the_simulation(tmp_path, pool):
    files = with_rule({}, rule_of(FedYogi(rate=0.05)))
    brought = Brought(tree=files)
    plan = ingest(TABLES, tmp_path / "dealt", federation="tri-modal", task="early-late", seed=5, sites=3)
    everyone = patients(TABLES, "early-late", plan.cohorts)
    with Played(tmp_path, sites=len(plan.sites), names=[site.name for site in plan.sites]) as played:
        played.open()
        offers = [replace(offer(everyone, plan, s), party=played.homes[s.name].party()) for s in plan.sites]
        proposal, model = build_proposal(
            SETTINGS, offers, orchestrator=played.roster.orchestrator, keyholder=played.roster.keyholder,
            code=brought.code, brought=brought,
        )  # fmt: skip
        assert proposal.own_server_rule and proposal.environment.code_hash == code_hash()
        with pytest.raises(InvalidInput, match="no such blob"):
            played.register(proposal, model)  # its code is not here yet
        for data in files.values():
            played.client.put_bytes(f"/blobs/{sha256_hex(data)}", data)
        played.register(proposal, model)
        for index, (hospital, made) in enumerate(zip(played.hospitals, offers, strict=True)):
            name = made.party.name
            home = hospital.home.folder
            trainer = SandboxedTrainer(
                site=name, pool=WorkersHere(), folder=tmp_path / "jobs" / name, code_of=lambda _, f=home: f / "code"
            )
            sandboxed = sandboxed_rules(pool, tmp_path / "rules", lambda _, f=home: f / "code")
            here = InThisProcess(folder=home / "code")
            hospital.participant = replace(
                hospital.participant,
                train=trainer,
                build=trainer.initial_model,
                rule_of=sandboxed if index == 0 else lambda _, h=here: h,
                dataset=_dataset(made.dataset, tmp_path / "dealt" / "sites" / name),
            )
            approve(hospital, seal(played.identity, "proposal", proposal), files)
        status = played.play("own-rule")
        assert status["state"] == "finished", (status["reason"], played.failures[-3:])
        for hospital in played.hospitals:
            played.step(hospital.participant.site)  # it recomputes the last model once the study is over
            [followed] = hospital.participant.journal.entries(kind=FOLLOWED)
            assert followed.body["model_hash"] == status["checkpoints"][-1]["model_hash"]
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, data in files.items():
        (tree / name).write_bytes(data)
    sites, _ = make_sites(everyone, plan, lambda site: simulated_membership(11, site))
    last = list(run_study(proposal, model, Shard(proposal, sites, tree), tree))[-1]
    assert sha256_hex(last.model) == status["checkpoints"][-1]["model_hash"]
