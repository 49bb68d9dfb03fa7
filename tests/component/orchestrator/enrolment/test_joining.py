"""A party comes into a consortium with two commands: over TLS, by file or by code, and never with half a folder."""

from __future__ import annotations

import datetime as dt
import json
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from support.connect_proxy import PASSWORD, connect_proxy
from support.joined import CONSORTIUM, HOSPITALS, Consortium
from support.web_server import serving
from support.what_leaves import Request, fields_of, unaccounted

from datasites.node.credentials import tls
from datasites.node.credentials.tls import ascii_host
from datasites.node.credentials.trust import client_context
from datasites.node.files import write_atomically
from datasites.node.health import alive
from datasites.node.home import Home
from datasites.node.joining import entering
from datasites.node.joining.certificates import requested_names
from datasites.node.joining.changes import confirm, look, offered
from datasites.node.joining.documents import EDITION, Edition, read_invitation
from datasites.node.joining.entering import await_admission, renew_certificate
from datasites.review.policy import Policy
from datasites.study.signing import dump, seal
from orchestrator.api.joining import founding_app
from orchestrator.enrolment.desk import Desk
from privacy.errors import InvalidInput, Refused, Tampered, TesseraError
from privacy.identity import fingerprint

ASCII_NAME = ascii_host("studie-köln.example")
NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


@pytest.fixture
def founding(consortium: Consortium) -> Iterator[Consortium]:
    """The same with its server up, on the port that its address names."""
    home = consortium.orchestrator
    with serving(founding_app(home), home.config(), port=consortium.port):
        yield consortium


