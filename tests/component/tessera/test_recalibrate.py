"""A model is calibrated at a hospital on its own held-out patients: it stays there, and the file says so."""

from __future__ import annotations

import datetime as dt
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.pilot_study import proposal

import tessera
from datasites.data.dataset import case_ids, membership, read_schema
from datasites.data.ingest import ingest
from datasites.data.synthetic import SyntheticShape, generate
from datasites.node.home import Config, Home
from datasites.node.joining.rotating import rotate
from datasites.study.proposal import Proposal
from datasites.study.recomputed.released_numbers import VALIDATION
from datasites.study.streams import membership_secret
from orchestrator.cli import main
from privacy.identity import Identity
from tessera.trained.at_hospital import ALL, HELD_OUT, NEVER, recalibrated

TABLES = generate(seed=0, shape=SyntheticShape(patients={"BRCA": 600, "LUSC": 120, "LIHC": 120}))


@pytest.fixture(scope="module")
def model() -> tessera.Model:
    return tessera.Study("here", epsilon=8, rounds=2).simulate(sites=3, patients=300, progress=False, jobs=1).model


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("hospital")
    ingest(TABLES, folder / "dealt", federation="tri-modal", task="early-late", seed=5, sites=3)
    config = Config(name="alba", institution="Hospital Alba", role="datasite", orchestrator_url="http://127.0.0.1:9")
    (folder / "home").mkdir()
    Identity.from_seed(b"alba".ljust(32, b".")).save(folder / "home" / "identity.pem")  # else another fifth each time
    made = Home.create(folder / "home", config)
    shutil.copytree(folder / "dealt" / "sites" / "brca-1", made.folder / "datasets" / "stages" / "v1")
    return made


def test_all_patients_of_a_hospital_outside_the_study_count(model, home):
    better, said = recalibrated(model, home)
    found = better.facts.calibration
    assert said == NEVER and found is not None and found.confined and found.where == "Hospital Alba"
    assert found.patients == len(case_ids(home.datasets()[0] / "private")) and found.error_after <= found.error_before
    assert better.parameters == model.parameters and model.facts.calibration is None


def under(key: str, study: Proposal) -> Proposal:
    return replace(study, participants=tuple(replace(party, public_key=key) for party in study.participants))


def test_only_those_whom_the_study_kept_out_count_where_it_kept_any_out(model, home, monkeypatch):
    study = under(home.identity().public_key, proposal())
    monkeypatch.setattr("tessera.trained.at_hospital._proposal", lambda *_: study)
    better, said = recalibrated(model, home)
    dataset = study.participant("alba").dataset.name
    secret = bytes.fromhex(membership_secret(home.identity().derive_secret("noise"), dataset))
    trains = membership(case_ids(home.datasets()[0] / "private"), secret, validation=VALIDATION)
    assert said == HELD_OUT and better.facts.calibration.patients == int((~trains).sum()) < len(trains) / 3
    plain = proposal(mechanism=study.mechanism.__class__(**{**vars(study.mechanism), "losses": None}))
    monkeypatch.setattr("tessera.trained.at_hospital._proposal", lambda *_: plain)
    assert recalibrated(model, home)[1] == ALL


def test_a_new_key_of_the_hospital_changes_nobody_who_was_held_out(model, home, tmp_path, monkeypatch):
    study = under(home.identity().public_key, proposal())
    monkeypatch.setattr("tessera.trained.at_hospital._proposal", lambda *_: study)
    before, _ = recalibrated(model, home)
    copy = Home(folder=Path(shutil.copytree(home.folder, tmp_path / "copy")))
    rotate(copy, now=dt.datetime(2026, 3, 1, tzinfo=dt.UTC))
    after, said = recalibrated(model, copy)
    assert said == HELD_OUT and after.facts.calibration == before.facts.calibration
    later = under(Identity.generate().public_key, study)
    monkeypatch.setattr("tessera.trained.at_hospital._proposal", lambda *_: later)
    with pytest.raises(tessera.InvalidInput, match="cannot be drawn again"):
        recalibrated(model, copy)


def test_what_does_not_fit_is_refused(model, home, tmp_path):
    with pytest.raises(tessera.InvalidInput, match="--dataset out of stages"):
        recalibrated(model, home, "others")
    wrong = Home.create(
        tmp_path / "keyholder", Config(name="k", institution="K", role="keyholder", orchestrator_url="http://k")
    )
    with pytest.raises(tessera.InvalidInput, match="a hospital's folder, got one of a keyholder"):
        recalibrated(model, wrong)
    folder = tmp_path / "home" / "datasets" / "stages" / "v1"
    shutil.copytree(home.datasets()[0], folder)
    text = (folder / "schema.json").read_text()
    assert read_schema(folder).task == "early-late"
    (folder / "schema.json").write_text(text.replace("early-late", "I-II"))
    with pytest.raises(tessera.InvalidInput, match="another outcome"):
        recalibrated(model, Home.create(tmp_path / "home", home.config()))


def test_the_command_writes_a_model_that_says_that_it_stays(model, home, tmp_path, capsys, monkeypatch):
    model.save(tmp_path / "model")
    out = tmp_path / "calibrated"
    command = ["tessera", "recalibrate", tmp_path / "model", "--home", home.folder, "--out", out]
    monkeypatch.setattr(sys, "argv", [str(part) for part in command])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0 and "stays at this hospital" in " ".join(capsys.readouterr().err.split())
    card = (Path(out) / "model_card.md").read_text()
    assert "this copy stays where it was made" in " ".join(card.split()) and "Hospital Alba" in card
    assert tessera.load(out).facts.calibration.confined
