"""compose.yaml for real: build, start, approve, train, report, isolation between hospitals, and nothing left behind.

Needs an engine; ``.ci/run`` starts one where it can. Settings: ``WHEELS_DIR``, ``BUILD_CA_FILE`` (see Dockerfile).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PROJECT = "tessera-test"
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
PORTS = {name: f"http://127.0.0.1:83{i:02d}" for i, name in enumerate(HOSPITALS, start=1)}
ROUNDS = 3
IMAGE_LIMIT_BYTES = 1_200_000_000
PATCH_LIMIT_BYTES = 5_000_000
HEALTHY_SECONDS = 90.0
RESULTS = tempfile.mkdtemp(prefix="tessera-results-")


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
    ours = {"TESSERA_PORTS": "83", "TESSERA_VERSION": "test", "TESSERA_ROUNDS": str(ROUNDS), "TESSERA_RESULTS": RESULTS}
    return {**kept, **ours, "WHEELS_DIR": wheels}


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


def layers(image: str) -> dict[str, int]:
    """The layers of an image with their sizes in bytes, the lowest first."""
    digests = json.loads(docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", image).stdout)
    told = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image).stdout
    made = [line.partition("\t") for line in told.splitlines() if re.match(r"\d+\t(COPY|RUN|WORKDIR) ", line)]
    sizes = [int(size) for size, _, _ in made][::-1]
    assert len(sizes) == len(digests), told
    return dict(zip(digests, sizes, strict=True))


def test_a_change_of_one_line_is_a_small_patch(image: str, tmp_path: Path) -> None:
    """Whoever has the image fetches only layers that are new; a release would otherwise cost a gigabyte a hospital."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if not (ROOT / name).is_file() or name.startswith(("tests/", "docs/", "benchmarks/")):
            continue
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "docker" / "wheels").mkdir(parents=True, exist_ok=True)
    with (tmp_path / "datasites" / "keyholder" / "record.py").open("a") as module:
        module.write("\n# one more line\n")
    patched = environment() | {"TESSERA_VERSION": "patched"}
    done = subprocess.run(
        ["docker", "compose", "-p", PROJECT, "build"], cwd=tmp_path, env=patched, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = layers(image), layers("tessera:patched")
    new = {digest: size for digest, size in after.items() if digest not in before}
    docker("image", "rm", "tessera:patched", check=False)
    print(f"a patch of one line: {sum(new.values()) / 1e6:.2f} MB in {len(new)} layers of {len(after)}")
    assert 0 < sum(new.values()) < PATCH_LIMIT_BYTES


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
    assert {s["Service"]: s["Health"] for s in states if s["Health"]} == dict.fromkeys(
        ("orchestrator", "keyholder", "helper-a", "helper-b", "study", *HOSPITALS), "healthy"
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
        assert host["Memory"] > 0 and host["PidsLimit"] > 0 and host["NanoCpus"] > 0 and host["Init"], service
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
    assert found, f"{service} printed no link"
    return str(found[-1])


def approve(service: str) -> None:
    """Do what a steward does: make an account from the one-time link, and approve the study that waits."""
    person = {"name": "steward", "password": f"a long pass phrase of {service}"}
    with httpx.Client(base_url=PORTS[service], timeout=60, trust_env=False) as portal:
        portal.post("/api/register", json={"token": one_time_link(service), **person}).raise_for_status()
        csrf = portal.post("/api/login", json=person).raise_for_status().json()["csrf"]
        deadline = time.monotonic() + 180
        while not (waiting := portal.get("/api/requests").raise_for_status().json()):
            assert time.monotonic() < deadline, f"{service} got no proposal"
            time.sleep(0.5)
        path = f"/api/requests/{waiting[0]['proposal_hash']}/approve"
        answer = portal.post(path, json={"password": person["password"]}, headers={"x-csrf-token": csrf})
        assert answer.is_success, f"{service}: {answer.status_code} {answer.text[:500]}"


def guide(project: str = PROJECT) -> str:
    """What the service `study` has told people."""
    return docker("compose", "-p", project, "logs", "--no-log-prefix", "study", check=False).stdout


def test_people_are_told_what_to_do_next(consortium: float) -> None:
    wait_for(lambda: "The study pilot waits for 3 hospitals" in guide(), lambda: guide())
    text = guide()
    for name, url in PORTS.items():
        assert f"{name}: {url}" in text and f"docker compose logs {name}" in text
    (link,) = re.findall(r"https://127\.0\.0\.1:8300/dashboard/enter\?token=[\w-]+", text)[:1]
    ca = inside("hospital-a", "cat", "/var/lib/tessera/home/ca.pem").stdout
    trust = ssl.create_default_context(cadata=ca)
    with httpx.Client(verify=trust, trust_env=False, timeout=30, follow_redirects=True) as browser:
        assert browser.get(link).status_code == 200  # it asks for a click, so that no preview uses the link up
        page = browser.post(link.partition("?")[0], data={"token": link.partition("token=")[2]})
        assert page.status_code == 200 and "pilot" in page.text


def wait_for(holds: Callable[[], object], what: Callable[[], str], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what()[-3000:]
        time.sleep(1)


def ended(service: str, project: str = PROJECT) -> int | None:
    """The exit code of a container that has ended, or None."""
    told = docker("compose", "-p", project, "ps", "-a", "--format", "json", service, check=False).stdout.strip()
    found = json.loads(told.splitlines()[0]) if told else {"State": "missing"}
    return int(found["ExitCode"]) if found["State"] == "exited" else None


def assert_results(folder: str) -> None:
    found = {path.name for path in Path(folder).iterdir()}
    assert "model.safetensors" in found and any(name.endswith(".html") for name in found), found


def test_the_study_starts_by_itself_once_all_have_signed_also_after_down_and_up(consortium: float) -> None:
    approve("hospital-a")
    approve("hospital-b")
    compose("down")
    compose("up", "--detach", "--wait", "--no-build")
    approve("hospital-c")
    wait_for(lambda: ended("study") is not None, lambda: guide() + compose("logs", "--tail", "30").stdout)
    assert ended("study") == 0, guide()
    (study,) = json.loads(inside("orchestrator", "tessera", "status", "--json").stdout)["studies"]
    assert (study["state"], study["rounds_completed"]) == ("finished", ROUNDS)
    assert {s["name"]: s["updates"] for s in study["sites"]} == dict.fromkeys(HOSPITALS, ROUNDS)
    assert_results(RESULTS)
    report = json.loads((Path(RESULTS) / "study-report.json").read_text())
    (auroc,) = [m["value"] for m in report["metrics"] if m["label"] == "AUROC (mean over cohorts)"]
    assert 0.4 < auroc <= 1.0
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
    assert not re.findall("token=", compose("logs", "hospital-a").stdout)  # its people have accounts since


HEALTH = ("python", "-I", "-m", "datasites.node.health", "/var/lib/tessera/home")


def health(service: str, *more: str) -> str:
    return inside(service, *HEALTH, *more).stderr.strip()


def test_a_role_that_is_not_well_says_why(consortium: float) -> None:
    assert health("hospital-b") == ""
    flip = (
        "import sqlite3; p='/var/lib/tessera/home/ledger.sqlite'; d=sqlite3.connect(p); "
        "d.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchall(); b=open(p,'rb').read(); "
        "t=d.execute('SELECT hash FROM entries WHERE number = 1').fetchone()[0].encode(); "
        "open(p,'r+b').write(b.replace(t, t[:-1] + (b'0' if t[-1:] != b'0' else b'1')))"
    )
    compose("stop", "keyholder")
    inside("hospital-b", "python", "-c", flip)
    wait_for(
        lambda: "records: ledger.sqlite" in health("hospital-b"), lambda: health("hospital-b"), 400
    )  # it rests between looks
    wait_for(lambda: "keyholder has not been heard of" in health("orchestrator"), lambda: health("orchestrator"), 150)
    compose("start", "keyholder")
    wait_for(lambda: health("orchestrator") == "", lambda: health("orchestrator"), 90)


def test_a_process_that_hangs_is_started_again(consortium: float) -> None:
    pid = json.loads(inside("hospital-c", "cat", "/var/lib/tessera/home/address.json").stdout)["pid"]
    inside("hospital-c", "python", "-c", f"import os, signal; os.kill({pid}, signal.SIGSTOP)")
    for _ in range(2):
        assert "does not answer" in health("hospital-c", "--restart")
    health("hospital-c", "--restart")  # ends with the process, before it can say so
    name = compose("ps", "-a", "-q", "hospital-c").stdout.strip()
    wait_for(lambda: docker("inspect", "-f", "{{.RestartCount}}", name).stdout.strip() == "1", lambda: name, 60)
    wait_for(lambda: health("hospital-c") == "", lambda: health("hospital-c"), 120)


def test_a_backup_is_written_and_restored_inside_the_image(consortium: float) -> None:
    """The hospital's own commands, as docs/deploy.md has them; the folder that comes back is the same party."""
    made = inside("hospital-a", "tessera", "backup", "--out", "/var/lib/tessera/a.tessera", "--json")
    assert made.returncode == 0 and json.loads(made.stdout.splitlines()[-1])["files"] > 5, made.stderr
    back = ("tessera", "restore", "/var/lib/tessera/a.tessera", "--home", "/var/lib/tessera/back", "--json")
    done = inside("hospital-a", *back)
    assert done.returncode == 0, done.stderr
    for name in ("identity.pem", "config.json", "roster.json", "policy.toml"):
        same = inside("hospital-a", "cmp", f"/var/lib/tessera/home/{name}", f"/var/lib/tessera/back/{name}")
        assert same.returncode == 0, same.stdout
    checked = inside("hospital-a", "tessera", "verify", "/var/lib/tessera/back", "--json")
    assert json.loads(checked.stdout)["ok"]
    assert inside("hospital-a", *back).returncode == 2  # a folder with something in it is left alone


def test_down_leaves_nothing(consortium: float) -> None:
    compose("down", "-v", "--remove-orphans")
    label = f"label=com.docker.compose.project={PROJECT}"
    for kind in (("ps", "-a"), ("volume", "ls"), ("network", "ls")):
        assert docker(*kind, "-q", "--filter", label).stdout == ""


DEMO = "tessera-demo-test"


def test_the_demo_profile_ends_with_a_report_in_a_folder(image: str, tmp_path: Path) -> None:
    """What the README promises: nobody signs anything, and the report is there."""
    own = environment() | {"TESSERA_RESULTS": str(tmp_path / "results"), "TESSERA_PORTS": "84", "TESSERA_ROUNDS": "2"}

    def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", "compose", "-p", DEMO, "--profile", "demo", *arguments]
        return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=400)

    try:
        started = time.monotonic()
        up = demo("up", "--detach", "--no-build")
        assert up.returncode == 0, up.stderr[-3000:]
        wait_for(lambda: ended("study", DEMO) is not None, lambda: guide(DEMO) + demo("logs", "--tail", "20").stdout)
        print(f"demo profile: a report after {time.monotonic() - started:.0f} s")
        assert ended("study", DEMO) == 0, guide(DEMO)
        assert_results(str(tmp_path / "results"))
    finally:
        demo("down", "-v", "--remove-orphans")
