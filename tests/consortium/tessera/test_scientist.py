"""A scientist on a machine of her own: her key asks, the orchestrator seals, hospitals see and check who asks."""

from __future__ import annotations

import shutil

import pytest
from support.live_consortium import FILING, SCIENTIST, LiveConsortium
from support.waiting import until

import tessera
from datasites.hospital.proposals import ASKED
from datasites.node.home import Home, address
from datasites.study.requests import opened
from datasites.study.signing import Signed, parse
from orchestrator.studies.status import client_of


@pytest.fixture(scope="module")
def hub(three: LiveConsortium) -> tessera.Hub:
    """What she has: her key, the roster, and the orchestrator's address."""
    folder = three.folder / "laptop"
    folder.mkdir()
    for name in ("identity.pem", "roster.json"):
        shutil.copy(three.scientist.folder / name, folder)
    return tessera.connect(url=address(three.home.folder), identity=folder)


@pytest.fixture(scope="module")
def run(three: LiveConsortium, hub: tessera.Hub) -> tessera.Run:
    study = tessera.Study("hers", epsilon=1, rounds=1, noise="local")
    asked = {"filing": FILING, "purpose": "Whether it works.", "investigator": "Dr. Ada Example"}
    return study.propose(hub, options={"helpers": 0, "min_sites": 3}, progress=False, **asked)


def test_she_sees_hospitals_and_mocks(hub, three):
    assert hub.person == SCIENTIST and list(hub.sites().index) == list(three.sites)
    assert all(case.startswith("MOCK-") for case in hub.dataset("brca-1").mock().index)


def test_her_study_names_her_and_runs_to_its_model(run, hub, three):
    digest = three.hash_of("hers")
    assert run.proposal.scientist == three.scientist.party() and run.state == "waiting"
    steward = three.stewards[three.sites[0]]
    assert steward.has(digest)["proposer"] == SCIENTIST
    for site in three.sites:
        journal = three.hospitals[site].datasite.journal
        until(lambda j=journal: any(e.body["study"] == "hers" for e in j.entries(kind=ASKED)), "it is journaled")
        entry = next(e for e in journal.entries(kind=ASKED) if e.body["study"] == "hers")
        assert (entry.body["scientist"], entry.body["proposal_hash"]) == (SCIENTIST, digest)
    request = parse(Signed, run.status()["request"])
    assert opened(request, three.scientist.party()).proposal_hash == digest
    three.approve(digest)
    assert run.wait(progress=False, timeout_seconds=300).state == "finished"
    assert run.model.facts.origin.proposal_hash == digest and run.reviews["approved"].all()


def test_she_answers_and_withdraws_by_herself(hub, three):
    asked = {"filing": FILING, "purpose": "Not needed after all.", "investigator": "Dr. Ada Example"}
    study = tessera.Study("hers-too", epsilon=1, rounds=1, noise="local")
    made = study.propose(hub, options={"helpers": 0, "min_sites": 3}, progress=False, **asked)
    made.reply(three.sites[0], "It is about stages alone.")
    made.withdraw("Another cohort was found.")
    assert made.state == "withdrawn"
    assert list(made.thread["kind"]) == ["answered", "withdrawn"] and set(made.thread["who"]) == {SCIENTIST}


def test_what_is_not_hers_is_refused(run, three):
    home = Home(folder=three.folder / "laptop")
    with client_of(home) as client:
        for ask in (
            lambda: client.get_json("/work"),
            lambda: client.post_json("/studies", {"proposal": {}, "model_hash": "0" * 64}),
            lambda: client.post_json("/head", {"seen": None, "trouble": ""}),
            lambda: client.post_json("/studies/hers/resume", {}),
            lambda: client.put_bytes("/blobs/" + "0" * 64, b"x"),
        ):
            with pytest.raises(tessera.TesseraError):
                ask()
    assert "first" not in tessera.connect(home.folder).studies().index
