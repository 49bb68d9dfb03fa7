"""Tissue maps: from a cohort's file through ingest into the small convolutional encoder, with exact clipping."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tables import write_tables

from datasites.data.dataset import load, read_schema
from datasites.data.ingest import ingest
from datasites.data.synthetic import SyntheticShape, generate
from datasites.data.tcga.tables import MAPS_FILE, map_features, read_maps, read_tables
from models.batch import to_tensors
from models.build import build_model, record_loss
from models.config import ModelConfig
from models.networks import CHANNELS, TissueMapEncoder
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness
from privacy.dp.sgd import clipped_gradient_sum
from privacy.errors import InvalidInput

torch.set_num_threads(1)
STREAM = Randomness(b"s" * 32, study="s", round=1, plan_hash="p", dataset_fingerprint="f")
SHAPE = SyntheticShape(patients={"BRCA": 60}, genes=6, image_features=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "tables"
    tables = generate(seed=1, shape=SHAPE)
    write_tables(tables, path)
    clinical = tables.cohorts["BRCA"].clinical
    cases = clinical.index.to_numpy().astype(str)[::-1]  # another order than the tables
    draw = np.random.default_rng(2)
    late = (clinical.loc[cases, "stage"].isin(["III", "IV"])).to_numpy()
    maps = draw.integers(0, 120, (len(cases), 64, 64, 3)) + 100 * late[:, None, None, None]
    np.savez_compressed(path / "BRCA" / MAPS_FILE, case_id=cases, maps=maps.astype(np.uint8))
    return path


@pytest.fixture(scope="module")
def dealt(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("maps") / "dealt"
    ingest(folder, out, federation="upper-bound", task="early-late", seed=1, images="tissue-maps")
    return out


def test_a_map_becomes_one_row_joined_by_case(folder):
    table = read_maps(folder / "BRCA" / MAPS_FILE)
    with np.load(folder / "BRCA" / MAPS_FILE) as file:
        first, third = file["case_id"][0], file["maps"][0, 2, 5, 1] / 255
    assert table.shape == (60, 64 * 64 * 3)
    assert table.loc[first, "map:2.5.1"] == pytest.approx(third)
    assert (table.to_numpy().min(), table.to_numpy().max()) >= (0, 0.5)
    assert table.columns.tolist() == map_features()


def test_maps_are_read_only_where_they_are_asked_for(folder):
    assert read_tables(folder).image_features[0].startswith("AREA")
    assert read_tables(folder, images="tissue-maps").image_features == tuple(map_features())


@pytest.mark.parametrize("broken", ["bytes", "shape", "type", "twice", "count"])
def test_a_file_that_is_no_map_file_is_refused(tmp_path, broken):
    path = tmp_path / "BRCA" / MAPS_FILE
    path.parent.mkdir()
    maps = np.zeros((2, 64, 64, 4 if broken == "shape" else 3), np.float32 if broken == "type" else np.uint8)
    cases = ["a", "a"] if broken == "twice" else ["a", "b", "c"] if broken == "count" else ["a", "b"]
    np.savez(path, case_id=np.array(cases), maps=maps)
    if broken == "bytes":
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InvalidInput, match="BRCA"):
        read_maps(path)


def test_ingested_maps_train_the_convolutional_encoder_with_one_bound_for_each_record(dealt):
    site = dealt / "sites" / "brca-1"
    schema = read_schema(site)
    assert "value over 255" in schema.preprocessing["image"]
    config = ModelConfig(
        architecture="convolutional", features=schema.feature_counts(), cohorts=schema.cohorts, classes=2
    )
    model = build_model(config, seed=0)
    assert isinstance(model.encoders["image"], TissueMapEncoder)
    assert sum(p.numel() for p in model.encoders["image"].parameters()) < 6000
    batch = to_tensors({name: np.array(values) for name, values in load(site / "private", schema).items()})
    assert float(batch["image"].max()) <= 1 and float(batch["image"].std()) > 0.05
    mechanism = Mechanism(
        max_grad_norm=0.01, noise_multiplier=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1, target_delta=1e-4
    )
    alone = [
        clipped_gradient_sum(model, {n: t[i : i + 1] for n, t in batch.items()}, record_loss, mechanism, STREAM)
        for i in range(4)
    ]
    norms = [np.sqrt(sum(float((g**2).sum()) for g in one.values())) for one in alone]
    assert max(norms) == pytest.approx(0.01, rel=1e-3)
    together = clipped_gradient_sum(model, {n: t[:4] for n, t in batch.items()}, record_loss, mechanism, STREAM)
    for name, total in together.items():
        np.testing.assert_allclose(total, sum(one[name] for one in alone), atol=1e-7)
    assert float(np.abs(together["encoders.image.patches.weight"]).max()) > 0


def test_the_real_maps_are_those_of_their_cases(tmp_path):
    data = Path(os.environ.get("TESSERA_TCGA", Path(__file__).parents[5] / "shared" / "data" / "tcga"))
    if not (data / "BRCA" / MAPS_FILE).exists():
        pytest.skip("needs the real TCGA tables (TESSERA_TCGA or ../shared/data/tcga)")
    table = read_maps(data / "BRCA" / MAPS_FILE)
    assert table.shape == (951, 64 * 64 * CHANNELS)
    assert table.index.str.startswith("TCGA-").all()
    assert 0 < float(table.to_numpy().mean()) < 1
