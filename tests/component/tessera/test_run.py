"""A live study as a scientist sees it: a consortium in one process that trains, encrypts and decrypts for real."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.live_study import WorkersHere, _dataset, _no_code
from support.played import Played

import tessera
from datasites.data.dataset import Schema, read_schema
from datasites.data.federations import build
from datasites.data.ingest import ingest
from datasites.data.publishing import Card
from datasites.data.synthetic import SyntheticShape, generate
from datasites.node.home import Home
from datasites.study.signing import seal
from datasites.worker.trainer import SandboxedTrainer
from models.counter import contributions
from models.counting import Counting
from orchestrator.analytics.columns import Columns
from orchestrator.analytics.questions import Questions
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.sites import make_sites, offer, patients
from orchestrator.studies.evaluation import evaluate_model
from orchestrator.studies.proposing.counting import counting_settings
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import StudySettings
from privacy.canonical import sha256_hex
from tessera.hub import Dataset, Hub
from tessera.live import Run
from tessera.statistics.live import StatisticsRun

SETTINGS = StudySettings(
    study="played", purpose="Whether it works.", legal_basis="Synthetic patients.", task="early-late", rounds=2,
    epsilon=4.0, noise="shared", learning_rate=20.0, seed=11, min_sites=3, steps_per_round=1,
)  # fmt: skip
TABLES = generate(seed=4, shape=SyntheticShape(patients={"BRCA": 60, "LUSC": 60, "LIHC": 60}))
CLINICAL = ["age", "sex", "race", "prior_malignancy", "x_grade", "x_ecog"]


def card(made: Any) -> Card:
    return Card(
        dataset=made.dataset,
        cohort=made.cohort,
        cohorts=made.cohorts,
        task=made.task,
        modalities=made.modalities,
        features=made.features,
    )


def questions_about(schema: Schema) -> Questions:
    columns = Columns(features=schema.features, cohorts=schema.cohorts, task=schema.task, classes=schema.classes)
    return Questions(columns=columns)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("played")
    plan = ingest(TABLES, folder / "dealt", federation="tri-modal", task="early-late", seed=5, sites=3)
    names = [site.name for site in plan.sites]
    with Played(folder, sites=len(names), names=names) as played, pytest.MonkeyPatch.context() as patch:
        played.open()
        everyone = patients(TABLES, "early-late", plan.cohorts)
        offers = [replace(offer(everyone, plan, s), party=played.homes[s.name].party()) for s in plan.sites]
        for hospital, made in zip(played.hospitals, offers, strict=True):
            name = made.party.name
            trainer = SandboxedTrainer(site=name, pool=WorkersHere(), folder=folder / "jobs" / name, code_of=_no_code)
            place = folder / "dealt" / "sites" / name
            hospital.participant = replace(
                hospital.participant,
                train=trainer,
                build=trainer.initial_model,
                dataset=_dataset(made.dataset, place),
            )
        proposal, model = build_proposal(
            SETTINGS, offers, orchestrator=played.roster.orchestrator, keyholder=played.roster.keyholder, code={}
        )
        played.register(proposal, model)
        for hospital in played.hospitals:
            hospital.approve(seal(played.identity, "proposal", proposal))
        assert played.play("played")["state"] == "finished", played.failures[-3:]
        ask = questions_about(read_schema(folder / "dealt" / "sites" / plan.sites[0].name))
        counting = Counting(questions=(ask.counts("cohort", "sex"), ask.means("age"), ask.histogram("age", bins=6)))
        settings = counting_settings(replace(SETTINGS, study="counted", epsilon=1.0), counting)
        counted, zeros = build_proposal(
            settings, offers, orchestrator=played.roster.orchestrator, keyholder=played.roster.keyholder, code={}
        )
        played.register(counted, zeros)
        for hospital in played.hospitals:
            hospital.approve(seal(played.identity, "proposal", counted))
        assert played.play("counted")["state"] == "finished", played.failures[-3:]
        for module in ("tessera.live", "tessera.hub", "orchestrator.studies.run"):
            patch.setattr(f"{module}.client_of", lambda _home, **_: played.signed("orchestrator"))
        hub = Hub(Home(folder=played.homes["orchestrator"].folder), person="Ada")
        for made in offers:
            place = folder / "dealt" / "sites" / made.party.name
            hub._published[made.party.name] = Dataset(
                site=made.party.name,
                institution=made.party.institution,
                card=card(made),
                schema=read_schema(place),
                study_schema=None,
                folder=place / "mock",
            )
        yield Run(hub, "played", test=folder / "dealt" / "test")


class Heard:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, run: Run) -> None:
        self.told.append("begin")

    def round(self, run: Run, number: int, values: Any) -> None:
        self.told.append((number, dict(values)))

    def end(self, run: Run, metrics: Any) -> None:
        self.told.append(dict(metrics))


def test_a_run_says_how_it_stands_and_tells_its_rounds(run):
    heard = Heard()
    assert run.wait(callbacks=[heard], progress=False) is run
    begin, first, second, end = heard.told
    assert (begin, first[0], second[0], first[1]["sites"]) == ("begin", 1, 2, 3.0)
    assert list(run.rounds.index) == [1, 2] and dict(run.rounds.loc[2]) == second[1]
    assert second[1]["step_norm"] > 0 and end == run.metrics and 0 < end["auroc"] < 1
    assert run.state == "finished" and run.reviews["approved"].all() and set(run.by_site()["rounds"]) == {2}
    assert repr(run) == "Run('played', finished, 3 of 3 approved, 2 of 2 rounds)" and "finished" in run._repr_html_()
    assert list(run.thread.columns) == ["at", "who", "kind", "text"]


def test_a_run_is_shown_by_modality_and_by_round(run):
    found = run.by_modality()
    assert list(found.index) == ["mrna", "image", "clinical"] and (found["hospitals"] == 3).all()
    assert found["auroc"].between(0, 1).all() and run.plot()._repr_png_()
    unmeasured = Run(run.hub, "played")
    assert unmeasured.metrics == {} and "auroc" not in unmeasured.by_modality() and unmeasured.plot()._repr_png_()


def test_the_hub_shows_what_hospitals_published(run):
    hub = run.hub
    name = hub.roster.sites[0].name
    assert list(hub.sites().index) == [party.name for party in hub.roster.sites]
    found = hub.dataset(name)
    assert len(found.mock()) == 48 and list(found.mock("mrna")) == list(found.schema.features["mrna"])
    assert hub.dataset(found.name).site == name and set(hub.studies().index) == {"played", "counted"}
    assert hub.run("played").state == "finished" and "Ada" in repr(hub) and name in hub._repr_html_()
    for wrong in (lambda: hub.dataset("nobody"), lambda: found.mock("genes"), lambda: hub.datasets(["nobody"])):
        with pytest.raises(tessera.InvalidInput):
            wrong()


def test_a_live_model_predicts_as_the_orchestrator_scores(run, tmp_path):
    model = run.model
    exact = evaluate_model(run.proposal, model.parameters, run.test)
    assert model.facts.metrics["auroc"] == pytest.approx(exact["auroc"], abs=1e-12)
    assert model.facts.reading == "tables" and model.facts.origin.proposal_hash == run.proposal.proposal_hash
    assert "protects nobody" in model.facts.privacy.statement  # the seed of this study is public
    cohort = TABLES.cohorts["LUSC"]
    frames = {**cohort.modalities, "clinical": cohort.clinical[CLINICAL]}
    again = tessera.load(model.save(tmp_path / "out"))
    assert again.predict_proba(frames, cohort="LUSC").equals(model.predict_proba(frames, cohort="LUSC"))


def test_what_is_not_filed_is_asked_for_by_name(run, monkeypatch):
    monkeypatch.delenv("TESSERA_FILING", raising=False)
    with pytest.raises(tessera.InvalidInput, match=r"cannot be proposed without: .*legal_basis"):
        tessera.Study("unfiled").propose(run.hub, purpose="Why not.", investigator="Dr. Ada", progress=False)


def test_only_the_orchestrators_identity_connects(run, tmp_path):
    home = run.hub.home.folder
    assert repr(tessera.connect(home, person="Ada")).startswith("Hub(")
    keyholder = home.parent / "keyholder"
    with pytest.raises(tessera.InvalidInput, match="folder of an orchestrator"):
        tessera.connect(keyholder)
    with pytest.raises(tessera.InvalidInput, match="expected connect"):
        tessera.connect()
    with pytest.raises(tessera.InvalidInput, match=r"identity\.pem"):
        tessera.connect(url="https://orchestrator.example", identity=tmp_path)


def test_statistics_come_from_an_encrypted_round_and_are_those_of_the_simulation_bit_for_bit(run):
    found = run.hub.run("counted")
    assert isinstance(found, StatisticsRun) and found.wait(progress=False) is found and found.metrics == {}
    proposal, status = found.proposal, found.status()
    plan = build("tri-modal", TABLES, task="early-late", seed=5, sites=3)
    sites, _ = make_sites(patients(TABLES, "early-late", plan.cohorts), plan)
    (done,) = run_study(proposal, found._bytes(status["initial"]["model_hash"]), Shard(proposal, sites))
    assert sha256_hex(done.model) == status["checkpoints"][-1]["model_hash"]
    exact = sum(contributions(site.records, proposal.model.counting.counts).sum(dim=0) for site in sites).numpy()
    counts, means, histogram = found.answers
    off = counts.table["patients"].to_numpy() - exact[: len(counts.table)]
    assert (abs(off) < 5 * counts.noise).all() and abs(off).max() > 0.1
    assert counts.hospitals == 3 and "epsilon 1 at delta 0.0001" in repr(counts) and found.plot()._repr_png_()
    assert means.table["value"].iloc[0] == pytest.approx(60, abs=25) and len(histogram.table) == 7
    assert proposal.mechanism.epsilon() == pytest.approx(1.0, rel=2e-3) and found.table.equals(counts.table)
    assert "patients by cohort, sex" in found._repr_html_() and found.state == "finished"
    with pytest.raises(tessera.TesseraError, match="no model"):
        _ = found.model
