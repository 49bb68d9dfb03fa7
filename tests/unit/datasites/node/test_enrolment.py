"""Parties find one another through public files; whoever is not expected, or comes twice, is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasites.data.dataset import case_ids, read_schema
from datasites.data.ingest import deal, place_dataset, place_synthetic_test
from datasites.data.synthetic import generate
from datasites.node.consortium import Consortium, Enrolled, build_roster, gather, publish, publish_party, read_party
from datasites.study.proposal import Party
from privacy.errors import InvalidInput, Refused, TesseraError
from privacy.identity import Identity

DOCKER = Path(__file__).parents[4] / "docker"
THREE = Consortium.load(DOCKER / "three.toml")


def party_of(consortium: Consortium, name: str) -> Party:
    _, member = consortium.member(name)
    return Party(name=name, institution=member.institution, public_key=Identity.generate().public_key)


def everybody_comes(exchange: Path, consortium: Consortium) -> None:
    for name in consortium.names:
        publish_party(exchange, consortium.member(name)[0], party_of(consortium, name))


def test_everybody_who_waits_builds_the_same_roster_in_the_order_of_the_file(tmp_path):
    everybody_comes(tmp_path, THREE)
    first, second = (gather(tmp_path, THREE, seconds=1) for _ in range(2))
    assert first == second
    assert tuple(p.name for p in first.everybody) == THREE.names
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o644}


def test_who_does_not_come_is_named(tmp_path):
    publish_party(tmp_path, "keyholder", party_of(THREE, "keyholder"))
    told = []
    with pytest.raises(TesseraError, match=r"orchestrator, helper-a, helper-b, hospital-a, .* did not come"):
        gather(tmp_path, THREE, seconds=0, waiting=told.append)
    assert told == ["orchestrator, helper-a, helper-b, hospital-a, hospital-b, hospital-c"]


def test_a_name_is_taken_once_and_the_same_party_may_come_again(tmp_path):
    party = party_of(THREE, "hospital-a")
    publish_party(tmp_path, "datasite", party)
    publish_party(tmp_path, "datasite", party)
    with pytest.raises(Refused, match="took the name"):
        publish_party(tmp_path, "datasite", party_of(THREE, "hospital-a"))
    assert read_party(tmp_path / "hospital-a.json").party == party
    assert [p.name for p in tmp_path.iterdir()] == ["hospital-a.json"]


def test_a_hospital_that_says_it_is_the_keyholder_is_refused(tmp_path):
    everybody_comes(tmp_path, THREE)
    (tmp_path / "hospital-a.json").unlink()
    publish_party(tmp_path, "keyholder", party_of(THREE, "hospital-a"))
    with pytest.raises(InvalidInput, match=r"expected .*datasite.*got .*keyholder"):
        gather(tmp_path, THREE, seconds=1)


def test_what_is_no_party_file_is_refused(tmp_path):
    for text in ("", "[]", '{"role": "king", "name": "a", "institution": "b", "public_key": "c"}', '{"role": 1}'):
        publish(tmp_path, "x.json", text.encode())
        with pytest.raises(InvalidInput, match=r"x\.json"):
            read_party(tmp_path / "x.json")
        (tmp_path / "x.json").unlink()


def test_a_roster_needs_one_orchestrator_one_keyholder_and_three_hospitals():
    enrolled = [Enrolled(role=THREE.member(n)[0], party=party_of(THREE, n)) for n in THREE.names]
    assert len(build_roster(enrolled).sites) == 3
    for fewer in (enrolled[1:], enrolled[:1] + enrolled[2:], enrolled[:-1], [*enrolled, enrolled[0]]):
        with pytest.raises(InvalidInput, match="one orchestrator, one keyholder"):
            build_roster(fewer)


def test_a_consortium_file_names_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "c.toml"
    good = (DOCKER / "three.toml").read_text()
    for text, problem in (
        (good.replace("hospital-b", "hospital-a"), "stands twice"),
        (good.replace('["mrna"]', '["genes"]'), "modalities"),
        (good.replace("seed", "sead"), "sead"),
        ("[", "could not read"),
    ):
        path.write_text(text)
        with pytest.raises(InvalidInput, match=problem):
            Consortium.load(path)
    with pytest.raises(InvalidInput, match="not in this consortium"):
        THREE.member("hospital-z")


@pytest.mark.parametrize("name", ["three", "paper"])
def test_hospitals_that_deal_by_themselves_get_disjoint_patients_and_one_schema(name, tmp_path):
    consortium = Consortium.load(DOCKER / f"{name}.toml")
    plan = deal(consortium, generate(seed=consortium.seed))
    hands = [set(site.cases) for site in plan.sites] + [set(plan.test)]
    assert sum(map(len, hands)) == len(set.union(*hands))
    assert min(map(len, hands)) >= 80
    for hospital, site in zip(consortium.hospitals, plan.sites, strict=True):
        assert (site.name, site.cohort, set(site.modalities)) == (
            hospital.name,
            hospital.cohort,
            set(hospital.modalities),
        )


def test_a_placed_dataset_is_this_hospitals_part_and_a_ready_one_is_copied(tmp_path):
    folders = [place_dataset(THREE, h.name, None, tmp_path / h.name) for h in THREE.hospitals]
    schemas = [read_schema(folder) for folder in folders]
    assert all(set(s.features) == {"mrna", "image", "clinical"} for s in schemas)
    assert [s.modalities for s in schemas] == [h.modalities for h in THREE.hospitals]
    assert len({(s.cohorts, json.dumps(s.features)) for s in schemas}) == 1
    copied = place_dataset(THREE, "hospital-a", folders[2], tmp_path / "again")
    assert read_schema(copied) == schemas[2]
    assert case_ids(copied / "private") == case_ids(folders[2] / "private")
    place_synthetic_test(THREE, tmp_path / "test")
    assert not set(case_ids(tmp_path / "test" / "private")) & set(case_ids(folders[0] / "private"))


def test_more_hospitals_of_a_cohort_than_an_even_deal_gives_are_refused():
    hospitals = [h.model_copy(update={"cohort": "BRCA"}) for h in THREE.hospitals]
    with pytest.raises(InvalidInput, match="evenly"):
        deal(THREE.model_copy(update={"hospitals": tuple(hospitals)}), generate(seed=0))


@pytest.mark.parametrize(
    "change",
    [
        {"institution": "Alba): aaaa-bbbb\x1b[8m"},
        {"institution": "Alba\ncorva (Corva): aaaa-bbbb"},
        {"institution": "\u202eablA"},
        {"name": "../alba"},
        {"name": "[red]alba"},
        {"name": ""},
    ],
    ids=str,
)
def test_a_party_file_cannot_dress_up_the_fingerprint_that_people_compare(tmp_path, change):
    value = {"role": "datasite", "name": "alba", "institution": "Alba", "public_key": "a" * 64}
    (tmp_path / "alba.json").write_text(json.dumps({**value, **change}))
    with pytest.raises(InvalidInput):
        read_party(tmp_path / "alba.json")
