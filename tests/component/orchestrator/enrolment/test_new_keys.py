"""Keys of parties become other ones: `tessera ROLE rotate`, `tessera admit`, and the others' people confirm."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.ports import kept_port
from support.joined import HOSPITALS
from support.web_server import serving

from datasites.node.consortium import Enrolled, build_roster
from datasites.node.home import Config, Home, Role
from datasites.node.http import SignedClient
from datasites.node.joining import rotating
from datasites.node.joining.changes import confirm, look, offered
from datasites.node.joining.entering import EDITION_FILE
from datasites.node.joining.rotating import rotate, tell
from datasites.node.keys.handover import HANDOVER, HandOver, hand_over
from datasites.node.letters import Place, open_letter, seal_letter
from datasites.study.proposal import Party
from datasites.study.signing import Signed, dump, open_sealed, parse, seal
from orchestrator.api.joining import add_handovers, add_roster, founding_app
from orchestrator.enrolment.desk import Desk
from orchestrator.enrolment.handing_over import HandOvers
from privacy.errors import InvalidInput, Refused, Tampered, TesseraError
from privacy.identity import Identity, fingerprint
from privacy.ledger.journal import Journal
from privacy.ledger.verification import verify_folder

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


class Founded:
    """The folders of a consortium without TLS: keys are all that counts here."""

    def __init__(self, folder: Path, tessera: Callable[..., str]) -> None:
        self.folder, self.tessera, self.home = folder, tessera, folder / "orchestrator"
        self.port = kept_port()
        self.url = f"http://127.0.0.1:{self.port}"
        roles: dict[str, Role] = {"orchestrator": "orchestrator", "keyholder": "keyholder", "ada": "scientist"}
        roles |= dict.fromkeys(HOSPITALS, "datasite")
        homes = {name: self._made(name, role) for name, role in roles.items()}
        roster = build_roster(Enrolled(role=roles[name], party=home.party()) for name, home in homes.items())
        for home in homes.values():
            roster.save(home.folder / "roster.json")
            with closing(Journal(home.folder / "journal.sqlite", home.identity())) as journal:
                journal.append("started", {})
        Desk(home=homes["orchestrator"]).sign(roster, now=NOW)
        for name in ("keyholder", *HOSPITALS):
            shutil.copyfile(self.home / EDITION_FILE, homes[name].folder / EDITION_FILE)

    def _made(self, name: str, role: Role) -> Home:
        config = Config(name=name, institution=name.title(), role=role, orchestrator_url=self.url, port=self.port)
        return Home.create(self.folder / name, config)

    @property
    def orchestrator(self) -> Home:
        return Home(folder=self.home)


@pytest.fixture
def founded(tmp_path: Path, tessera: Callable[..., str]) -> Founded:
    return Founded(tmp_path, tessera)


def home_of(consortium: Founded, name: str) -> Home:
    return Home(folder=consortium.folder / name)


@contextmanager
def running(consortium: Founded) -> Iterator[None]:
    """The orchestrator as far as rosters and keys go; it reads its roster anew for every request."""
    from orchestrator.api.authentication import Authenticator

    home = consortium.orchestrator
    app = founding_app(home)
    add_handovers(app, home)
    add_roster(app, home, Authenticator(home.identity().public_key, lambda key: home.roster().known_by_key(key)))
    with serving(app, home.config(), port=consortium.port):
        yield


def client_of(home: Home) -> SignedClient:
    config, key = home.config(), home.roster().orchestrator.public_key
    return SignedClient(home.identity(), config.orchestrator_url, key, ca=config.ca, retry_seconds=0)


def confirmed(consortium: Founded, name: str) -> None:
    home = home_of(consortium, name)
    with client_of(home) as client:
        look(home, client)
    change = offered(home)
    assert change is not None and not change.unsigned
    confirm(home, change.digest)


@pytest.mark.parametrize("name", ["hospital-a", "keyholder"])
def test_a_party_goes_on_with_a_new_key_once_operator_and_others_have_confirmed_it(founded: Founded, name: str) -> None:
    home = home_of(founded, name)
    old = home.identity()
    said = founded.tessera(
        name.partition("-")[0].replace("hospital", "datasite"), "rotate", "--now", "--home", home.folder
    )
    new = home.identity()
    assert fingerprint(new.public_key) in said and new.public_key != old.public_key
    assert home.party() == home.roster().by_name(name)
    assert verify_folder(home.folder, public_key=new.public_key).holds
    assert new.derive_lasting_secret("cases") == old.derive_secret("cases") != new.derive_secret("cases")
    assert new.derive_secret_of(old.public_key, "noise") == old.derive_secret("noise")
    assert new.derive_secret_of(new.public_key, "noise") == new.derive_secret("noise")
    with pytest.raises(InvalidInput, match="cannot be drawn again"):
        new.derive_secret_of(Identity.generate().public_key, "noise")
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in home.folder.glob("identity*.pem"))
    told: list[str] = []
    with running(founded):
        with pytest.raises(TesseraError, match="was not admitted"):
            tell(home, told=told.append, seconds=0)
        assert fingerprint(new.public_key) in told[0]
        listed = founded.tessera("admit", "--home", founded.home)
        assert f"{name}: hands over" in listed and fingerprint(new.public_key) in listed
        with client_of(home) as client, pytest.raises(Refused, match="not known here"):
            client.get_json("/roster")
        founded.tessera("admit", name, "--home", founded.home)
        waits = (home.folder / "handover.json").read_bytes()
        tell(home, seconds=0)
        (home.folder / "handover.json").write_bytes(waits)  # as if it was killed before it had deleted this
        tell(home, seconds=0)
        with client_of(home) as client:
            look(home, client)
        other = "hospital-b"
        with client_of(home_of(founded, other)) as client:
            look(home_of(founded, other), client)
        change = offered(home_of(founded, other))
        assert change is not None and change.title == f"{name} (new key)" and not change.unsigned
        shown = founded.tessera("confirm-roster", "--home", founded.folder / other, "--by", "Bela")
        assert fingerprint(new.public_key) in shown and "has a new key" in shown
        assert home_of(founded, other).roster() == founded.orchestrator.roster()
        assert home_of(founded, other).roster().by_name(name) == home.party()
        thief = SignedClient(old, founded.url, founded.orchestrator.party().public_key, retry_seconds=0)
        with thief, pytest.raises(Refused, match="not known here"):
            thief.get_json("/roster")
    assert not (home.folder / "handover.json").exists() and len(home.handovers()) == 1


def test_a_scientist_goes_on_without_a_process(founded: Founded) -> None:
    home = home_of(founded, "ada")
    old = home.identity().public_key
    with running(founded):
        said = founded.tessera("scientist", "rotate", "--home", home.folder, "--now")
        new = home.identity().public_key
        assert new != old and fingerprint(new) in said and "was not admitted" in said
        said = founded.tessera("scientist", "rotate", "--home", home.folder)
        assert home.identity().public_key == new and "tessera admit" in said
        founded.tessera("admit", "ada", "--home", founded.home)
        said = founded.tessera("scientist", "rotate", "--home", home.folder)
        assert home.identity().public_key == new and "has admitted the new key" in said
        with client_of(home) as client:
            assert client.get_json("/roster")["payload"]["roster"]["scientists"][0]["public_key"] == new
        confirmed(founded, "hospital-a")
    assert home_of(founded, "hospital-a").roster().scientists[0].public_key == new


def test_letters_of_the_old_key_stay_readable_and_nobody_elses_are(founded: Founded) -> None:
    home, reader = home_of(founded, "hospital-a"), home_of(founded, "hospital-b")
    place = Place(owner="hospital-a", box="collection", folder="stages", name="mock.json")
    letter = seal_letter(home.identity(), place, b"mock")
    with running(founded):
        rotate(home, now=NOW)
        with pytest.raises(TesseraError):
            tell(home, seconds=0)
        HandOvers(founded.orchestrator).admit(["hospital-a"], now=NOW)
        confirmed(founded, "hospital-b")
    assert open_letter(letter, place, reader.keys_of("hospital-a")) == b"mock"
    assert open_letter(seal_letter(home.identity(), place, b"new"), place, reader.keys_of("hospital-a")) == b"new"
    for other in (Identity.generate(), reader.identity()):
        with pytest.raises(Tampered, match="another key"):
            open_letter(seal_letter(other, place, b"forged"), place, reader.keys_of("hospital-a"))


def test_two_steps_at_once_are_followed_by_who_was_away(founded: Founded) -> None:
    home, away = home_of(founded, "hospital-a"), home_of(founded, "hospital-c")
    with running(founded):
        for _ in range(2):
            rotate(home, now=NOW)
            with pytest.raises(TesseraError):
                tell(home, seconds=0)
            HandOvers(founded.orchestrator).admit(["hospital-a"], now=NOW)
            tell(home, seconds=0)
        confirmed(founded, "hospital-c")
    assert away.roster().by_name("hospital-a") == home.party() and len(away.handovers()) == 2


def test_the_orchestrator_changes_its_key_and_every_party_finds_the_new_one(founded: Founded) -> None:
    home = founded.orchestrator
    old = home.identity()
    document = seal(old, "proposal", home.party())
    said = founded.tessera("orchestrator", "rotate", "--home", home.folder)
    assert "edition 2" in said and home.identity().public_key != old.public_key
    with running(founded):
        for name in ("keyholder", *HOSPITALS):
            confirmed(founded, name)
            party = home_of(founded, name)
            assert party.roster().orchestrator == home.party()
            assert party.orchestrator_keys() == {old.public_key, home.identity().public_key}
            with client_of(party) as client:
                assert client.get_json("/roster")["payload"]["serial"] == 2
            open_sealed(document, "proposal", party.orchestrator_keys(), Party)
    assert home.orchestrator_keys() == {old.public_key, home.identity().public_key}
    with pytest.raises(InvalidInput, match="another key"):
        open_sealed(
            seal(Identity.generate(), "proposal", home.party()),
            "proposal",
            home.orchestrator_keys(),
            type(home.party()),
        )


def test_a_rotation_that_was_cut_short_is_finished_by_the_same_command(
    founded: Founded, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_of(founded, "hospital-a")
    kept = Path(shutil.copytree(home.folder, founded.folder / "kept"))
    for step in ("hand_over", "_go_on", "_replace_own"):
        shutil.rmtree(home.folder)
        shutil.copytree(kept, home.folder)

        def cut(*_: Any, **__: Any) -> None:
            raise OSError("the power went")

        with monkeypatch.context() as patch:
            patch.setattr(rotating, step, cut)
            with pytest.raises(OSError, match="the power went"):
                rotate(home, now=NOW)
        found = rotate(home, now=NOW)
        assert found == fingerprint(home.identity().public_key)
        assert verify_folder(home.folder, public_key=home.identity().public_key).holds
        assert not (home.folder / "identity.next.pem").exists() and home.roster().by_name("hospital-a") == home.party()


def test_a_second_key_waits_until_the_first_is_admitted(founded: Founded) -> None:
    home = home_of(founded, "hospital-a")
    rotate(home, now=NOW)
    assert "is not admitted yet" in founded.tessera("datasite", "rotate", "--now", "--home", home.folder, code=3)


def test_open_studies_are_named_and_nobody_rotates_in_silence(
    founded: Founded, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_of(founded, "hospital-a")
    before = home.identity().public_key
    monkeypatch.setattr(rotating, "studies_at", lambda _: ["pilot", "second"])
    said = founded.tessera("datasite", "rotate", "--home", home.folder, code=3)
    assert "pilot, second" in said and "--now" in said and home.identity().public_key == before
    monkeypatch.undo()
    monkeypatch.setattr(rotating, "_TRY_SECONDS", 0)
    said = founded.tessera("datasite", "rotate", "--home", home.folder, code=3)  # nobody answers
    assert "--now rotates without" in said and home.identity().public_key == before


# attacks ----------------------------------------------------------------------------------------------------------


def offer(consortium: Founded, signed: Signed) -> dict[str, str]:
    return HandOvers(consortium.orchestrator).take(signed)


def test_a_stolen_old_key_hands_over_to_nobody_after_the_rotation(founded: Founded) -> None:
    home = home_of(founded, "hospital-a")
    stolen = home.identity()
    rotate(home, now=NOW)
    offer(founded, parse(Signed, (home.folder / "handover.json").read_bytes()))
    thief = hand_over(stolen, Identity.generate(), name="hospital-a", now=NOW)
    with pytest.raises(Refused, match="stolen key"):
        offer(founded, thief)
    HandOvers(founded.orchestrator).admit(["hospital-a"], now=NOW)
    with pytest.raises(Refused, match="stolen"):
        offer(founded, thief)


def test_a_thief_who_comes_first_is_seen_when_the_party_comes(founded: Founded) -> None:
    home = home_of(founded, "hospital-a")
    thief = Identity.generate()
    offer(founded, hand_over(home.identity(), thief, name="hospital-a", now=NOW))
    rotate(home, now=NOW)
    with running(founded), pytest.raises(Refused, match=fingerprint(thief.public_key)):
        tell(home, seconds=0)


FORGED: dict[str, Callable[[Identity, Identity, str], Signed]] = {
    "signed-by-the-new-key": lambda old, new, name: seal(
        new, HANDOVER, parse(HandOver, hand_over(old, new, name=name, now=NOW).payload)
    ),
    "signed-by-a-stranger": lambda _, new, name: hand_over(Identity.from_seed(b"s" * 32), new, name=name, now=NOW),
    "another-name": lambda old, new, _: hand_over(old, new, name="hospital-b", now=NOW),
    "to-a-foreign-key": lambda old, _, name: seal(
        old,
        HANDOVER,
        HandOver(
            name=name,
            old_key=old.public_key,
            new_key=Identity.from_seed(b"f" * 32).public_key,
            made=NOW.isoformat(),
            taken=old.sign("key-handover-taken", {}),
        ),
    ),
    "to-itself": lambda old, _, name: hand_over(old, old, name=name, now=NOW),
    "another-purpose": lambda old, new, name: seal(
        old, "roster", parse(HandOver, hand_over(old, new, name=name, now=NOW).payload)
    ),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_hand_over_is_refused_and_nothing_is_kept(founded: Founded, how: str) -> None:
    home = home_of(founded, "hospital-a")
    signed = FORGED[how](home.identity(), Identity.generate(), "hospital-a")
    with pytest.raises((Refused, InvalidInput, Tampered)):
        offer(founded, signed)
    assert HandOvers(founded.orchestrator).waiting() == [] and not list(founded.home.glob("handovers/*"))


def test_a_key_that_somebody_has_is_nobodys_new_one(founded: Founded) -> None:
    a, b = (home_of(founded, name).identity() for name in ("hospital-a", "hospital-b"))
    with pytest.raises(Refused, match="somebody has or had"):
        offer(founded, hand_over(a, b, name="hospital-a", now=NOW))


def test_a_hand_over_played_again_changes_nothing_and_an_old_key_never_comes_back(founded: Founded) -> None:
    home = home_of(founded, "hospital-a")
    first = home.identity()
    rotate(home, now=NOW)
    signed = parse(Signed, (home.folder / "handover.json").read_bytes())
    assert offer(founded, signed) == offer(founded, signed) == {"state": "waiting"}
    HandOvers(founded.orchestrator).admit(["hospital-a"], now=NOW)
    present = founded.orchestrator.roster()
    assert offer(founded, signed) == {"state": "admitted"} and founded.orchestrator.roster() == present
    with pytest.raises(Refused, match="somebody has or had"):
        offer(founded, hand_over(home.identity(), first, name="hospital-a", now=NOW))
    with pytest.raises(InvalidInput, match="hands over a key"):
        HandOvers(founded.orchestrator).admit(["hospital-a"], now=NOW)
    assert founded.orchestrator.roster() == present


def test_an_orchestrator_that_gives_a_party_a_key_of_its_own_is_refused_by_the_others(founded: Founded) -> None:
    """Without a hand-over, and with one that another party's key signed."""
    mine = Identity.generate()
    roster = founded.orchestrator.roster()
    victim = roster.by_name("hospital-a")
    changed = rotating.with_key(roster, victim.public_key, mine.public_key)
    wrong = hand_over(home_of(founded, "hospital-b").identity(), mine, name="hospital-a", now=NOW)
    for handovers in ((), (wrong,)):
        founded.orchestrator.keep_handovers(handovers)
        Desk(home=founded.orchestrator).sign(changed, now=NOW)
        with running(founded):
            home = home_of(founded, "hospital-c")
            with client_of(home) as client:
                look(home, client)
            change = offered(home)
            assert change is not None and [party.name for party in change.unsigned] == ["hospital-a"]
            with pytest.raises(InvalidInput, match="has not signed"):
                confirm(home, change.digest)
        assert home.roster() == roster


def test_a_stranger_with_a_hand_over_of_its_own_is_no_orchestrator(founded: Founded) -> None:
    home, stranger = home_of(founded, "hospital-a"), Identity.generate()

    class Liar:
        def get_json(self, path: str) -> Any:
            if path == "/roster":
                raise rotating.Declined("no")
            return [dump(hand_over(stranger, stranger.successor(), name="orchestrator", now=NOW))]

    client: Any = Liar()
    with pytest.raises(Refused, match="call its operator"):
        look(home, client)
    assert offered(home) is None


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[" * 30_000, b'{"kind":"key-handover"}'], ids=["empty", "bare", "deep", "cut"]
)
def test_nonsense_is_no_hand_over(founded: Founded, body: bytes) -> None:
    with running(founded):
        found = httpx.post(f"{founded.url}/handovers", content=body)
        assert found.status_code == 400 and json.loads(found.content)["type"].startswith("urn:tessera:")
