"""Feature means as a round of their own: of what is clipped, noised as charged, subtracted only where data is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from research.methods import method, settings_of
from research.simulate import simulate
from research.simulation_settings import SimulationSettings

from datasites.data.federations import build
from datasites.data.synthetic import SyntheticShape, generate
from datasites.study.proposal import Proposal
from datasites.study.recomputed.centring import centre_size, first_training_round, releases_centres
from datasites.study.recomputed.next_model import model_from_bytes
from datasites.study.signing import dump, parse
from datasites.training.site import own_parameters, train_round
from datasites.worker.trainer import trial_plan
from models.batch import restricted
from models.build import build_model, record_loss
from models.config import CENTRES, CENTRING_NORM, InvalidModel, ModelConfig, centring_unit
from models.losses import centring_loss
from models.parameters import from_bytes
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.sites import make_sites, patients, simulated_study
from orchestrator.studies.proposing.schedule import private_schedule, with_schedule
from orchestrator.studies.proposing.settings import StudySettings
from privacy.canonical import canonical_hash
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness
from privacy.dp.sgd import clipped_gradient_sum
from privacy.errors import InvalidInput

torch.set_num_threads(1)
COHORTS = ("BRCA", "LUSC", "LIHC")
SHAPE = SyntheticShape(patients={"BRCA": 90, "LUSC": 80, "LIHC": 80}, genes=60, image_features=300, signal=0.6)
SETTINGS = StudySettings(
    study="centred", purpose="p", legal_basis="l", task="early-late", rounds=3, steps_per_round=1, epsilon=None,
    seed=4, centred=True, cohort_gain=0.5, weight_decay=0.0,
)  # fmt: skip
STREAM = Randomness.public(1, site="s", study="centred", round=1, plan_hash="")


@pytest.fixture(scope="module")
def tables():
    return generate(seed=1, shape=SHAPE)


@pytest.fixture(scope="module")
def data(tables):
    everyone = patients(tables, "early-late", COHORTS)
    sites, test = make_sites(everyone, build("tri-modal", tables, task="early-late", seed=2))
    config = ModelConfig(architecture="linear", features=everyone.features, cohorts=COHORTS, classes=2)
    return config, sites, test


def study(tables, settings=SETTINGS, **how):
    federation = build("tri-modal", tables, task="early-late", seed=2, **how)
    return simulated_study(patients(tables, "early-late", COHORTS), federation, settings)


def mechanism(noise="local", **more):
    given = {"steps_per_round": 1, "rounds": 8, "target_delta": 1e-4, "sampling_rate": 1.0, "max_grad_norm": 0.7}
    return Mechanism(noise_multiplier=2.0, noise=noise, max_parameters=700, **{**given, **more})


GAINS = {"mrna": 1.2, "image": 0.75, "clinical": 2.3}


def scaled_and_clipped(sites):
    """Every site's scaled inputs by modality, each record cut to the norm over all its modalities."""
    found = []
    for site in sites:
        scaled = {
            m: site.records[m].numpy().astype(np.float64) * GAINS[m] / np.sqrt(site.records[m].shape[1])
            for m in site.modalities
        }
        norms = np.sqrt(sum((v**2).sum(axis=1) for v in scaled.values()))
        found.append(({m: v * np.minimum(1, CENTRING_NORM / norms)[:, None] for m, v in scaled.items()}, site.patients))
    return found


@pytest.mark.parametrize(
    "more", [{}, {"steps_per_round": 3, "weight_decay": 0.01}, {"noise": "shared", "epsilon": 8.0}]
)
def test_but_for_noise_the_centres_are_the_means_of_the_clipped_inputs_and_nothing_is_trained(tables, more):
    made = study(tables, replace(SETTINGS, **more))
    first = next(iter(run_study(made.proposal, made.model, Shard(made.proposal, made.sites))))
    arrays, parts = model_from_bytes(first.model), scaled_and_clipped(made.sites)
    weights = first.plan.weights
    for modality in made.proposal.model.modalities:
        holders = [(v[modality], weights[modality][s.name], n)
                   for (v, n), s in zip(parts, made.sites, strict=True) if modality in v]  # fmt: skip
        if made.proposal.noise == "shared":
            expected = sum(v.sum(axis=0) for v, _, _ in holders) / sum(n for _, _, n in holders)
        else:
            expected = sum(w * v.mean(axis=0) for v, w, _ in holders) / sum(w for _, w, _ in holders)
        charged = made.proposal.mechanism
        summed = charged.share_deviation * len(made.sites) ** 0.5 / centring_unit(charged.max_grad_norm)
        noise = summed / sum(n for _, _, n in holders)
        np.testing.assert_allclose(arrays[CENTRES + modality], expected, atol=2e-3 * CENTRING_NORM + 6 * noise)
        along = arrays[CENTRES + modality] @ expected / (expected @ expected)
        if modality == "image":  # the others' means are as small as the noise
            assert along == pytest.approx(1.0, abs=0.15)
        assert not arrays[f"branches.{modality}.weight"].any()
    assert not arrays["cohort.weight"].any()


