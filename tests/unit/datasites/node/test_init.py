"""What a party may be called, and what a second ``init`` changes: nothing that was not given, and never who it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from cryptography import x509
from typer.testing import CliRunner

from datasites.helper.cli import app as helper
from datasites.hospital.cli import app as hospital
from datasites.keyholder.cli import app as keyholder
from datasites.node.consortium import Enrolled, build_roster, check_address, check_member, read_party
from datasites.node.home import Config, Home
from datasites.study.proposal import Party
from orchestrator.cli.roles import orchestrator_app as orchestrator
from orchestrator.cli.roles import scientist_app as scientist
from privacy.errors import InvalidInput
from privacy.identity import Identity

URL = "https://study.example:8443"


def init(home: Path, *more: str, app: Any = hospital, name: str = "alba", institution: str = "Alba") -> Any:
    given = ["init", "--home", str(home), "--name", name, "--institution", institution, "--orchestrator-url", URL]
    return CliRunner().invoke(app, [*given, *more])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    assert init(tmp_path / "alba", "--port", "8080", "--host", "0.0.0.0").exit_code == 0  # noqa: S104
    made = Home(folder=tmp_path / "alba")
    secured = replace(
        made.config(), ca="/etc/ca.pem", tls_certificate="/etc/own.pem", public_url="https://alba.example"
    )
    return Home.create(made.folder, secured)


def test_a_second_init_keeps_what_is_not_given_and_the_key(home: Home) -> None:
    before, key = home.config(), home.identity().public_key
    assert init(home.folder).exit_code == 0
    assert (home.config(), home.identity().public_key) == (before, key)
    assert init(home.folder, "--port", "9090").exit_code == 0
    assert home.config() == replace(before, port=9090)


def test_a_second_init_takes_what_is_given_also_where_a_new_folder_would_have_it_anyway(home: Home) -> None:
    before = home.config()
    assert (before.host, before.port) == ("0.0.0.0", 8080)  # noqa: S104
    assert init(home.folder, "--host", "127.0.0.1", "--port", "0").exit_code == 0
    assert home.config() == replace(before, host="127.0.0.1", port=0)


def test_a_second_init_without_a_name_keeps_the_one_that_was_given(tmp_path: Path) -> None:
    for app, usual, more in ((keyholder, "keyholder", ["--orchestrator-url", URL]), (orchestrator, "orchestrator", [])):
        for name in ([], ["--name", "notary", "--institution", "Office"]):
            folder = tmp_path / f"{usual}-{len(name)}"
            first = CliRunner().invoke(app, ["init", "--home", str(folder), *more, *name])
            assert first.exit_code == 0, first.output
            made = Home(folder=folder).config()
            assert made.name == ("notary" if name else usual)
            again = CliRunner().invoke(app, ["init", "--home", str(folder), *more])
            assert again.exit_code == 0, again.exception
            assert Home(folder=folder).config() == made


def test_a_second_init_of_an_orchestrator_changes_its_address_and_the_certificate_made_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "o"

    def said(*more: str) -> Config:
        assert CliRunner().invoke(orchestrator, ["init", "--home", str(folder), *more]).exit_code == 0
        return Home(folder=folder).config()

    first = said("--public-url", "https://old.example", "--port", "8443")
    assert said() == first
    assert said("--public-url", "https://new.example") == replace(first, public_url="https://new.example")
    certificate = x509.load_pem_x509_certificates(Path(first.tls_certificate).read_bytes())[0]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "new.example" in names.get_values_for_type(x509.DNSName)
    assert said("--public-url", "") == replace(first, public_url="")


@pytest.mark.parametrize("app", [hospital, keyholder, helper, orchestrator, scientist])
def test_what_is_not_given_to_an_init_can_be_told_from_what_is(app: Any) -> None:
    command = typer.main.get_command(app).commands["init"]  # type: ignore[attr-defined]
    assert [
        option.name for option in command.params if not option.required and option.default not in (None, False)
    ] == []


@pytest.mark.parametrize(
    "other", [{"name": "bruna"}, {"institution": "Bruna"}, {"app": keyholder}], ids=["name", "institution", "role"]
)
def test_a_second_init_as_somebody_else_changes_nothing(home: Home, other: dict[str, Any]) -> None:
    before = (home.folder / "config.json").read_bytes()
    refused = init(home.folder, **other)
    assert refused.exit_code != 0 and "others know" in str(refused.exception)
    assert (home.folder / "config.json").read_bytes() == before


def test_a_relative_file_of_the_settings_lies_in_the_home(home: Home) -> None:
    (home.folder / "ca.pem").write_text("")
    Home.create(home.folder, replace(home.config(), ca="ca.pem", tls_certificate=""))
    written = json.loads((home.folder / "config.json").read_bytes())
    assert (written["ca"], home.config().ca) == ("ca.pem", str(home.folder / "ca.pem"))
    assert home.config().tls_certificate == ""


@pytest.mark.parametrize(
    ("role", "name", "institution"),
    [
        ("datasite", "klinik-köln", "Klinik"),
        ("datasite", "", "Klinik"),
        ("datasite", "-a", "Klinik"),
        ("datasite", "a b", "Klinik"),
        ("datasite", "a" * 64, "Klinik"),
        ("datasite", "orchestrator", "Klinik"),
        ("helper", "Keyholder", "Klinik"),
        ("orchestrator", "keyholder", "Office"),
        ("datasite", "alba", ""),
        ("datasite", "alba", "   "),
        ("datasite", "alba", "Kli\u202enik"),
        ("datasite", "alba", "two\nlines"),
    ],
)
def test_a_name_that_others_refuse_is_refused_at_once(role: Any, name: str, institution: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        check_member(role, name, institution)
    (tmp_path / "party.json").write_text(
        json.dumps({"role": role, "name": name, "institution": institution, "public_key": "00" * 32})
    )
    with pytest.raises(InvalidInput):
        read_party(tmp_path / "party.json")


def test_a_refused_init_leaves_nothing(tmp_path: Path) -> None:
    assert init(tmp_path / "x", name="klinik-köln").exit_code != 0
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "x",
        "",
        "https://",
        "https://a b",
        "https://u:p@x",
        "https://x#y",
        "https://x?y",
        "https://x:99999",
        "http://[::1",
        "js:alert(1)",
    ],
)
def test_an_address_that_nobody_can_dial_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="expected an address"):
        check_address(url)


def test_a_refused_address_does_not_repeat_its_password() -> None:
    with pytest.raises(InvalidInput) as refused:
        check_address("https://anna:geheim@study.example")
    assert "geheim" not in str(refused.value) and "study.example" in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "https://klinik-köln.example", "https://[::1]:8443", "http://x/p"]
)
def test_an_address_that_can_be_dialled_is_taken(url: str) -> None:
    assert check_address(url) == url


def party(name: str, institution: str = "") -> Party:
    return Party(name=name, institution=institution or name.upper(), public_key=Identity.generate().public_key)


def roster(*hospitals: Party, neutral: str = "Notary") -> Any:
    parties = [("orchestrator", party("o")), ("keyholder", party("k", neutral))]
    return build_roster(Enrolled(role=role, party=p) for role, p in [*parties, *(("datasite", h) for h in hospitals)])  # type: ignore[arg-type]


def test_a_roster_that_nobody_would_load_is_not_built() -> None:
    a, b, c = party("a"), party("b"), party("c")
    assert roster(a, b, c).sites == (a, b, c)
    for hospitals in ((a, b, b), (a, b, party("a")), (a, b, party("o")), (a, b, replace(a, name="z"))):
        with pytest.raises(InvalidInput, match="twice"):
            roster(*hospitals)
    with pytest.raises(InvalidInput, match="institution of its own"):
        roster(a, b, c, neutral=" a ")


def test_what_lies_among_the_datasets_and_is_none_is_left_out_and_named(home: Home) -> None:
    for name in ("x/v1", "x/v10", "x/v2", "x/v1.bak", "x/versions", "x/v0", "y/v1 (copy)", ".hidden/v1"):
        (home.folder / "datasets" / name).mkdir(parents=True)
    (home.folder / "datasets/readme.txt").write_text("")
    (home.folder / "datasets/x/v11").write_text("a file")
    assert home.datasets() == [home.folder / "datasets/x/v10"]
    odd = [str(path.relative_to(home.folder / "datasets")) for path in home.odd_datasets()]
    assert odd == ["readme.txt", "x/v0", "x/v1.bak", "x/v11", "x/versions", "y/v1 (copy)"]


def test_a_config_that_cannot_be_read_is_not_written_over(home: Home) -> None:
    (home.folder / "config.json").write_text("{")
    assert init(home.folder).exit_code != 0
    assert (home.folder / "config.json").read_text() == "{"
    assert isinstance(Config(name="a", institution="A", role="helper", orchestrator_url=URL), Config)
