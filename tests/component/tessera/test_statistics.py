"""Statistics as a scientist asks for them: simulated, with the truth beside; every kind, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.hospital_tables import heart_rows, write_table
from typer.testing import CliRunner

import tessera
from datasites.data.dataset import read_schema
from datasites.data.reading.schema_files import read_schema_document
from datasites.data.synthesis import drawn_classes, drawn_inputs, read_tables
from datasites.node.home import Config, Home
from datasites.study.signing import dump
from orchestrator.cli.main import app
from tessera.statistics.live import StatisticsRun

ASKED = {
    "counts": lambda a: a.counts("cohort", "mrna", "sex", "pattern", ("age", (50, 65))),
    "missingness": lambda a: a.missingness("mrna", "age", "sex", by="cohort"),
    "means": lambda a: a.means("age", by="sex", bounds={"age": (30, 90)}),
    "quantiles": lambda a: a.quantiles("age", (0.5,), by="cohort"),
    "histogram": lambda a: a.histogram("age", bins=8),
    "cross_table": lambda a: a.cross_table("sex", "outcome"),
    "correlations": lambda a: a.correlations("age", "year_dx"),
    "kaplan_meier": lambda a: a.kaplan_meier("leak_os_days", "leak_os_event", bins=24, by="sex"),
    "log_rank": lambda a: a.log_rank("leak_os_days", "leak_os_event", by="cohort"),
}


@pytest.fixture(scope="module")
def survival() -> tessera.Analytics:
    return tessera.analytics(epsilon=3, schema="tcga-survival", sites=3, patients=240)


@pytest.fixture(scope="module")
def staging() -> tessera.Analytics:
    return tessera.analytics(epsilon=3, patients=300, sites=3, noise="local")


@pytest.mark.parametrize("kind", ASKED)
def test_every_statistic_is_near_the_truth_and_shows_itself(kind, survival, staging):
    found = ASKED[kind](survival if kind in ("kaplan_meier", "log_rank") else staging)
    (one,) = found
    assert one.answer.kind == kind and one.exact is not None and list(one.table.index) == list(one.exact.index)
    if "low" in one.table:
        value = one.table.columns[0]
        held = (one.table["low"] <= one.exact[value]) & (one.exact[value] <= one.table["high"])
        assert held.mean() > 0.7, one  # of the noise alone: most of few
    assert one.plot()._repr_png_() and "epsilon 3 at delta 0.0001" in repr(one) and "<table>" in one._repr_html_()


def test_a_log_rank_test_has_a_p_value(survival):
    (one,) = ASKED["log_rank"](survival)
    assert 0 <= one.p_value <= 1 and "p = " in one.note
    (other,) = survival.counts()
    with pytest.raises(AttributeError, match="no p-value"):
        _ = other.p_value


def test_several_questions_share_one_epsilon_and_the_noise_grows_by_the_root_of_their_tables(staging):
    ask = staging.questions
    alone, many = staging.counts("sex"), staging.together(*[ask.counts("sex")] * 4)
    assert len(many) == 4 and many[0].noise == pytest.approx(2 * alone[0].noise, rel=0.01)


def test_more_epsilon_means_less_noise_and_shared_noise_less_than_local():
    def noise(**given) -> float:
        return tessera.analytics(patients=200, **{"sites": 5, "epsilon": 1.0, **given}).counts()[0].noise

    assert noise(epsilon=2.0) < noise() < noise(noise="local")


WRONG = {
    "no variable": (lambda a: a.means("weight"), "no variable 'weight'; there are age"),
    "a category": (lambda a: a.means("sex"), "expected a number, 'sex' is a category"),
    "a number without cuts": (lambda a: a.counts("age"), "say where it is cut"),
    "edges beyond": (lambda a: a.histogram("age", edges=(0, 5, 50)), "between 12 and 100 years"),
    "falling edges": (lambda a: a.histogram("age", edges=(60, 50)), "expected rising edges"),
    "bounds": (lambda a: a.means("age", bounds={"age": (90, 30)}), "lower one first"),
    "no probability": (lambda a: a.quantiles("age", (1.5,)), "probabilities between 0 and 1"),
    "one number": (lambda a: a.correlations("age"), "two to 10 different numbers"),
    "nothing": (lambda a: a.means(), "at least one number"),
    "another outcome": (lambda a: a.kaplan_meier("os_months", "os_event"), "outcome that these datasets were made for"),
    "bins": (lambda a: a.histogram("age", bins=0), "1 to 500 bins"),
    "too many tables": (lambda a: a.counts(*["sex"] * 401), "1 to 400 tables"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_asked_is_refused_in_words(name, staging):
    ask, message = WRONG[name]
    with pytest.raises(tessera.InvalidInput, match=message):
        ask(staging)


def test_the_command_line_asks_the_same():
    words = ["analytics", "histogram", "age", "--bins", "4", "--by", "cohort", "--simulate", "--epsilon", "3", "--json"]
    report = json.loads(CliRunner().invoke(app, words).stdout)
    (answer,) = report["answers"]
    assert answer["title"] == "histogram of age" and len(answer["table"]) == 3 * 5 and answer["hospitals"] == 9
    for wrong in (["means"], ["sums", "age", "--simulate"], ["log-rank", "a", "b", "--simulate"], ["histogram"]):
        found = CliRunner().invoke(app, ["analytics", *wrong])
        assert isinstance(found.exception, (tessera.InvalidInput, SystemExit))


def played(monkeypatch, found, before):
    """Return a finished study of a consortium whose answers are a simulation's."""
    dataset = SimpleNamespace(
        study_schema=before,
        schema=SimpleNamespace(
            features={m.name: m.inputs for m in before.modalities},
            cohorts=tuple(level.name for level in before.cohorts),
            task=before.outcomes[0].name,
            classes=before.outcomes[0].classes,
            predicts=before.outcomes[0].target,
        ),
    )
    proposal = SimpleNamespace(
        participants=(SimpleNamespace(name="heart-1"),),
        proposal_hash="ab" * 32,
        mechanism=SimpleNamespace(epsilon=lambda: 4.0, target_delta=1e-4),
        noise="shared",
    )
    run = StatisticsRun.__new__(StatisticsRun)
    run.name, run.hub = "asked", SimpleNamespace(datasets=lambda names: dict.fromkeys(names, dataset))
    monkeypatch.setattr(StatisticsRun, "answers", found)
    monkeypatch.setattr(StatisticsRun, "proposal", proposal)
    monkeypatch.setattr("tessera.hub.connect", lambda _: SimpleNamespace(run=lambda _: run))
    return run, dataset


