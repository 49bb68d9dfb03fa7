"""A proposal that fails on its way is sent on by the same command, as it was signed; its name is not lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasites.node.home import Config, Home
from datasites.node.roster import Roster
from datasites.study.proposal import DatasetReference, Party
from orchestrator.studies.proposing.settings import Offer, StudySettings
from orchestrator.studies.submit import Draft, submit
from privacy.errors import Refused, TesseraError
from privacy.identity import Identity

SITES = ("alba", "bruna", "corva")
SETTINGS = StudySettings(
    study="pilot", purpose="A test.", legal_basis="None needed.", task="early-late", rounds=2, epsilon=None
)


class Server:
    """Takes models and studies; the study's name belongs to the first proposal."""

    def __init__(self) -> None:
        self.study: Any = None

    def put_bytes(self, path: str, body: bytes) -> None: ...

    def post_json(self, path: str, value: Any) -> None:
        if self.study not in (None, value):
            raise Refused("a study of this name exists with another proposal")
        self.study = value


class Node:
    """Sends jobs, and fails at the hospital called ``broken``."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, bool]] = []
        self.broken = ""

    def submit(self, site: str, name: str, tree: Path, *, again: bool) -> None:
        if site == self.broken:
            raise TesseraError("the mailbox does not answer")
        self.sent.append((site, name, again))

    def sync(self) -> None: ...


def public_key(number: int) -> str:
    return Identity.from_seed(bytes([number]) * 32).public_key


@pytest.fixture
def home(tmp_path: Path) -> Home:
    config = Config(name="office", institution="University", role="orchestrator", orchestrator_url="")
    home = Home.create(tmp_path / "office", config)
    sites = tuple(Party(name=n, institution=n, public_key=public_key(i)) for i, n in enumerate(SITES, 1))
    keyholder = Party(name="notary", institution="Notary", public_key=public_key(0))
    Roster(orchestrator=home.party(), keyholder=keyholder, sites=sites).save(home.folder / "roster.json")
    return home


@pytest.fixture
def offers(home: Home) -> list[Offer]:
    return [
        Offer(
            party=party,
            cohort="LUSC",
            modalities=("mrna",),
            dataset=DatasetReference(name="lung", version=1, fingerprint="2" * 64, schema_hash="3" * 64, patients=150),
            features={"mrna": 6},
            cohorts=("LUSC",),
            task="early-late",
        )
        for party in home.roster().sites
    ]


def test_the_same_command_sends_on_what_was_begun(home: Home, offers: list[Offer]) -> None:
    server, node = Server(), Node()
    node.broken = "bruna"
    with pytest.raises(TesseraError, match="mailbox"):
        submit(node, home, server, SETTINGS, offers)  # type: ignore[arg-type]
    begun = Draft.find(home, SETTINGS)
    assert begun is not None
    assert begun.sent == ("alba",)
    with pytest.raises(Refused, match="other settings"):
        Draft.find(home, replace(SETTINGS, rounds=3))
    node.broken = ""
    proposal = submit(node, home, server, SETTINGS, offers)  # type: ignore[arg-type]
    assert proposal == begun.opened(home)
    assert [site for site, _, _ in node.sent] == ["alba", "bruna", "corva"]
    assert [again for _, _, again in node.sent] == [False, True, True]
    assert len({name for _, name, _ in node.sent}) == 1
    assert Draft.find(home, SETTINGS) is None