def test_the_rounds_after_the_first_train_and_leave_the_centres_alone(tables):
    made = study(tables)
    first, *_, last = [
        model_from_bytes(r.model) for r in run_study(made.proposal, made.model, Shard(made.proposal, made.sites))
    ]
    for name, values in last.items():
        assert values.any()
        assert (values == first[name]).all() == name.startswith(CENTRES)


@pytest.mark.parametrize("noise", ["local", "shared"])
def test_the_noise_of_the_centres_is_that_of_one_charged_step(data, noise):
    config, sites, test = data
    charged = mechanism(noise, **({"min_sites": 9} if noise == "shared" else {}))
    settings = SimulationSettings(rounds=1, mechanism=charged, centre=True, learning_rate=3.0, weight_decay=0.0)
    centres = [simulate(config, sites, test, settings, seed=s).model.centres["mrna"].numpy() for s in range(30)]
    holders = [s.patients for s in sites if "mrna" in s.modalities]
    alone = charged.noise_multiplier * CENTRING_NORM
    expected = (
        alone * np.sqrt(9 / 8) / sum(holders) if noise == "shared" else alone * np.sqrt(len(holders)) / sum(holders)
    )
    assert np.stack(centres).std(axis=0).mean() == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("loudness", [1e4, 1e-4])
def test_one_record_moves_the_sum_by_at_most_the_clipping_norm(data, loudness):
    config, sites, _ = data
    model = build_model(replace(config, centred=True), seed=0)
    loud = {n: v * loudness if v.is_floating_point() and n != "presence" else v for n, v in sites[0].records.items()}
    one = {n: v[:1] for n, v in loud.items()}
    wanted = centring_loss(centring_unit(0.7), config.modalities)
    sums = clipped_gradient_sum(model, one, wanted, mechanism("shared", min_sites=9), STREAM)
    norm = np.sqrt(sum(float((g**2).sum()) for g in sums.values()))
    assert set(sums) == {n for n, p in model.named_parameters() if p.requires_grad}
    assert norm == pytest.approx(0.7, rel=1e-5) if loudness > 1 else 0 < norm < 0.01


def test_a_centred_model_reads_like_a_plain_one_on_moved_inputs_and_leaves_absent_modalities_alone(data):
    config, _, test = data
    plain, centred = (build_model(replace(config, centred=c, cohort_gain=0.5), seed=0) for c in (False, True))
    with torch.no_grad():
        for (_, a), (_, b) in zip(plain.named_parameters(), list(centred.named_parameters())[:4], strict=False):
            a.copy_(torch.linspace(-1, 1, a.numel()).view_as(a))
            b.copy_(a)
        for modality in config.modalities:
            centred.centres[modality].copy_(torch.linspace(0, 1, config.features[modality]))
    moved = {
        m: test[m] - torch.linspace(0, 1, config.features[m]) * config.features[m] ** 0.5 / config.gain(m)
        for m in config.modalities
    }
    torch.testing.assert_close(centred(test), plain({**test, **moved}), atol=1e-4, rtol=1e-4)
    nothing = {**test, "presence": torch.zeros_like(test["presence"])}
    torch.testing.assert_close(centred(nothing), plain(nothing))


def test_what_a_site_keeps_to_itself_is_not_touched_by_the_means(tables):
    with pytest.raises(InvalidInput, match="nothing that reads a patient's data would be exchanged"):
        study(tables, replace(SETTINGS, min_sites=9, epsilon=8.0))
    made = study(tables, replace(SETTINGS, epsilon=8.0))
    proposal = replace(made.proposal, min_sites=9)
    assert [b.name for b in proposal.exchanged_blocks()] == ["shared"]
    model = build_model(proposal.model, seed=0)
    plan = replace(trial_plan(proposal), round=1)
    before = own_parameters(proposal, model)
    site = made.sites[0]
    records = restricted(site.records, proposal.model.features)
    none = {n: v[:0] for n, v in records.items()}
    train_round(proposal, plan, site.name, model, record_loss, records, none, STREAM)
    assert (
        before.keys()
        == own_parameters(proposal, model).keys()
        == {f"own/branches.{m}.weight" for m in proposal.model.features}
    )
    assert all((values == before[name]).all() for name, values in own_parameters(proposal, model).items())


def test_centres_travel_with_the_model_and_are_no_block_of_their_own(tables):
    made = study(tables)
    assert {n for b in made.proposal.blocks for n in b.parameters}.isdisjoint(
        n for n in model_from_bytes(made.model) if n.startswith(CENTRES)
    )
    model = build_model(made.proposal.model, seed=0)
    from_bytes(model, made.model)
    assert not any(c.requires_grad for c in model.centres.values())


