"""A small authority vouches for the orchestrator's server, and for nobody who merely says so."""

from __future__ import annotations

import datetime as dt
import json
import re
import ssl
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from datasites.node.credentials.tls import SERVER_DAYS, ensure_authority, ensure_server_certificate
from datasites.node.credentials.trust import client_context
from datasites.node.health import alive
from datasites.node.home import Config, Home
from datasites.node.http import SignedClient
from datasites.node.process import announce
from datasites.node.roster import Roster
from orchestrator.cli.doctor import examine
from orchestrator.studies.status import orchestrator_url, trust_of
from privacy.errors import InvalidInput, TesseraError
from privacy.identity import Identity

NAMES = ["localhost", "127.0.0.1"]


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"null")

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(certificate: Path) -> HTTPServer:
        server = HTTPServer(("127.0.0.1", 0), Answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def client(url: str, ca: Path | str) -> SignedClient:
    return SignedClient(Identity.generate(), url, "00" * 32, retry_seconds=0, timeout_seconds=120, ca=str(ca))


def test_a_client_with_the_authoritys_certificate_is_answered_and_any_other_is_not(tmp_path, serve):
    authority = ensure_authority(tmp_path / "ours", name="orchestrator")
    server = serve(ensure_server_certificate(authority, tmp_path / "ours", names=NAMES))
    stranger = ensure_authority(tmp_path / "theirs", name="orchestrator")
    for host in NAMES:
        url = f"https://{host}:{server.server_port}"
        with client(url, authority.certificate_path) as trusting:
            assert trusting.get_json("/") is None
    for ca in (stranger.certificate_path, ""):
        with client(url, ca) as doubting, pytest.raises(TesseraError, match="certificate"):
            doubting.get_json("/")


def test_a_certificate_for_another_name_is_not_accepted(tmp_path, serve):
    authority = ensure_authority(tmp_path, name="orchestrator")
    server = serve(ensure_server_certificate(authority, tmp_path, names=["elsewhere.example"]))
    with (
        client(f"https://127.0.0.1:{server.server_port}", authority.certificate_path) as doubting,
        pytest.raises(TesseraError, match="certificate"),
    ):
        doubting.get_json("/")


def test_authority_and_certificate_stay_until_the_certificate_is_due_or_stands_for_other_names(tmp_path):
    now = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    authority = ensure_authority(tmp_path, name="o", now=now)
    first = ensure_server_certificate(authority, tmp_path, names=NAMES, now=now).read_bytes()
    assert ensure_authority(tmp_path, name="o", now=now).certificate == authority.certificate
    later = now + dt.timedelta(days=600)
    assert ensure_server_certificate(authority, tmp_path, names=NAMES, now=later).read_bytes() == first
    due = now + dt.timedelta(days=700)
    renewed = ensure_server_certificate(authority, tmp_path, names=NAMES, now=due).read_bytes()
    assert renewed != first
    assert ensure_server_certificate(authority, tmp_path, names=["other"], now=due).read_bytes() != renewed


def test_secrets_are_the_owners_and_the_public_half_holds_no_key(tmp_path):
    authority = ensure_authority(tmp_path, name="o")
    server = ensure_server_certificate(authority, tmp_path, names=NAMES)
    assert {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {
        "authority.pem": 0o600,
        "server.pem": 0o600,
        "ca.pem": 0o644,
    }
    assert b"PRIVATE" in server.read_bytes()
    assert b"PRIVATE" not in authority.certificate_path.read_bytes()


def test_a_damaged_file_says_what_to_do(tmp_path):
    (tmp_path / "authority.pem").write_text("nonsense")
    with pytest.raises(InvalidInput, match="restore"):
        ensure_authority(tmp_path, name="o")
    with pytest.raises(InvalidInput, match="authority's certificate"):
        client_context(tmp_path / "absent.pem")


def test_the_health_check_sees_a_server_that_answers_one_that_ended_and_one_that_never_came(tmp_path, serve):
    assert "announced" in alive(tmp_path)
    authority = ensure_authority(tmp_path, name="o")
    server = serve(ensure_server_certificate(authority, tmp_path, names=NAMES))
    announce(tmp_path, server.socket, "orchestrator", public_url="https://orchestrator:8443", https=True)
    assert alive(tmp_path) == ""
    port = server.server_port
    server.shutdown()
    server.server_close()
    assert "does not answer" in alive(tmp_path)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"https://127.0.0.1:{port}/", verify=client_context(authority.certificate_path), trust_env=False)
    announce(tmp_path, None, "keyholder")
    assert alive(tmp_path) == ""


def test_the_orchestrators_own_commands_know_it_by_its_certificate_whatever_its_names(tmp_path, serve):
    authority = ensure_authority(tmp_path / "tls", name="o")
    certificate = ensure_server_certificate(authority, tmp_path / "tls", names=["study.example"])
    server = serve(certificate)
    config = Config(
        name="o", institution="O", role="orchestrator", orchestrator_url="", public_url="https://study.example:8443"
    )
    home = Home.create(tmp_path, replace(config, tls_certificate=str(certificate)))
    (tmp_path / "address.json").write_text(
        json.dumps({"listens": f"https://127.0.0.1:{server.server_port}", "url": config.public_url})
    )
    party = home.party()
    Roster(orchestrator=party, keyholder=replace(party, name="k", public_key="ab" * 32), sites=()).save(
        tmp_path / "roster.json"
    )
    with SignedClient(
        home.identity(), orchestrator_url(home), "00" * 32, retry_seconds=0, timeout_seconds=120, trust=trust_of(home)
    ) as own:
        assert own.get_json("/") is None
    server.shutdown()
    server.server_close()  # as seen from another container, which has the folder and not the server
    assert orchestrator_url(home) == config.public_url
    stranger = ensure_server_certificate(ensure_authority(tmp_path / "s", name="o"), tmp_path / "s", names=NAMES)
    with (
        SignedClient(
            home.identity(),
            f"https://127.0.0.1:{serve(stranger).server_port}",
            "00" * 32,
            retry_seconds=0,
            timeout_seconds=120,
            trust=trust_of(home),
        ) as fooled,
        pytest.raises(TesseraError, match="certificate"),
    ):
        fooled.get_json("/")


def test_the_doctor_says_what_is_wrong_with_a_certificate_and_never_blames_the_clock(tmp_path, serve):
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=SERVER_DAYS + 1)
    authority = ensure_authority(tmp_path / "tls", name="o", now=before)
    expired = ensure_server_certificate(authority, tmp_path / "tls", names=NAMES, now=before)
    url = f"https://127.0.0.1:{serve(expired).server_port}"
    config = Config(name="a", institution="A", role="datasite", orchestrator_url=url)
    for ca, fault in ((str(authority.certificate_path), "expired"), ("", "self-signed|unable to get")):
        home = Home.create(tmp_path / "home", replace(config, ca=ca))
        (check,) = [c for c in examine(home.folder) if c.name == "orchestrator"]
        assert not check.ok and "certificate of" in check.found and re.search(fault, check.found)
        assert "renew" in check.advice and "NTP" not in check.advice