@pytest.mark.parametrize("schema", ["heart", "tcga-survival"])
def test_released_tables_make_a_mock_that_follows_them_and_says_so(tmp_path, monkeypatch, schema):
    patients = 500 if schema == "heart" else 120  # whose shares are looked at, and not only whether they are whole
    found = tessera.analytics(epsilon=8, schema=schema, sites=3, patients=patients).synthesis()
    before = read_schema_document(Path(schema))
    run, _ = played(monkeypatch, found, before)
    out = tmp_path / "tables.json"
    command = ["analytics", "marginals", "asked", "--home", str(tmp_path), "--out", str(out)]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.exception
    tables = read_tables(out)
    assert tables == run.marginals() and "charged to every patient" in tables.source
    outcome, draw = before.outcomes[0], np.random.default_rng(0)
    tables.check(before, outcome)
    classes = drawn_classes(tables, draw, 4000)
    if schema == "heart":
        shares = found[0].exact["patients"] / found[0].exact["patients"].sum()
        assert (classes == 1).mean() == pytest.approx(shares.iloc[1], abs=0.1)
    for modality in (m for m in before.modalities if m.variables):
        made = drawn_inputs(modality, tables, classes, np.zeros((4000, len(modality.inputs))), draw)
        assert np.isfinite(made).all()
        if schema == "heart":  # a fourth of the hospitals lacks a modality, which is no missing value
            lacking = [place for place, name in enumerate(modality.inputs) if name.endswith(":missing")]
            assert (made[:, lacking].mean(axis=0) < 0.15).all()
        place = 0
        for variable in modality.variables:
            width = len(variable.inputs())
            own = made[:, place : place + width]
            if width > 2 or variable.inputs()[0] != f"{variable.name}:value":
                assert (own.sum(axis=1) == 1).all() and set(np.unique(own)) <= {0.0, 1.0}  # never a normal number
            else:
                assert (np.abs(own[:, 0]) <= variable.clip).all()
            place += width
    wrong = replace(before, version=before.version + 1)
    with pytest.raises(tessera.InvalidInput, match="another schema, version or outcome"):
        tables.check(wrong, outcome)
    with pytest.raises(tessera.InvalidInput, match="those of another question"):
        monkeypatch.setattr(StatisticsRun, "answers", found[1:])
        run.marginals()


