"""An edition of the roster that changes more than it shows, to invent hospitals or to seat a friend as keyholder.

Played: an orchestrator that admits scientists, whom nobody fears, and makes hospitals of them in the next edition; that
exchanges keyholder and helper, or makes a helper of a hospital. Names, keys and institutions stay, so an edition that
is compared by these alone shows nothing at all, and people confirm it. And one that sends keyholder and helpers, with
their admission, a roster of hospitals that it invented.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from datasites.keyholder.served import Served
from datasites.node.home import Config, Home, Role
from datasites.node.joining.changes import OFFERED, confirm, look, offered
from datasites.node.joining.documents import EDITION, Edition, Invitation
from datasites.node.joining.entering import _admit
from datasites.node.keys.handover import hand_over
from datasites.node.roster import Roster
from datasites.study.proposal import Party
from datasites.study.signing import Signed, dump, seal
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity
from privacy.ledger.journal import Journal

ORCHESTRATOR = Identity.from_seed(b"o" * 32)


def party(name: str) -> Party:
    key = Identity.from_seed(name.encode().ljust(32)).public_key
    return Party(name=name, institution=name.title(), public_key=key)


def present(own: Party) -> Roster:
    return Roster(
        orchestrator=Party(name="orchestrator", institution="Scientists", public_key=ORCHESTRATOR.public_key),
        keyholder=party("neutral"),
        sites=(own, party("north"), party("south"), party("west")),
        helpers=(party("help-one"), party("help-two")),
        scientists=(party("ada"), party("ben"), party("cleo")),
    )


MOVES: dict[str, tuple[Callable[[Roster], Roster], set[str]]] = {
    "scientists become hospitals": (
        lambda r: replace(r, sites=(*r.sites, *r.scientists), scientists=()),
        {"ada", "ben", "cleo"},
    ),
    "keyholder and helper change places": (
        lambda r: replace(r, keyholder=r.helpers[0], helpers=(r.keyholder, r.helpers[1])),
        {"neutral", "help-one"},
    ),
    "a hospital becomes a helper": (
        lambda r: replace(r, sites=r.sites[:3], helpers=(*r.helpers, r.sites[3])),
        {"west"},
    ),
    "a scientist becomes a helper beside somebody who joins": (
        lambda r: replace(
            r, helpers=(*r.helpers, r.scientists[0]), scientists=r.scientists[1:], sites=(*r.sites, party("east"))
        ),
        {"ada"},
    ),
}


class Answers:
    """In place of the orchestrator's server: gives one edition."""

    def __init__(self, roster: Roster, serial: int = 2, handovers: tuple[Signed, ...] = ()) -> None:
        edition = Edition(serial=serial, previous="", made="", roster=roster, handovers=handovers)
        self.said = dump(seal(ORCHESTRATOR, EDITION, edition))

    def get_json(self, path: str) -> Any:
        assert path == "/roster"
        return self.said


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home.create(tmp_path / "own", Config(name="own", institution="Own", role="datasite", orchestrator_url=""))
    present(made.party()).save(made.folder / "roster.json")
    return made


@pytest.mark.parametrize("how", MOVES)
def test_who_would_get_another_part_is_named_and_nobody_can_put_it_in_force(home: Home, how: str) -> None:
    changed, moved = MOVES[how]
    client: Any = Answers(changed(home.roster()))
    look(home, client)
    change = offered(home)
    assert change is not None and {party.name for party in change.moved} == moved
    assert all(f"!{name}" in change.title for name in moved)
    with pytest.raises(InvalidInput, match="another part"):
        confirm(home, change.digest)
    assert home.roster() == present(home.party()) and (home.folder / OFFERED).exists()


def test_an_honest_edition_shows_the_part_of_who_joins(home: Home) -> None:
    roster = home.roster()
    client: Any = Answers(replace(roster, sites=(*roster.sites, party("east"))))
    look(home, client)
    change = offered(home)
    assert change is not None and not change.moved and change.edition.roster.role_of("east") == "datasite"
    confirm(home, change.digest)
    assert home.roster().by_name("east") == party("east")


