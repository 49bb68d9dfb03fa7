"""A scientist with a key of her own, over the real mailbox and PySyft: she asks, hospitals check who asks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.live_consortium import FILING, SCIENTIST, idle
from support.live_study import _dataset
from support.played import Played

import tessera
from datasites.data.ingest import ingest
from datasites.data.publishing import CARD, Card
from datasites.data.synthetic import SyntheticShape, generate
from datasites.hospital.proposals import ASKED, check_asked, receive_proposal
from datasites.node.home import Config, Home
from datasites.node.http import SignedClient
from datasites.review.policy import Partner
from datasites.study.signing import dump
from datasites.syft.client import OwnerNode
from datasites.syft.postbox import Postbox
from datasites.syft.runner import nothing_runs
from orchestrator.simulation.sites import offer, patients
from privacy.canonical import plain_json

TABLES = generate(seed=4, shape=SyntheticShape(patients={"BRCA": 60, "LUSC": 60, "LIHC": 60}))
ASKING: dict[str, Any] = {"filing": FILING, "purpose": "Whether it works.", "investigator": "Dr. Ada Example"}


class WithHer(Played):
    """Hospitals called as the sites of a federation, and a scientist in everybody's roster."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        super().__init__(
            folder, sites=len(names), names=names, trainers={i: idle(name) for i, name in enumerate(names)}
        )
        config = Config(name=SCIENTIST, institution="Example Institute", role="scientist", orchestrator_url="")
        self.homes[SCIENTIST] = Home.create(folder / SCIENTIST, config)
        self.roster = replace(self.roster, scientists=(self.homes[SCIENTIST].party(),))
        for home in self.homes.values():
            self.roster.save(home.folder / "roster.json")


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The consortium, its hospitals' PySyft sides, and her door to it."""
    folder = tmp_path_factory.mktemp("hers")
    plan = ingest(TABLES, folder / "dealt", federation="tri-modal", task="early-late", seed=5, sites=3)
    with WithHer(folder, [site.name for site in plan.sites]) as played, ExitStack() as stack:
        played.open()
        everyone, owners, offers = patients(TABLES, "early-late", plan.cohorts), {}, {}
        for site in plan.sites:
            made = offers[site.name] = offer(everyone, plan, site)
            card = Card(dataset=made.dataset, cohort=made.cohort, cohorts=made.cohorts, task=made.task,
                        modalities=made.modalities, features=made.features)  # fmt: skip
            place = folder / "dealt" / "sites" / site.name
            (place / "mock" / CARD).write_bytes(plain_json(dump(card)))
            (place / "mock" / "schema.json").write_bytes((place / "schema.json").read_bytes())
            key_of = lambda name: played.roster.by_name(name).public_key  # noqa: E731
            postbox = Postbox(stack.enter_context(played.signed(site.name)), site.name, key_of)
            asking = [played.roster.orchestrator.name, SCIENTIST]
            owners[site.name] = OwnerNode(folder / "syft" / site.name, postbox, scientists=asking, sandbox=nothing_runs)
            owners[site.name].publish_dataset("stages", mock_path=place / "mock", private_location="here")
        for hospital in played.hospitals:
            place, made = folder / "dealt" / "sites" / hospital.participant.site, offers[hospital.participant.site]
            hospital.participant = replace(
                hospital.participant,
                build=lambda p: played.client.get_bytes(f"/blobs/{p.chain.model_hash}"),
                dataset=_dataset(made.dataset, place),
            )
        patch = stack.enter_context(pytest.MonkeyPatch.context())

        def client(home: Home, **_: Any) -> SignedClient:
            return played.signed(home.config().name)

        for module in ("tessera.live", "tessera.hub", "orchestrator.studies.run", "orchestrator.studies.words"):
            patch.setattr(f"{module}.client_of", client)
        home = played.homes[SCIENTIST].folder
        (home / "config.json").unlink()  # what she has is a key and the roster
        hub = tessera.connect(url="https://orchestrator.example", identity=home)

        def synced(*_: Any) -> bool:
            for owner in owners.values():
                owner.sync()
            return True

        patch.setattr("datasites.syft.client.ScientistNode.wait_for_news", synced)
        yield SimpleNamespace(played=played, owners=owners, hub=hub, home=hub.home)


