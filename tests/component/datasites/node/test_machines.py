"""Machines as they are: own authorities, proxies in the environment, certificates of other names, odd terminals."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from datasites.node.credentials import trust
from datasites.node.credentials.tls import ascii_host, ensure_authority, ensure_server_certificate
from datasites.node.credentials.trust import machine_context
from datasites.node.http import SignedClient, checked_proxy, proxy_of_environment
from privacy.errors import InvalidInput, TesseraError
from privacy.identity import Identity

TESSERA = str(Path(sys.executable).with_name("tessera"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "SSL_CERT_FILE":
            monkeypatch.delenv(name)
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


@pytest.mark.parametrize(
    ("no_proxy", "host", "expected"),
    [
        ("", "api.example", "http://proxy.example:3128"),
        ("*", "api.example", None),
        (".example", "api.example", None),
        ("*.example", "api.example", None),
        ("api.example:8080", "api.example", "http://proxy.example:3128"),
        ("api.example:443", "api.example", None),
        ("pi.example", "api.example", "http://proxy.example:3128"),
        ("10.0.0.0/8, fd00::/8", "10.3.4.5", None),
        ("10.0.0.0/8, fd00::/8", "[fd00::7]", None),
        ("10.0.0.0/8", "11.0.0.1", "http://proxy.example:3128"),
        ("10.0.0.0/8", "api.example", "http://proxy.example:3128"),
        ("10.1.1.1", "10.1.1.1", None),
    ],
)
def test_the_environment_names_proxies_and_exceptions(
    environment: Any, no_proxy: str, host: str, expected: str | None
) -> None:
    environment(HTTPS_PROXY="http://proxy.example:3128", NO_PROXY=no_proxy)
    assert proxy_of_environment(f"https://{host}/x") == expected
    assert proxy_of_environment(f"http://{host}/x") is None


def test_a_proxy_that_cannot_be_used_is_said_without_its_password(environment: Any) -> None:
    environment(ALL_PROXY="socks5://anna:secret@proxy.example:1080")
    with pytest.raises(InvalidInput, match="SOCKS proxies are not supported") as raised:
        proxy_of_environment("https://api.example")
    assert "secret" not in str(raised.value)
    environment(ALL_PROXY="proxy.example:3128")
    assert proxy_of_environment("https://api.example") == "http://proxy.example:3128"
    for wrong in ("ftp://x", "http://", "http://a b", "://", "http://[::1"):
        with pytest.raises(InvalidInput, match="expected a proxy"):
            checked_proxy(wrong)


def test_the_machines_own_authorities_are_trusted(environment: Any, tmp_path: Path, monkeypatch: Any) -> None:
    authority = ensure_authority(tmp_path, name="ours")
    environment(SSL_CERT_FILE=str(authority.certificate_path))
    assert [c["serialNumber"] for c in machine_context().get_ca_certs()] == [
        f"{authority.certificate.serial_number:040X}"[-len(f"{authority.certificate.serial_number:X}") :]
        if len(f"{authority.certificate.serial_number:X}") % 2 == 0
        else f"0{authority.certificate.serial_number:X}"
    ]
    environment(SSL_CERT_FILE=str(tmp_path / "missing.pem"))
    with pytest.raises(InvalidInput, match="SSL_CERT_FILE"):
        machine_context()
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setattr(trust, "_BUNDLES", (str(authority.certificate_path),))
    assert len(machine_context().get_ca_certs()) == 1
    monkeypatch.setattr(trust, "_BUNDLES", ())
    assert len(machine_context().get_ca_certs()) > 50


class Proxy(threading.Thread):
    """Answers CONNECT with 502 and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.asked = b""

    def run(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            self.asked = connection.recv(4096)
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")


def test_a_role_dials_through_the_proxy_of_its_settings_and_not_through_the_environments(environment: Any) -> None:
    proxy = Proxy()
    proxy.start()
    port = proxy.listener.getsockname()[1]
    environment(HTTPS_PROXY="http://127.0.0.1:9")
    with (
        SignedClient(
            Identity.generate(),
            "https://study.example:8443",
            "00" * 32,
            retry_seconds=0,
            timeout_seconds=120,
            proxy=f"http://anna:secret@127.0.0.1:{port}",
        ) as client,
        pytest.raises(TesseraError) as raised,
    ):
        client.get_json("/x")
    proxy.join(120)
    proxy.listener.close()
    assert proxy.asked.startswith(b"CONNECT study.example:8443 HTTP/1.1")
    assert b"Proxy-Authorization: Basic YW5uYTpzZWNyZXQ=" in proxy.asked
    assert "secret" not in str(raised.value)


def test_a_certificate_for_a_name_with_letters_of_its_own_is_made(tmp_path: Path) -> None:
    authority = ensure_authority(tmp_path, name="o")
    names = ["klinik-köln.example", "127.0.0.1"]
    path = ensure_server_certificate(authority, tmp_path, names=names)
    made = path.read_bytes()
    assert ensure_server_certificate(authority, tmp_path, names=names).read_bytes() == made
    assert ascii_host("KLINIK-KÖLN.example") == "xn--klinik-kln-lcb.example"
    with pytest.raises(InvalidInput, match="name of a host"):
        ascii_host("köln..example")


def ran(*arguments: str, stdout: Any = subprocess.PIPE, **environment: str) -> tuple[int, str, str]:
    kept = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([TESSERA, *arguments], stdout=stdout, stderr=subprocess.PIPE, env=kept, check=False)
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr, done.stderr
    return done.returncode, (done.stdout or b"").decode("ascii", "replace"), done.stderr.decode("ascii", "replace")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_behind_standard_output_is_one_line(tmp_path: Path) -> None:
    arguments = ["keyholder", "init", "--home", str(tmp_path / "k"), "--orchestrator-url", "http://127.0.0.1:1"]
    with Path("/dev/full").open("wb") as full:
        code, _, err = ran(*arguments, stdout=full)
    assert code == 1 and "no space left" in err


def test_a_narrow_terminal_without_letters_and_a_user_without_a_home_see_codes_and_no_traceback(tmp_path: Path) -> None:
    arguments = ["keyholder", "init", "--home", str(tmp_path / "k"), "--orchestrator-url", "http://127.0.0.1:1"]
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "20"}
    code, out, err = ran(*arguments, "--institution", "Uni", **poor)
    assert code == 0 and json.loads(out)["institution"] == "Uni", err
    code, _, err = ran(*arguments, "--institution", "Universität", **poor)
    assert code == 2 and "set LANG=C.UTF-8" in " ".join(err.split())
    for command in (["--help"], ["doctor", "--home", str(tmp_path / "k")], ["demo", "--help"]):
        assert ran(*command, **poor)[0] in (0, 1)


