"""A role goes from an empty folder to ready by itself, keeps what it made, and shows nothing that is secret."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from datasites.node.consortium import Consortium
from datasites.node.home import Home
from datasites.review.policy import Policy
from orchestrator.demo.roles import prepare
from orchestrator.demo.settings import RoleSettings
from privacy.errors import InvalidInput, Refused

FILE = Path(__file__).parents[4] / "docker" / "three.toml"
THREE = Consortium.load(FILE)


def settings_of(folder: Path, name: str, **changes) -> RoleSettings:
    return replace(
        RoleSettings(
            name=name,
            home=folder / name,
            exchange=folder / "exchange",
            consortium=FILE,
            orchestrator_url="https://orchestrator:8443",
            host="127.0.0.1",
            port=0,
            public_url="http://127.0.0.1:8101",
            wait_seconds=30,
        ),
        **changes,
    )


def prepare_all(folder: Path) -> dict[str, Home]:
    (folder / "exchange").mkdir(exist_ok=True)
    homes: dict[str, Home] = {}

    def one(name: str) -> None:
        homes[name] = prepare(settings_of(folder, name))

    threads = [threading.Thread(target=one, args=(name,)) for name in THREE.names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(homes) == set(THREE.names)
    return homes


@pytest.fixture(scope="module")
def consortium(tmp_path_factory):
    folder = tmp_path_factory.mktemp("consortium")
    return folder, prepare_all(folder)


def test_all_roles_start_at_once_and_agree_on_roster_and_authority(consortium):
    folder, homes = consortium
    assert len({(home.folder / "roster.json").read_bytes() for home in homes.values()}) == 1
    assert len({(home.folder / "ca.pem").read_bytes() for home in homes.values()}) == 1
    for name, home in homes.items():
        assert home.roster().by_name(name).public_key == home.identity().public_key
        assert home.config().ca == str(home.folder / "ca.pem")
    server = homes["orchestrator"].config()
    assert (server.tls_certificate, server.public_url) == (
        str(folder / "orchestrator" / "tls" / "server.pem"),
        "https://orchestrator:8443",
    )
    assert homes["hospital-a"].config().tls_certificate == ""


def test_only_public_files_are_exchanged(consortium):
    folder, _ = consortium
    files = {path.name: path.read_text() for path in (folder / "exchange").iterdir()}
    assert set(files) == {"ca.pem", *(f"{name}.json" for name in THREE.names)}
    assert not any("PRIVATE" in text for text in files.values())
    assert {"role", "name", "institution", "public_key"} == set(json.loads(files["hospital-a.json"]))


def test_a_restart_changes_no_key_no_policy_and_no_data(consortium):
    folder, homes = consortium
    kept = ("identity.pem", "roster.json", "ca.pem", "policy.toml")
    before = {(n, f): (h.folder / f).read_bytes() for n, h in homes.items() for f in kept if (h.folder / f).exists()}
    data = homes["hospital-b"].datasets()
    prepare_all(folder)
    assert {(n, f): (homes[n].folder / f).read_bytes() for n, f in before} == before
    assert homes["hospital-b"].datasets() == data


def test_the_starting_policy_accepts_the_roster_alone_and_no_study_without_privacy(consortium):
    _, homes = consortium
    policy = Policy.load(homes["hospital-a"].folder / "policy.toml")
    assert policy.accept_only_partners
    assert {p.name for p in policy.partners} == set(THREE.names) - {"hospital-a"}
    assert not policy.noise.allow_infinite_epsilon
    assert not policy.noise.allow_public_seed
    assert set(policy.noise.modes) == {"local", "shared"}


def test_somebody_who_lost_their_key_is_not_let_back_in_silently(consortium, tmp_path):
    folder, _ = consortium
    with pytest.raises(Refused, match="took the name"):
        prepare(settings_of(folder, "hospital-c", home=tmp_path / "new"))


def test_an_own_certificate_needs_somebody_who_vouches_for_it(tmp_path):
    (tmp_path / "exchange").mkdir()
    with pytest.raises(InvalidInput, match="vouches"):
        prepare(settings_of(tmp_path, "orchestrator", tls_certificate="/etc/ssl/ours.pem"))