def test_the_keyholders_people_read_which_part_somebody_gets(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Played: a hospital that nobody knows, announced as if it were a scientist."""
    import orchestrator.studies.status as status
    from orchestrator.cli.main import app

    class Client(Answers):
        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None: ...

    roster = home.roster()
    changed = replace(roster, sites=(*roster.sites, party("east")), scientists=(*roster.scientists, party("dora")))
    monkeypatch.setattr(status, "client_of", lambda _, **__: Client(changed))
    shown = CliRunner().invoke(app, ["confirm-roster", "--home", str(home.folder)]).output
    assert "east (East) joins as hospital:" in shown and "dora (Dora) joins as scientist:" in shown
    moved = replace(roster, keyholder=roster.helpers[0], helpers=(roster.keyholder, roster.helpers[1]))
    monkeypatch.setattr(status, "client_of", lambda _, **__: Client(moved))
    found = CliRunner().invoke(app, ["confirm-roster", "--home", str(home.folder), "--by", "K. Holder"])
    assert found.exit_code != 0 and home.roster() == roster
    assert json.loads((home.folder / "roster.json").read_bytes())["keyholder"]["name"] == "neutral"


def test_hand_overs_that_contradict_one_another_are_not_kept(home: Home) -> None:
    """Played: keys of nobody hand over twice, so that the hand-overs kept here can be read no more."""
    stranger, now = Identity.from_seed(b"s" * 32), dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    first, second = (hand_over(stranger, Identity.generate(), name="nobody", now=now) for _ in range(2))
    roster = replace(home.roster(), sites=(*home.roster().sites, party("east")))
    early: Any = Answers(roster, handovers=(first,))
    look(home, early)
    change = offered(home)
    assert change is not None
    confirm(home, change.digest)
    late: Any = Answers(replace(roster, sites=(*roster.sites, party("far"))), serial=3, handovers=(second,))
    look(home, late)
    change = offered(home)
    assert change is not None
    with pytest.raises(InvalidInput, match="one hand-over a key"):
        confirm(home, change.digest)
    assert home.orchestrator_keys() == {ORCHESTRATOR.public_key} and home.roster() == roster


@pytest.mark.parametrize("role", ["keyholder", "helper"])
def test_who_was_admitted_serves_no_study_before_its_people_compared_the_roster(tmp_path: Path, role: Role) -> None:
    """Played: the orchestrator sends keyholder or helper a roster of its own making with the admission."""
    config = Config(name=role + "-x", institution="Neutral", role=role, orchestrator_url="https://study.example")
    home = Home.create(tmp_path / role, config)
    roster = present(party("own"))
    parts = {"keyholder": home.party()} if role == "keyholder" else {"helpers": (home.party(), party("help-two"))}
    edition = Edition(serial=1, previous="", made="", roster=replace(roster, **parts))
    invitation = Invitation(
        number="0" * 32,
        role=role,
        name=config.name,
        institution=config.institution,
        orchestrator_url=config.orchestrator_url,
        orchestrator=roster.orchestrator,
        made="",
        expires="",
    )
    _admit(home, invitation, {"roster": dump(seal(ORCHESTRATOR, EDITION, edition))})
    client: Any = SimpleNamespace(get_json=lambda _: {"proposal": {}, "approvals": {}})
    with contextlib.closing(Journal(home.folder / "journal.sqlite", home.identity())) as journal:
        served = Served(home=home, client=client, journal=journal)
        with pytest.raises(Refused, match="nobody here has compared"):
            served.study("pilot")
        change = offered(home)
        assert change is not None and set(change.joins) == set(edition.roster.known) - {home.party()}
        with pytest.raises(Refused, match="look again"):
            confirm(home, "0" * 64)
        confirm(home, change.digest)
        assert offered(home) is None and home.roster() == edition.roster
        with pytest.raises(InvalidInput, match="not a valid Signed"):  # the roster holds it up no more
            served.study("pilot")