def test_a_folder_that_may_not_be_written_is_one_line() -> None:
    code, _, err = ran("keyholder", "init", "--home", "/proc/k", "--orchestrator-url", "http://127.0.0.1:1")
    assert code == 1 and "/proc/k" in err


def test_a_status_loads_neither_numbers_nor_ledgers(tmp_path: Path) -> None:
    assert ran("orchestrator", "init", "--home", str(tmp_path / "o"))[0] == 0
    line = ["tessera", "status", "--once", "--json", "--home", str(tmp_path / "o")]
    code = f"import atexit, sys\nsys.argv = {line!r}\natexit.register(lambda: print(*sys.modules))\n"
    code += "from orchestrator.cli import main\nmain.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith('{"role": "orchestrator"')
    assert not {"numpy", "sqlalchemy", "privacy.ledger.ledger", "datasites.strategy.registry"} & set(
        done.stdout.split()
    )


def test_a_bad_study_name_is_refused_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    for command in (["propose"], ["study", "run"]):
        line = ["tessera", *command, "--home", str(tmp_path / "none"), "--", "bad name!"]
        code = f"import atexit, sys\nsys.argv = {line!r}\natexit.register(lambda: print(*sys.modules))\n"
        code += "from orchestrator.cli import main\nmain.main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert not {"torch", "syft", "tenseal", "opacus"} & set(done.stdout.split())