def test_the_portals_certificate_is_renewed_by_a_start_with_its_key_and_names(
    founding: Consortium, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    invitations = founding.invite_all()
    for name in ("keyholder", *HOSPITALS):
        founding.join(invitations / f"{name}.invitation", name, "--portal-name", f"portal.{name}.example")
    with monkeypatch.context() as soon:
        soon.setattr(tls, "SERVER_DAYS", 29)
        founding.admit_all()
        for name in HOSPITALS:
            await_admission(Home(folder=founding.folder / name), seconds=30)
    home, now = Home(folder=founding.folder / "hospital-a"), dt.datetime.now(dt.UTC)
    place = home.folder / "tls" / "portal.pem"
    before = place.read_bytes()
    assert not renew_certificate(home, now=now - dt.timedelta(days=300)) and place.read_bytes() == before
    assert renew_certificate(home, now=now)
    old, new = x509.load_pem_x509_certificate(before), x509.load_pem_x509_certificate(place.read_bytes())
    assert new.not_valid_after_utc - old.not_valid_after_utc > dt.timedelta(days=700)
    assert new.public_key() == old.public_key() and new.subject == old.subject
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(place, home.folder / "tls" / "portal.key")  # they belong together
    assert not renew_certificate(home, now=now)
    other = Home(folder=founding.folder / "hospital-b")
    there = other.folder / "tls" / "portal.pem"
    kept = there.read_bytes()
    for lie in (place.read_bytes(), b"", b"no certificate", kept):  # another's, none, and the same once more
        monkeypatch.setattr(entering, "_send", lambda *_, lie=lie, **__: {"certificate": lie.decode()})
        assert not renew_certificate(other, now=now) and there.read_bytes() == kept
    assert caplog.text.count("was not renewed") == 4
    asked = list[object]()
    monkeypatch.setattr(entering, "_send", lambda *_, **__: asked.append(1))
    config = json.loads((other.folder / "config.json").read_bytes())
    write_atomically(other.folder / "config.json", json.dumps({**config, "tls_certificate": "own.pem"}).encode())
    assert not renew_certificate(other, now=now) and not asked  # one of its own authority is its own affair


def test_the_operator_makes_folder_and_invitations_in_one_command(tessera: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "consortium.toml").write_text(CONSORTIUM)
    home, out = tmp_path / "o", tmp_path / "invitations"
    made = ("orchestrator", "init", "--home", home, "--public-url", "https://study.example:8443")
    tessera(*made, "--consortium", tmp_path / "consortium.toml", code=2)
    tessera(*made, "--consortium", tmp_path / "no.toml", "--out", out, code=2)
    tessera(*made, "--consortium", tmp_path / "consortium.toml", "--out", out, "--schema", tmp_path / "no", code=2)
    assert not home.exists() and not out.exists()
    said = tessera(*made, "--consortium", tmp_path / "consortium.toml", "--out", out)
    assert '"role": "orchestrator"' in said and "`tessera admit` once they have joined" in said
    for name in ("keyholder", *HOSPITALS):
        _, invitation = read_invitation((out / f"{name}.invitation").read_bytes())
        assert (invitation.name, invitation.orchestrator) == (name, Home(folder=home).party())
        assert "CERTIFICATE" in invitation.ca


def test_a_consortium_is_founded_with_two_commands_a_party(founding: Consortium) -> None:
    invitations = founding.invite_all()
    assert sorted(path.name for path in invitations.iterdir()) == sorted(
        f"{name}.{kind}" for name in ("keyholder", *HOSPITALS) for kind in ("invitation", "png")
    )
    for name in ("keyholder", *HOSPITALS):
        founding.join(invitations / f"{name}.invitation", name, "--portal-name", f"portal.{name}.example")
    listed = founding.tessera("admit", "--home", founding.home)
    for name in HOSPITALS:
        party = Home(folder=founding.folder / name).party()
        assert fingerprint(party.public_key) in listed and f"certificate for portal.{name}.example" in listed
    founding.admit_all()
    for name in ("keyholder", *HOSPITALS):
        home = Home(folder=founding.folder / name)
        await_admission(home, seconds=120)
        assert home.roster() == founding.orchestrator.roster()
        assert home.config().orchestrator_url == founding.url
        assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    site = Home(folder=founding.folder / "hospital-a")
    assert Policy.load(site.folder / "policy.toml").budget.epsilon_cap == 10.0
    certificate = x509.load_pem_x509_certificate(Path(site.config().tls_certificate).read_bytes())
    ca = x509.load_pem_x509_certificate((site.folder / "ca.pem").read_bytes())
    certificate.verify_directly_issued_by(ca)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == ["portal.hospital-a.example"]
    assert Home(folder=founding.folder / "keyholder").config().tls_certificate == ""
    assert {path.name for path in founding.folder.iterdir() if path.name.startswith(".")} == set()


def test_every_field_that_joining_sends_has_a_row_in_what_leaves_a_hospital(
    founding: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    handle = httpx.HTTPTransport.handle_request

    def record(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        target, headers = request.url.raw_path.decode(), dict(request.headers)
        if request.url.port == founding.port:  # what other tests left running in this process also asks
            sent.append(Request(method=request.method, target=target, headers=headers, body=request.read()))
        return handle(transport, request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", record)
    picture = founding.folder / "code.png"
    founding.invite("hospital-a", "--institution", "A", "--out", founding.folder / "a.invitation", "--qr", picture)
    founding.join(picture, "hospital-a", "--portal-name", "portal.a.example")
    assert [request.method for request in sent] == ["GET", "POST"]
    assert [line for request in sent for line in unaccounted(request)] == []
    names = {name for request in sent for name, _ in fields_of(request)}
    assert {"signed.payload.certificate_request", "signed.payload.institution"} <= names


@pytest.mark.parametrize("form", ["picture", "text"])
def test_a_hospital_joins_from_the_code_alone_and_its_hash_holds_what_is_sent(founding: Consortium, form: str) -> None:
    picture = founding.folder / "code.png"
    founding.invite("hospital-a", "--institution", "A", "--out", founding.folder / "a.invitation", "--qr", picture)
    data = (founding.folder / "a.invitation").read_bytes()
    from datasites.node.joining.codes import read_picture

    code = read_picture(picture.read_bytes())
    _, known = read_invitation(data)
    said = founding.join(picture if form == "picture" else code.text, "hospital-a")
    assert fingerprint(known.orchestrator.public_key) in said
    kept = founding.folder / "hospital-a" / "joining" / "invitation.json"
    assert read_invitation(kept.read_bytes())[1] == known
    place = founding.home / "joining" / known.number / "invitation.json"
    place.write_bytes(data.replace(b'"name":"hospital-a"', b'"name":"hospital-x"'))
    said = founding.join(code.text, "again", code=1)
    assert "another invitation than the code names" in said and not (founding.folder / "again").exists()


def test_the_schema_of_the_studies_comes_along(founding: Consortium) -> None:
    out = founding.folder / "a.invitation"
    founding.invite("hospital-a", "--institution", "A", "--out", out, "--schema", "toy")
    founding.join(out, "hospital-a")
    schema = founding.folder / "hospital-a" / "schema.json"
    assert "toy" in founding.tessera("schema", "check", schema)


# what is not good -----------------------------------------------------------------------------------------------


def _one(consortium: Consortium, *more: object) -> Path:
    out = consortium.folder / "a.invitation"
    consortium.invite("hospital-a", "--institution", "Hospital A", "--out", out, *more)
    return out


@pytest.mark.parametrize(
    ("bad", "code", "said"),
    [
        (lambda _: b"not an invitation", 2, "expected an invitation"),
        (lambda _: b"", 2, "expected an invitation"),
        (lambda data: data[:-20], 2, "expected an invitation"),
        (lambda _: b"[" * 100_000, 2, "expected an invitation"),
        (lambda _: b"x" * (4 * 1024**2 + 1), 2, "at most"),
        (lambda data: data.replace(b"Hospital A", b"Hospital B"), 1, "signature"),
        (lambda data: data.replace(b"https://localhost", b"https://localhast"), 1, "signature"),
        (lambda data: data.replace(b'"kind":"invitation"', b'"kind":"roster"'), 2, "expected an invitation"),
        (lambda data: b"\x89PNG\r\n\x1a\n" + data, 2, "picture"),
    ],
    ids=["prose", "empty", "cut", "deep", "long", "other-institution", "other-address", "other-kind", "no-picture"],
)
def test_what_is_no_sound_invitation_is_refused_in_one_line_and_leaves_nothing(
    consortium: Consortium, bad: Callable[[bytes], bytes], code: int, said: str
) -> None:
    out = _one(consortium)
    out.write_bytes(bad(out.read_bytes()))
    before = sorted(path.name for path in consortium.folder.iterdir())
    assert said in consortium.join(out, "hospital-a", "--offline", code=code)
    assert sorted(path.name for path in consortium.folder.iterdir()) == before


def test_an_expired_invitation_is_refused_at_both_ends(founding: Consortium) -> None:
    desk = Desk(home=founding.orchestrator)
    from orchestrator.enrolment.desk import Member

    (issued,) = desk.invite([Member(role="datasite", name="hospital-a", institution="A")], days=1, now=NOW)
    (founding.folder / "old").write_bytes(issued.data)
    assert "expired on 2026-03-02" in founding.join(founding.folder / "old", "hospital-a", code=3)
    assert not (founding.folder / "hospital-a").exists()
    entering.enter(issued.data, founding.folder / "early", entering.Place(), now=NOW, offline=True)
    with pytest.raises(Refused, match="expired"):
        await_admission(Home(folder=founding.folder / "early"), seconds=120)


def test_an_invitation_is_good_for_one_party_and_for_it_again_and_again(founding: Consortium) -> None:
    out = _one(founding)
    founding.join(out, "hospital-a")
    home = Home(folder=founding.folder / "hospital-a")
    with pytest.raises(TesseraError, match="not admitted"):
        await_admission(home, seconds=0)
    assert "waits for the consortium's operator" in alive(home.folder)
    said = founding.join(out, "thief", code=3)
    assert "used already" in said and fingerprint(home.party().public_key) in said
    assert not (founding.folder / "thief").exists()
    said = founding.invite("hospital-a", "--institution", "A", "--out", founding.folder / "second", code=2)
    assert "has answered already" in said and not (founding.folder / "second").exists()


def test_who_has_not_answered_gets_a_new_invitation_in_place_of_the_old_one(founding: Consortium) -> None:
    out = _one(founding)
    old = out.read_bytes()
    out.unlink()
    _one(founding)
    (founding.folder / "old").write_bytes(old)
    assert "no such invitation" in founding.join(founding.folder / "old", "hospital-a", code=3)
    founding.join(out, "hospital-a")


def test_a_folder_with_something_in_it_is_left_alone(consortium: Consortium) -> None:
    out = _one(consortium)
    full = consortium.folder / "full"
    full.mkdir()
    (full / "note").write_text("mine")
    assert "expected a missing or empty folder" in consortium.join(out, "full", "--offline", code=2)
    assert [path.name for path in full.iterdir()] == ["note"]
    (consortium.folder / "empty").mkdir()
    consortium.join(out, "empty", "--offline")
    assert "a Tessera home" in consortium.join(out, "empty", "--offline", code=2)


def test_an_orchestrator_that_does_not_answer_leaves_no_folder(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entering, "_TRY_SECONDS", 0)
    assert "did not answer" in consortium.join(_one(consortium), "hospital-a", code=1)
    assert not (consortium.folder / "hospital-a").exists()


def test_another_orchestrators_fingerprint_is_refused(consortium: Consortium) -> None:
    said = consortium.join(_one(consortium), "a", "--offline", "--fingerprint", "0000 0000 0000 0000", code=2)
    assert "ask who sent it" in said and not (consortium.folder / "a").exists()
    own = fingerprint(consortium.orchestrator.party().public_key)
    consortium.join(consortium.folder / "a.invitation", "a", "--offline", "--fingerprint", own.upper())


def test_nobody_gets_a_certificate_of_the_orchestrators_name(founding: Consortium) -> None:
    invitations = founding.invite_all()
    for name in ("keyholder", *HOSPITALS):
        host = "LOCALHOST" if name == "hospital-b" else f"{name}.example"
        founding.join(invitations / f"{name}.invitation", name, "--portal-name", host)
    said = founding.tessera("admit", "--all", "--home", founding.home, code=3)
    assert "orchestrator's own name" in said and not (founding.home / "roster.json").exists()


def test_a_portals_name_may_be_of_any_language_or_an_address(consortium: Consortium) -> None:
    out = _one(consortium)
    names = [text for name in ("klinik-köln.example", "::1", "192.0.2.7") for text in ("--portal-name", name)]
    consortium.join(out, "hospital-a", "--offline", *names)
    request = (consortium.folder / "hospital-a" / "tls" / "portal.csr").read_text()
    assert requested_names(request) == ("xn--klinik-kln-lcb.example", "::1", "192.0.2.7")
    said = consortium.join(out, "other", "--offline", "--portal-name", "no host!", code=2)
    assert "name or the address of a host" in said and not (consortium.folder / "other").exists()


def test_too_few_hospitals_found_no_consortium(founding: Consortium) -> None:
    founding.join(_one(founding), "hospital-a")
    assert "at least three hospitals" in founding.tessera("admit", "--all", "--home", founding.home, code=2)
    assert "somebody who has answered" in founding.tessera("admit", "nobody", "--home", founding.home, code=2)


# through a proxy, and by names that are not ASCII -----------------------------------------------------------------


def test_a_hospital_joins_and_waits_through_a_proxy_whose_password_is_told_to_nobody(
    tmp_path: Path, tessera: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    consortium = Consortium(tmp_path, tessera, host="studie-köln.example")
    out, home = _one(consortium), consortium.orchestrator
    with connect_proxy() as proxy, serving(founding_app(home), home.config(), port=consortium.port):
        proxy.elsewhere[ASCII_NAME] = ("127.0.0.1", consortium.port)
        said = consortium.join(out, "hospital-a", "--proxy", proxy.url)
        with pytest.raises(TesseraError, match="not admitted"):
            await_admission(Home(folder=tmp_path / "hospital-a"), seconds=0)
        assert proxy.targets and {target.rpartition(":")[0] for target in proxy.targets} == {ASCII_NAME}
        wrong = proxy.url.replace(PASSWORD, "another-secret")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(entering, "_TRY_SECONDS", 0)
            said += consortium.join(out, "other", "--proxy", wrong, code=1)
        assert proxy.refused and not (tmp_path / "other").exists()
    assert PASSWORD not in said + caplog.text and "another-secret" not in said + caplog.text
    for file in (tmp_path / "hospital-a").rglob("*"):
        if file.is_file() and PASSWORD in file.read_text(errors="ignore"):
            assert file.name == "config.json" and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_orchestrator_is_dialled_by_its_ipv6_address(tmp_path: Path, tessera: Callable[..., str]) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    consortium = Consortium(tmp_path, tessera, host="[::1]")
    out, home = _one(consortium), consortium.orchestrator
    with serving(founding_app(home), home.config(), port=consortium.port, host="::1"):
        consortium.join(out, "hospital-a")
    assert Home(folder=tmp_path / "hospital-a").config().orchestrator_url == f"https://[::1]:{consortium.port}"


# changes of the roster --------------------------------------------------------------------------------------------


class Answers:
    """In place of the orchestrator's client: what ``GET /roster`` says."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.said: Any = None

    def get_json(self, path: str) -> Any:
        assert path == "/roster"
        return (
            self.said if self.said is not None else json.loads((self.home.folder / "roster.signed.json").read_bytes())
        )


@pytest.fixture
def founded(founding: Consortium) -> Consortium:
    invitations = founding.invite_all()
    for name in ("keyholder", *HOSPITALS):
        founding.join(invitations / f"{name}.invitation", name)
    founding.admit_all()
    for name in ("keyholder", *HOSPITALS):
        await_admission(Home(folder=founding.folder / name), seconds=120)
    return founding


def test_a_new_hospital_is_offered_to_the_others_and_in_force_once_they_confirm(founded: Consortium) -> None:
    out = founded.folder / "d.invitation"
    founded.invite("hospital-d", "--institution", "Hospital D", "--out", out)
    assert read_invitation(out.read_bytes())[1].roster == founded.orchestrator.roster()
    founded.join(out, "hospital-d")
    founded.tessera("admit", "hospital-d", "--home", founded.home)
    late, home = Home(folder=founded.folder / "hospital-d"), Home(folder=founded.folder / "hospital-a")
    await_admission(late, seconds=120)
    assert late.roster() == founded.orchestrator.roster()
    client: Any = Answers(founded.orchestrator)
    look(home, client)
    change = offered(home)
    assert change is not None and [party.name for party in change.joins] == ["hospital-d"] and not change.leaves
    assert len(home.roster().sites) == 3  # nobody has confirmed it
    with pytest.raises(Refused, match="look again"):
        confirm(home, "0" * 64)
    confirm(home, change.digest)
    assert home.roster() == late.roster() and offered(home) is None
    look(home, client)
    assert offered(home) is None
    look(late, client)
    assert offered(late) is None


def test_a_roster_that_somebody_else_signed_or_that_is_older_is_never_offered(founded: Consortium) -> None:
    home = Home(folder=founded.folder / "hospital-a")
    client: Any = Answers(founded.orchestrator)
    present = json.loads((founded.home / "roster.signed.json").read_bytes())
    client.said = present | {"payload": present["payload"] | {"serial": 9}}
    with pytest.raises(Tampered):
        look(home, client)
    stranger = Home(folder=founded.folder / "hospital-b")
    client.said = dump(
        seal(stranger.identity(), EDITION, Edition(serial=9, previous="", made="", roster=home.roster()))
    )
    with pytest.raises(InvalidInput, match="another key"):
        look(home, client)
    client.said = present
    look(home, client)
    assert offered(home) is None and home.roster() == founded.orchestrator.roster()


def test_who_leaves_is_named_and_is_not_asked(founded: Consortium) -> None:
    out = founded.folder / "d.invitation"
    founded.invite("hospital-d", "--institution", "Hospital D", "--out", out)
    founded.join(out, "hospital-d")
    founded.tessera("admit", "hospital-d", "--without", "hospital-c", "--home", founded.home)
    client: Any = Answers(founded.orchestrator)
    for name in ("hospital-a", "hospital-c"):
        home = Home(folder=founded.folder / name)
        look(home, client)
        change = offered(home)
        assert change is not None and [party.name for party in change.leaves] == ["hospital-c"]
    with pytest.raises(Refused, match="leaves this party out"):
        confirm(home, change.digest)


def test_the_orchestrators_server_is_who_the_invitation_says(founding: Consortium) -> None:
    out = _one(founding)
    _, known = read_invitation(out.read_bytes())
    context = client_context(founding.home / "tls" / "ca.pem")
    with (
        socket.create_connection(("127.0.0.1", founding.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert secure.version()
    assert known.ca == (founding.home / "tls" / "ca.pem").read_text()