def test_a_dry_run_tries_a_round_that_trains(tables):
    made = study(tables)
    assert trial_plan(made.proposal).round == 2 == first_training_round(made.proposal)
    assert [releases_centres(made.proposal.model, n) for n in (1, 2, 3)] == [True, False, False]
    plain = study(tables, replace(SETTINGS, centred=False)).proposal
    assert trial_plan(plain).round == 1
    assert not releases_centres(plain.model, 1)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"rounds": 1}, "at least two rounds"),
        ({"architecture": "mlp", "cohort_gain": 1.0}, "only the linear model"),
        ({"architecture": "mlp", "centred": False}, "only the linear model"),
        ({"cohort_gain": 0.0}, "cohort gain above 0"),
    ],
)
def test_a_study_that_cannot_be_centred_is_refused(tables, wrong, told):
    with pytest.raises((InvalidInput, InvalidModel), match=told):
        study(tables, replace(SETTINGS, **wrong))


def test_a_centred_study_with_foreign_code_or_another_optimiser_is_refused(tables):
    proposal = study(tables).proposal
    for wrong in ({"plan": replace(proposal.plan, kind="python")},
                  {"training": replace(proposal.training, optimizer="adam")}):  # fmt: skip
        with pytest.raises(InvalidInput, match="declarative plan, the optimizer sgd"):
            replace(proposal, **wrong)


def test_what_came_later_changes_no_older_name_and_is_hashed_once_it_is_used(tables):
    proposal = study(tables, replace(SETTINGS, centred=False, cohort_gain=1.0)).proposal
    older = dump(proposal)
    for name in ("centred", "cohort_gain", "standardised", "gains", "shrunk", "public_centres", "counting"):
        del older["model"][name]
    assert older.pop("constants") is None
    assert canonical_hash(older) == proposal.proposal_hash == parse(Proposal, older).proposal_hash
    changed = [replace(proposal.model, centred=True), replace(proposal.model, cohort_gain=0.5)]
    assert len({proposal.proposal_hash, *(replace(proposal, model=m).proposal_hash for m in changed)}) == 3
    assert len({proposal.plan_hash, *(replace(proposal, model=m).plan_hash for m in changed)}) == 3


@pytest.mark.parametrize("noise", ["local", "shared"])
def test_blending_in_a_short_centred_study_sees_two_models_that_differ(tables, noise):
    settings = with_schedule(replace(SETTINGS, epsilon=4.0, noise=noise, aggregation="dgb"), None)
    made = study(tables, settings).proposal
    mechanism = made.mechanism
    assert [n for n in range(1, settings.rounds + 1) if mechanism.releases_losses(n)] == [2, 4]
    simulated = settings_of(
        method("dgb"), made.model, rounds=40, epsilon=4.0, delta=1e-4, noise=noise, sites=len(COHORTS) * 3
    )
    assert simulated.last_measured == simulated.mechanism.losses.last_round == 4


def test_a_pull_that_undoes_a_step_is_refused(tables):
    with pytest.raises(InvalidInput, match="below 1, got 2"):
        study(tables, replace(SETTINGS, learning_rate=200.0, aggregation="fedprox"))


def test_the_length_of_a_step_counts_decay_and_pull(tables):
    proposal = study(tables, replace(SETTINGS, steps_per_round=3, weight_decay=0.02, learning_rate=5.0)).proposal
    training, unit = proposal.training, centring_unit(proposal.mechanism.max_grad_norm)
    how = {"rate": training.learning_rate, "pull": training.weight_decay + training.proximal_mu}
    assert centre_size(proposal.mechanism, **how) == pytest.approx(unit * 5.0 * (1 + 0.9 + 0.81))
    assert centre_size(replace(proposal.mechanism, noise="shared", steps_per_round=1), **how) == unit * 5.0


@pytest.mark.parametrize("noise", ["local", "shared"])
@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0, 8.0, 16.0])
def test_the_schedule_costs_what_was_asked_for(tables, noise, epsilon):
    settings = with_schedule(replace(SETTINGS, epsilon=epsilon, noise=noise, centred=False), None)
    proposal = study(tables, settings).proposal
    schedule = private_schedule("linear", epsilon, noise)
    assert (proposal.rounds, proposal.model.centred, proposal.model.cohort_gain) == (schedule.rounds, True, 0.5)
    assert proposal.mechanism.epsilon() == pytest.approx(epsilon, rel=0.01)


@pytest.mark.parametrize("how", [{"epsilon": None}, {"architecture": "mlp"}, {"aggregation": "fedadam"}])
def test_studies_without_a_schedule_get_the_usual_rounds(how):
    plain = replace(SETTINGS, centred=False, cohort_gain=1.0)
    assert with_schedule(replace(plain, **{"epsilon": 8.0, **how}), None).rounds == 20
    assert with_schedule(replace(plain, epsilon=8.0), 7) == replace(plain, epsilon=8.0, rounds=7)


def test_centring_without_privacy_is_refused_in_the_simulator(data):
    config, sites, test = data
    with pytest.raises(InvalidInput, match="under privacy only"):
        simulate(config, sites, test, SimulationSettings(rounds=2, centre=True), seed=1)