def test_a_hospitals_mock_by_released_tables_is_marked_and_one_without_is_not(tmp_path, monkeypatch):
    found = tessera.analytics(epsilon=8, schema="heart", sites=3, patients=500).synthesis()
    run, _ = played(monkeypatch, found, read_schema_document(Path("heart")))
    out = tmp_path / "tables.json"
    out.write_text(json.dumps(dump(run.marginals())))
    place = tmp_path / "home"
    Home.create(place, Config(name="h", institution="H", role="datasite", orchestrator_url="http://127.0.0.1:1"))
    table = write_table(tmp_path / "t.csv", heart_rows(80))
    for more in ([], ["--mock", str(out)]):
        command = ["datasite", "ingest", str(table), "--schema", "heart", "--home", str(place), *more]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.exception
    plain, marked = (read_schema(place / "datasets" / "h-heart" / version) for version in ("v1", "v2"))
    assert plain.mock == "" and "mock" not in plain.plain()
    assert marked.mock.startswith(f"charged synthesis by the study asked ({'ab' * 32}): epsilon 4")
    assert plain.schema_hash != marked.schema_hash
    out.write_text("{}")
    broken = CliRunner().invoke(app, command)
    assert isinstance(broken.exception, tessera.InvalidInput)
    assert not (place / "datasets" / "h-heart" / "v3").exists()


def test_quartiles_of_a_schemas_numbers_scale_its_next_version_with_their_source(tmp_path, monkeypatch):
    found = tessera.analytics(epsilon=4, schema="heart", sites=3, patients=600).scales()
    assert [one.title for one in found][:2] == ["quantiles of history.age", "quantiles of history.trestbps"]
    before = read_schema_document(Path("heart"))
    run, dataset = played(monkeypatch, found, before)
    after, notes = run.rescaled(before)
    assert after.version == before.version + 1 and after.modality("history").scaling == "released"
    assert f"the study asked ({'ab' * 32}): epsilon 4 at delta 0.0001, shared noise" in after.modality("history").source
    exact = {one.title.removeprefix("quantiles of "): one.exact["value"] for one in found}
    changed = 0
    for modality in after.modalities:
        for variable in modality.variables:
            truth = exact.get(f"{modality.name}.{variable.name}")
            if truth is not None and not any(variable.name in note for note in notes):
                spread = (truth[0.75] - truth[0.25]) / 1.349
                assert abs(variable.centre - truth[0.5]) < spread and 0.4 < variable.scale / spread < 2.5, variable.name
                changed += 1
    assert changed >= 3, notes
    out = tmp_path / "heart-2.json"
    command = ["analytics", "rescale", "asked", "--home", str(tmp_path), "--schema", "heart", "--out", str(out)]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["version"] == after.version and read_schema_document(out) == after
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, tessera.InvalidInput) and "a new file" in str(again.exception)
    dataset.study_schema = after
    with pytest.raises(tessera.InvalidInput, match="was not read by heart version 1"):
        run.rescaled(before)
