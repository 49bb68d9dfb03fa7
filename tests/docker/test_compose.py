"""compose.yaml for real: build, start, approve, train, report, isolation between hospitals, and nothing left behind.

Needs an engine; ``.ci/run`` starts one where it can. Settings: ``WHEELS_DIR``, ``BUILD_CA_FILE`` (see Dockerfile).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PROJECT = "tessera-test"
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
PORTS = {name: f"http://127.0.0.1:83{i:02d}" for i, name in enumerate(HOSPITALS, start=1)}
ROUNDS = 3
IMAGE_LIMIT_BYTES = 2_500_000_000
HEALTHY_SECONDS = 90.0


def docker(*arguments: str, check: bool = True, seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["docker", *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=seconds
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done


def compose(*arguments: str, check: bool = True, seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
    return docker("compose", "-p", PROJECT, *arguments, check=check, seconds=seconds)


def environment() -> dict[str, str]:
    wheels = os.environ.get("WHEELS_DIR") or find_links() or str(ROOT / "docker" / "wheels")
    own = re.compile("TESSERA_|COMPOSE_|DATABASE_URL")
    kept = {name: value for name, value in os.environ.items() if not own.match(name)}
    return {**kept, "TESSERA_PORTS": "83", "TESSERA_VERSION": "test", "WHEELS_DIR": wheels}


def find_links() -> str:
    """The folder pip is set up to look into first, which may hold torch's CPU wheel."""
    found = subprocess.run(["pip", "config", "get", "global.find-links"], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 and Path(found.stdout.strip()).is_dir() else ""


def engine() -> bool:
    return shutil.which("docker") is not None and docker("info", check=False, seconds=30).returncode == 0


@pytest.fixture(scope="module")
def image() -> str:
    if not engine():
        pytest.skip("needs a running Docker engine with compose v2")
    started = time.monotonic()
    compose("build", seconds=800)
    print(f"image built in {time.monotonic() - started:.0f} s")
    return "tessera:test"


@pytest.fixture(scope="module")
def consortium(image: str) -> Iterator[float]:
    compose("down", "-v", "--remove-orphans")
    started = time.monotonic()
    try:
        compose("up", "--detach", "--wait", "--no-build")
        yield time.monotonic() - started
    except AssertionError:
        print(compose("logs", "--tail", "40", check=False).stdout)
        raise
    finally:
        compose("down", "-v", "--remove-orphans", check=False)


def inside(service: str, *command: str) -> subprocess.CompletedProcess[str]:
    return compose("exec", "-T", service, *command, check=False, seconds=60)


# the image ---------------------------------------------------------------------------------------------------------


def test_the_image_is_small_and_has_no_build_tools_and_no_secrets(image: str) -> None:
    size = int(docker("image", "inspect", "-f", "{{.Size}}", image).stdout)
    print(f"image: {size / 1e9:.2f} GB")
    assert size < IMAGE_LIMIT_BYTES
    look = (
        "import shutil, importlib.util as u, pathlib, sys; "
        "print([t for t in ('gcc', 'cc', 'make', 'git', 'pip', 'pip3') if shutil.which(t)], "
        "[m for m in ('pip', 'setuptools', 'pytest', 'mypy', 'hatchling') if u.find_spec(m)], "
        "[str(p) for f in ('/opt/tessera', '/etc/tessera', '/var/lib/tessera') "
        "for p in pathlib.Path(f).rglob('*') if p.name in ('identity.pem', 'authority.pem')])"
    )
    found = docker("run", "--rm", "--network=none", "--read-only", "--entrypoint=python", image, "-c", look).stdout
    assert found.strip() == "[] [] []"
    settings = json.loads(docker("image", "inspect", image).stdout)[0]["Config"]
    assert settings["User"] == "10000:10000"
    assert not [e for e in settings["Env"] if re.search(r"(?i)password|secret|key|token", e)]


def test_the_image_says_what_it_is_and_its_files_are_those_that_were_installed(image: str) -> None:
    labels = json.loads(docker("image", "inspect", "-f", "{{json .Config.Labels}}", image).stdout)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.title"] == "Tessera" and labels[f"{prefix}.version"] == project["version"]
    assert labels[f"{prefix}.licenses"] == project["license"]
    assert labels[f"{prefix}.base.name"] == "python:3.11-slim" and f"{prefix}.revision" in labels
    look = "from datasites.review.environment import installed_files as f; print(len(f().packages) > 100, f().changed)"
    found = docker("run", "--rm", "--network=none", "--read-only", "--entrypoint=python", image, "-c", look).stdout
    assert found.strip() == "True ()"


def test_another_base_image_than_the_named_digest_is_not_taken(image: str) -> None:
    wrong = {"BASE_DIGEST": f"sha256:{'0' * 64}"}
    done = subprocess.run(
        ["docker", "compose", "-p", PROJECT, "build"],
        cwd=ROOT,
        env=environment() | wrong,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and f"python:3.11-slim@{wrong['BASE_DIGEST']}" in done.stderr


# the consortium ----------------------------------------------------------------------------------------------------


def test_everybody_is_healthy_within_ninety_seconds(consortium: float) -> None:
    print(f"healthy in {consortium:.1f} s")
    assert consortium < HEALTHY_SECONDS
    states = [json.loads(line) for line in compose("ps", "--format", "json").stdout.splitlines()]
    assert {s["Service"]: s["Health"] for s in states} == dict.fromkeys(
        ("orchestrator", "keyholder", "helper-a", "helper-b", *HOSPITALS), "healthy"
    )


def test_containers_are_hardened(consortium: float) -> None:
    accounts = set()
    for service in ("orchestrator", "keyholder", *HOSPITALS):
        name = compose("ps", "-q", service).stdout.strip()
        found = json.loads(docker("inspect", name).stdout)[0]
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"] > 0 and host["PidsLimit"] > 0, service
        accounts.add(found["Config"]["User"])
        text = inside(service, "sh", "-c", "touch /opt/tessera/x || id -u").stdout
        assert text.strip() == found["Config"]["User"].split(":")[0], service
        env = "\n".join(found["Config"]["Env"])
        assert not re.search(r"(?i)PRIVATE KEY|password|token=", env), service
    assert len(accounts) == 5


CONNECT = (
    "import socket, sys\n"
    "try:\n"
    "    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close(); print('open')\n"
    "except OSError as error:\n"
    "    print(type(error).__name__)\n"
)


def addresses(service: str) -> list[str]:
    name = compose("ps", "-q", service).stdout.strip()
    networks = json.loads(docker("inspect", name).stdout)[0]["NetworkSettings"]["Networks"]
    return [address for n in networks.values() for address in (n["IPAddress"], n["Gateway"]) if address]


def test_hospitals_reach_the_orchestrator_and_not_one_another(consortium: float) -> None:
    def reach(service: str, host: str, port: int) -> str:
        return inside(service, "python", "-c", CONNECT, host, str(port)).stdout.strip()

    assert reach("hospital-a", "orchestrator", 8443) == "open"
    assert reach("keyholder", "orchestrator", 8443) == "open"
    assert reach("hospital-a", "127.0.0.1", 8080) == "open"  # so the portals do listen on their own addresses
    assert reach("hospital-a", "hospital-b", 8080) == "gaierror"
    for service in ("hospital-a", "keyholder"):
        for address in addresses("hospital-b"):
            assert reach(service, address, 8080) != "open", (service, address)
    for gateway in addresses("hospital-a"):
        assert reach("hospital-a", gateway, 8302) != "open"  # hospital-b's published port, by way of the host
    assert reach("hospital-b", "keyholder", 8080) == "gaierror"
    assert reach("keyholder", "192.0.2.1", 443) != "open"


def test_the_orchestrator_speaks_tls_that_only_its_own_authority_vouches_for(consortium: float) -> None:
    look = (
        "import ssl, urllib.request as u, sys\n"
        "context = ssl.create_default_context(cafile=sys.argv[1] or None)\n"
        "try:\n"
        "    print(u.urlopen('https://orchestrator:8443/healthz', context=context, timeout=5).status)\n"
        "except OSError as error:\n"
        "    print(type(error.reason).__name__)\n"
    )
    ours = inside("hospital-b", "python", "-c", look, "/var/lib/tessera/home/ca.pem")
    assert ours.stdout.strip() == "200"
    assert inside("hospital-b", "python", "-c", look, "").stdout.strip() == "SSLCertVerificationError"


def one_time_link(service: str) -> str:
    found = re.findall(r"token=([\w-]+)", compose("logs", "--no-log-prefix", service).stdout)
    assert len(found) == 1, f"{service} must print one link, printed {len(found)}"
    return found[0]


def approve(service: str, over: threading.Event, failures: list[str]) -> None:
    person = {"name": "steward", "password": f"a long pass phrase of {service}"}
    with httpx.Client(base_url=PORTS[service], timeout=60, trust_env=False) as portal:
        portal.post("/api/register", json={"token": one_time_link(service), **person}).raise_for_status()
        csrf = portal.post("/api/login", json=person).raise_for_status().json()["csrf"]
        while not (waiting := portal.get("/api/requests").raise_for_status().json()):
            if over.wait(0.5):
                failures.append(f"{service} got no proposal")
                return
        answer = portal.post(
            f"/api/requests/{waiting[0]['proposal_hash']}/approve",
            json={"password": person["password"]},
            headers={"x-csrf-token": csrf},
        )
        if not answer.is_success:
            failures.append(f"{service}: {answer.status_code} {answer.text[:500]}")


def test_a_study_is_proposed_approved_trained_and_reported(consortium: float) -> None:
    failures: list[str] = []
    over = threading.Event()
    people = [threading.Thread(target=approve, args=(name, over, failures)) for name in HOSPITALS]
    for person in people:
        person.start()
    started = time.monotonic()
    study = ("study", "run", "pilot", "--rounds", str(ROUNDS), "--noise", "shared", "--timeout", "300")
    done = compose("run", "--rm", "-T", "orchestrator", *study, check=False, seconds=400)
    over.set()
    for person in people:
        person.join()
    if done.returncode:
        logs = compose("logs", "--tail", "30", check=False).stdout
        raise AssertionError(f"the study ended with {done.returncode}: {failures}\n{done.stderr[-3000:]}\n{logs}")
    assert not failures, failures
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"study of {ROUNDS} rounds in {time.monotonic() - started:.1f} s, AUROC {result['metrics']['auroc']:.3f}")
    assert (result["state"], result["rounds_completed"]) == ("finished", ROUNDS)
    assert {s["name"]: s["updates"] for s in result["sites"]} == dict.fromkeys(HOSPITALS, ROUNDS)
    assert 0.4 < result["metrics"]["auroc"] <= 1.0
    assert inside("orchestrator", "test", "-s", result["model"]).returncode == 0
    assert any(path.endswith(".html") for path in result["reports"])
    for name in HOSPITALS:
        assert_report(name)
    verified = inside("hospital-a", "tessera", "verify", "/var/lib/tessera/home", "--json")
    assert json.loads(verified.stdout)["ok"]


def assert_report(service: str) -> None:
    """The hospital wrote its privacy report, and spent something and no more than its cap."""
    path = "/var/lib/tessera/home/reports/summary.json"
    deadline = time.monotonic() + 120
    while (found := inside(service, "cat", path)).returncode:
        assert time.monotonic() < deadline, f"{service} wrote no report"
        time.sleep(1)
    summary = json.loads(found.stdout)
    assert 0 < summary["epsilon_spent"] <= summary["epsilon_cap"]


def test_a_restarted_consortium_knows_what_it_knew(consortium: float) -> None:
    compose("restart", "--timeout", "15")
    compose("up", "--detach", "--wait", "--no-build")
    status = inside("orchestrator", "tessera", "status", "--json")
    studies = json.loads(status.stdout)["studies"]
    assert [(s["study"], s["state"]) for s in studies] == [("pilot", "finished")]
    assert len(re.findall("token=", compose("logs", "hospital-a").stdout)) == 1


def test_down_leaves_nothing(consortium: float) -> None:
    compose("down", "-v", "--remove-orphans")
    label = f"label=com.docker.compose.project={PROJECT}"
    for kind in (("ps", "-a"), ("volume", "ls"), ("network", "ls")):
        assert docker(*kind, "-q", "--filter", label).stdout == ""
