"""A server's rule of the scientist's own, live: reviewed, run in real sandboxes, and followed by every hospital."""

from __future__ import annotations

import numpy as np
from support.live_consortium import FILING, LiveConsortium, until

import tessera
from datasites.hospital.rounds.models import FOLLOWED
from datasites.portal.shown.words import summary
from datasites.study.recomputed.next_model import model_from_bytes
from datasites.worker.child import RULE_HOLDS


class FedYogi(tessera.ServerStep):
    """As published, written by somebody who has Tessera installed and changed nothing in it."""

    def step(self, model, mean_update, state):
        first = 0.9 * state.get("first", np.zeros_like(model)) + 0.1 * mean_update
        square = mean_update**2
        past = state.get("second", np.full_like(model, 1e-6))
        state["first"], state["second"] = first, past - 0.01 * square * np.sign(past - square)
        return model + self.rate * first / (np.sqrt(state["second"]) + 1e-3)


def test_an_own_rule_is_reviewed_and_every_hospital_follows_its_models(three: LiveConsortium, warm_here: None) -> None:
    three.allow_own_code()
    hub = tessera.connect(three.home.folder, person="Ada")
    study = tessera.Study("yogi", epsilon=4, rounds=2, server_step=FedYogi(rate=0.05))
    asked = {"filing": FILING, "purpose": "Whether it works.", "investigator": "Dr. Ada"}
    run = study.propose(hub, options={"helpers": 0}, progress=False, **asked)
    proposal, digest = run.proposal, three.hash_of("yogi")
    assert proposal.own_server_rule and not proposal.own_network
    sentences = summary(proposal, three.sites[0], None)
    assert "own rule for the server" in " ".join(sentences)
    tried = three.approve_code(digest)
    assert all({"what": RULE_HOLDS, "held": True} in trial["checks"] for trial in tried.values()), tried
    assert run.wait(progress=False, timeout_seconds=400).state == "finished"
    checkpoints = run.status()["checkpoints"]
    first, last = (model_from_bytes(run._bytes(c["model_hash"])) for c in checkpoints)
    moved = np.concatenate([(last[name] - first[name]).ravel() for name in sorted(first)])
    assert 0 < np.abs(moved).max() < 0.2

    def followed(site: str) -> list[str]:
        entries = three.hospitals[site].datasite.journal.entries(kind=FOLLOWED)
        return [str(entry.body["model_hash"]) for entry in entries if entry.body["study"] == "yogi"]

    for site in three.sites:  # each recomputes the last model when it hears that the study is over
        until(lambda site=site: followed(site), f"the last model at {site}")  # type: ignore[misc]
        assert followed(site) == [checkpoints[-1]["model_hash"]]
    assert run.model.facts.code == {} and repr(run.model).startswith("Model(linear")