def received(setting: Any, study: str) -> list[Any]:
    """Let every hospital take what arrived in its PySyft inbox; return their requests."""
    found = []
    for hospital in setting.played.hospitals:
        owner = setting.owners[hospital.participant.site]
        owner.sync()
        for job in owner.pending_jobs():
            check_asked(job, hospital.home.roster(), hospital.participant.journal)
            plans = hospital.home.folder / "plans"
            kept = receive_proposal(hospital.approvals, job.folder, plans, now=dt.datetime.now(dt.UTC))
            owner.approve(job, "received")
            found += [kept] if kept.proposal.study == study else []
    return found


def test_she_sees_hospitals_and_mocks(setting):
    hub = setting.hub
    assert hub.person == SCIENTIST and list(hub.sites().index) == setting.played.names
    assert all(case.startswith("MOCK-") for case in hub.dataset(setting.played.names[0]).mock().index)
    assert setting.home.config().role == "scientist" and tessera.connect(setting.home.folder).person == SCIENTIST


def test_her_study_names_her_and_runs_to_its_model(setting):
    played = setting.played
    study = tessera.Study("hers", epsilon=1, rounds=1, noise="local")
    run = study.propose(setting.hub, options={"helpers": 0, "min_sites": 3}, progress=False, **ASKING)
    her = played.homes[SCIENTIST].party()
    assert run.proposal.scientist == her and run.proposal.custody.downloaders == (SCIENTIST, "orchestrator")
    requests = received(setting, "hers")
    assert len(requests) == 3 and all(r.proposal.scientist == her for r in requests)
    for hospital in played.hospitals:
        policy = hospital.approvals.policy
        with pytest.raises(tessera.Refused, match=f"not confirmed yet: {SCIENTIST}"):
            hospital.approve(played.service.store.study("hers")[0])
        known = Partner(**vars(her))
        hospital.approvals.policy = policy.model_copy(update={"partners": (*policy.partners, known)})
        [entry] = hospital.participant.journal.entries(kind=ASKED)
        assert (entry.body["scientist"], entry.body["study"]) == (SCIENTIST, "hers")
        hospital.approve(played.service.store.study("hers")[0])
    status = played.play("hers")
    assert status["state"] == "finished", (status["reason"], played.failures[-3:])
    assert run.wait(progress=False).state == "finished" and run.reviews["approved"].all()
    assert run.model.facts.origin.proposal_hash == run.proposal.proposal_hash
    [asked] = played.service.journal.entries(kind="study-registered")
    assert asked.body["scientist"] == SCIENTIST


def test_she_answers_and_withdraws_by_herself(setting):
    study = tessera.Study("hers-too", epsilon=1, rounds=1, noise="local")
    run = study.propose(setting.hub, options={"helpers": 0, "min_sites": 3}, progress=False, **ASKING)
    run.reply(setting.played.names[0], "It is about stages alone.")
    run.withdraw("Another cohort was found.")
    assert run.state == "withdrawn"
    assert list(run.thread["kind"]) == ["answered", "withdrawn"] and set(run.thread["who"]) == {SCIENTIST}
    with pytest.raises(tessera.Refused, match="already"):
        run.withdraw("Once more, to be sure.")


def test_what_is_not_hers_is_refused(setting):
    client = setting.played.signed(SCIENTIST)
    for ask in (
        lambda: client.get_json("/work"),
        lambda: client.post_json("/studies", {"proposal": {}, "model_hash": "0" * 64}),
        lambda: client.post_json("/head", {"seen": None, "trouble": ""}),
        lambda: client.post_json("/studies/hers/resume", {}),
        lambda: client.put_bytes("/blobs/" + "0" * 64, b"x"),
    ):
        with pytest.raises(tessera.TesseraError, match=r"not known here|only"):
            ask()
    client.close()
