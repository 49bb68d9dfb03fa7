"""Features of unknown scale: the first three rounds release means, finer means and spreads to divide by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasites.data.federations import build
from datasites.data.synthetic import SyntheticShape, generate
from datasites.data.tcga.preprocessing import unscaled
from datasites.study.recomputed.centring import first_training_round, moment_of, spreads_from
from datasites.study.recomputed.next_model import model_from_bytes
from models.config import CENTRES, SPREADS, InvalidModel
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.sites import patients, simulated_study
from orchestrator.studies.proposing.schedule import with_schedule
from orchestrator.studies.proposing.settings import StudySettings
from privacy.errors import InvalidInput

torch.set_num_threads(1)
COHORTS = ("BRCA", "LUSC", "LIHC")
SHAPE = SyntheticShape(patients={"BRCA": 90, "LUSC": 80, "LIHC": 80}, genes=20, image_features=40, signal=0.6)
SETTINGS = StudySettings(
    study="standardised", purpose="p", legal_basis="l", task="early-late", rounds=4, steps_per_round=1, epsilon=None,
    seed=4, centred=True, standardised=("image",), weight_decay=0.0, learning_rate=40.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def everyone():
    """Patients whose slide features nobody knows by name, of scales that differ tenfold."""
    tables = generate(seed=1, shape=SHAPE)
    found = patients(tables, "early-late", COHORTS)
    scales = np.logspace(-1.3, -0.3, SHAPE.image_features)
    values = (found.arrays["image"] * scales + 1.5 * np.sign(scales - 0.2)).astype(np.float32)
    here = found.arrays["presence"][:, 1:2]
    return tables, replace(found, arrays={**found.arrays, "image": values * here}, unscaled=("image",))


def study(everyone, settings=SETTINGS):
    tables, found = everyone
    return simulated_study(found, build("tri-modal", tables, task="early-late", seed=2), settings)


def test_without_noise_every_feature_that_varies_ends_with_about_the_same_spread(everyone):
    made = study(everyone)
    third = next(r for r in run_study(made.proposal, made.model, Shard(made.proposal, made.sites)) if r.plan.round == 3)
    arrays = model_from_bytes(third.model)
    assert not arrays["branches.image.weight"].any()
    holders = [site for site in made.sites if "image" in site.modalities]
    values = np.concatenate([s.records["image"][s.records["presence"][:, 1] > 0].numpy() for s in holders])
    gain = made.proposal.model.gain("image") / np.sqrt(SHAPE.image_features)
    left = (values * gain - arrays[CENTRES + "image"]) / arrays[SPREADS + "image"] / gain
    before, after = values.std(axis=0), left.std(axis=0)
    varied = before > 0.25 * before.mean()
    assert varied.sum() > 20
    assert np.median(after[varied]) == pytest.approx(1.0, abs=0.3)
    assert after[varied].std() / after[varied].mean() < 0.5 * before[varied].std() / before[varied].mean()
    assert after.max() < 3.0  # what hardly varies is not blown up


def test_a_schedule_makes_room_for_the_rounds_and_charges_them(everyone):
    plain = with_schedule(replace(SETTINGS, standardised=(), epsilon=8.0, noise="shared"), None)
    settings = with_schedule(replace(SETTINGS, epsilon=8.0, noise="shared"), None)
    assert settings.rounds == plain.rounds + 2
    made = study(everyone, settings).proposal
    assert made.mechanism.epsilon() == pytest.approx(8.0, rel=0.01)
    assert (moment_of(made.model, 2), moment_of(made.model, 3), moment_of(made.model, 4)) == (
        "remainders",
        "spreads",
        None,
    )
    assert first_training_round(made) == 4
    blended = replace(SETTINGS, standardised=("image",), epsilon=8.0, aggregation="dgb")
    assert with_schedule(blended, None).standardised == ()


def test_what_cannot_be_standardised_is_refused(everyone):
    with pytest.raises(InvalidInput, match="at least four rounds"):
        study(everyone, replace(SETTINGS, rounds=3))
    with pytest.raises(InvalidModel, match="only modalities of a centred model"):
        study(everyone, replace(SETTINGS, standardised=("sound",)))


def test_spreads_that_noise_drowns_fall_back_to_the_usual_one():
    assert set(spreads_from(np.array([-1.0, 0.2], np.float32)).tolist()) == {np.float32(0.2).item()}
    found = spreads_from(np.array([0.001, 1.0, 1.0], np.float32))
    assert found[1] > found[0] > 0


def test_only_names_of_no_known_kind_are_without_constants():
    assert unscaled(["AREA..MM2.", "uni_v1:0001"])
    assert not unscaled(["AREA..MM2.", "map:1.2.0"])
