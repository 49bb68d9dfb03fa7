"""``tessera upgrade --check``: for every party and running study, what a new installation will mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness.consortium import Consortium
from typer.testing import CliRunner

from datasites.node.home import Home
from datasites.review.environment import current_environment, data_hash
from datasites.review.records import open_proposal
from datasites.study.protocol import PROPOSALS, PROTOCOL
from datasites.study.signing import Signed, dump, parse, seal
from orchestrator.cli.main import app
from orchestrator.rounds.peers import Peers, check_understood, read_peers
from orchestrator.rounds.store import Store
from orchestrator.studies.upgrades import forecasts, worst
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path / "consortium", sites=3)


def add_studies(consortium: Consortium) -> None:
    """Leave four studies as earlier releases left them: unchanged, a patch ago, with other training, and long ago."""
    here = current_environment()
    rest = {"code_hash": "1" * 64, "lock_hash": "2" * 64, "files_hash": "3" * 64}
    environments = {
        "same": here,
        "patch": replace(here, release="0.1.9", **rest),
        "training": replace(here, release="0.0.9", data_code="4" * 64, **rest),
        "old": replace(here, release="7.0.0", **rest),
        "over": replace(here, release="7.0.0", **rest),
    }
    store = Store(consortium.homes["orchestrator"].folder / "store")
    for name, environment in environments.items():
        proposal = consortium.proposal(name, environment=environment)
        store.add_study(name, seal(consortium.identity, "proposal", proposal))
    store.set_state("over", "finished")
    store.close()


def test_every_party_and_study_is_told_its_fate(consortium: Consortium) -> None:
    home = consortium.homes["orchestrator"]
    add_studies(consortium)
    peers = Peers(home.folder / "peers.json")
    first, second, third = consortium.names
    peers.heard(first, PROTOCOL, "0.1.0", data_hash(current_environment()), str(PROPOSALS))
    peers.heard(second, "7.0", "9.0.0", "")
    peers.heard(third, PROTOCOL, "0.1.0", "")  # it says nothing of proposals: those of version 2
    found = {(one.party, one.study): one for one in forecasts(home)}
    assert found["orchestrator", ""].fate == "goes on"
    assert found[first, ""].fate == "goes on" and "the same software" in found[first, ""].reason
    assert found[second, ""].fate == "refused" and "7.0" in found[second, ""].reason
    behind = found[third, ""]
    assert behind.fate == "needs an upgrade" and f"upgrade Tessera at {third} before the next study" in behind.reason
    assert found["keyholder", ""].fate == "unknown"
    fates = {study: found[first, study].fate for study in ("same", "patch", "training", "old")}
    assert fates == {"same": "goes on", "patch": "goes on", "training": "needs re-approval", "old": "refused"}
    assert "0.1.9 was approved" in found[first, "patch"].reason
    assert "--from training" in found[first, "training"].reason
    assert not any(study == "over" for _, study in found)
    assert worst(tuple(found.values())) == "refused"


def test_nothing_is_changed_by_looking(consortium: Consortium) -> None:
    home = consortium.homes["orchestrator"]
    add_studies(consortium)

    def files() -> dict[str, str]:
        return {
            str(path.relative_to(home.folder)): sha256_hex(path.read_bytes())
            for path in sorted(home.folder.rglob("*"))
            if path.is_file() and not path.name.endswith("-shm")
        }

    before = files()
    forecasts(home)
    assert files() == before


def test_a_hospital_is_told_about_its_approvals(consortium: Consortium) -> None:
    consortium.open_hospitals()
    opened = consortium.hospitals[0]
    nobody = SimpleNamespace(post_json=lambda *_, **__: None)
    hospital = replace(opened, participant=replace(opened.participant, client=nobody))
    approved = replace(current_environment(), release="0.1.9", code_hash="1" * 64)
    hospital.approve(seal(consortium.identity, "proposal", consortium.proposal("patch", environment=approved)))
    found = {one.study: one for one in forecasts(hospital.home)}
    for one in consortium.hospitals:
        one.close()
    assert found["patch"].fate == "goes on"
    assert found[""].fate == "unknown"  # nobody listens at the orchestrator's address
    assert "could not be asked" in found[""].reason


def test_the_command_prints_one_object_and_says_by_its_code_whether_all_go_on(consortium: Consortium) -> None:
    home = consortium.homes["orchestrator"].folder
    done = CliRunner().invoke(app, ["upgrade", "--check", "--home", str(home), "--json"])
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["fate"] == "unknown" and done.exit_code == 1
    assert {"party", "study", "fate", "reason"} == set(told["parties"][0])


def test_without_check_the_command_says_how_an_upgrade_is_done(consortium: Consortium) -> None:
    home = consortium.homes["orchestrator"].folder
    done = CliRunner().invoke(app, ["upgrade", "--home", str(home)])
    assert done.exit_code != 0 and "--check" in str(done.exception)


def test_what_peers_run_is_kept_and_nonsense_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    peers = Peers(path)
    peers.heard("north", "1.1", "0.2.0", "a" * 64)
    peers.heard("south", "<b>", "x" * 500, "no hash")
    peers.heard("north", "1.1", "0.2.0", "")  # one of its commands
    peers.heard("north", "", "", "")  # and a request that was not made by Tessera
    again = Peers(path).known()
    assert (again["north"].release, again["north"].data) == ("0.2.0", "a" * 64)
    assert (again["south"].protocol, again["south"].release, again["south"].data) == ("1.0", "", "")
    path.write_text("[")
    assert Peers(path).known() == {}


def test_a_study_is_refused_that_an_older_party_does_not_understand(consortium: Consortium, tmp_path: Path) -> None:
    peers, proposal = Peers(tmp_path / "peers.json"), consortium.proposal("new", protocol=3)
    first, second, _ = consortium.names
    check_understood(proposal, peers.known())  # nobody has said anything yet
    peers.heard(first, PROTOCOL, "0.2.0", "a" * 64, "3")
    peers.heard("a stranger", PROTOCOL, "0.1.7", "")
    check_understood(proposal, peers.known())
    peers.heard(second, PROTOCOL, "0.1.7", "b" * 64)
    peers.heard("keyholder", PROTOCOL, "0.1.7", "", "<2>")
    with pytest.raises(Refused) as refused:
        check_understood(proposal, Peers(tmp_path / "peers.json").known())
    for told in (f"{second} runs Tessera 0.1.7 and understands version 2", "keyholder runs", "upgrade --check"):
        assert told in str(refused.value)
    check_understood(consortium.proposal("old", protocol=2), peers.known())
    peers.heard(second, PROTOCOL, "0.2.0", "b" * 64, "3")
    with pytest.raises(Refused) as refused:
        check_understood(proposal, peers.known())
    assert second not in str(refused.value)
    (tmp_path / "older.json").write_text(json.dumps({first: {"protocol": "1.1", "release": "0.1.0", "data": ""}}))
    check_understood(proposal, read_peers(tmp_path / "older.json"))  # kept before anybody asked


def test_a_document_of_a_later_release_says_what_to_upgrade(consortium: Consortium) -> None:
    sealed = dump(seal(consortium.identity, "proposal", consortium.proposal("new")))
    for later in ({"protocol": PROPOSALS + 1}, {"tomorrow": True}):
        signed = parse(Signed, {**sealed, "payload": {**sealed["payload"], **later}})
        with pytest.raises(InvalidInput, match="newer release of Tessera made it, upgrade Tessera here"):
            open_proposal(signed)
    with pytest.raises(InvalidInput) as refused:
        parse(Signed, {**sealed, "kind": 3})
    assert "upgrade" not in str(refused.value)


def test_a_folder_that_is_no_role_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        forecasts(Home(folder=tmp_path))
