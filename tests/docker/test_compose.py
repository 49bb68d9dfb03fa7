"""compose.yaml for real: start, approve, train, report, isolation between hospitals, and nothing left behind.

Needs an engine; ``.ci/run`` starts one where it can. Settings: ``WHEELS_DIR``, ``BUILD_CA_FILE`` (see Dockerfile).
People approve in Chromium; where there is none, by the portals' JSON, and the test says so.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.browser import make_account, missing, open_request, sign
from support.composed import PROJECT, RESULTS, ROOT, ROUNDS, compose, docker, environment

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
PORTS = {name: f"http://127.0.0.1:83{i:02d}" for i, name in enumerate(HOSPITALS, start=1)}
HEALTHY_SECONDS = 90.0


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


Approve = Callable[[str], None]


def password_of(service: str) -> str:
    return f"a long pass phrase of {service}"


def approve_by_json(service: str) -> None:
    """Do what a steward does, without a browser: make an account, and approve the study that waits."""
    person = {"name": "steward", "password": password_of(service)}
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


@pytest.fixture
def approve(request: pytest.FixtureRequest) -> Approve:
    """What a steward does in a browser: the one-time link, an account, a try on the mock data, a signature."""
    if missing():
        print(f"people approve without a browser: this machine {missing()}")
        return approve_by_json
    browser = request.getfixturevalue("browser")

    def in_a_browser(service: str) -> None:
        page = browser.new_context().new_page()
        make_account(page, f"{PORTS[service]}/register?token={one_time_link(service)}", "steward", password_of(service))
        open_request(page, "pilot")
        sign(page, password_of(service))

    return in_a_browser


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


def status() -> dict[str, Any]:
    told = inside("orchestrator", "tessera", "status", "--json").stdout
    return dict(json.loads(told)["studies"][0]) if told else {"rounds_completed": 0}


JOURNAL = (
    "import json, sys; from pathlib import Path; from privacy.ledger.journal import Journal; "
    "j = Journal(Path('/var/lib/tessera/home/journal.sqlite'), None); "
    "print(json.dumps([[e.body['round'], e.at] for k in sys.argv[1:] for e in j.entries(kind=k)]))"
)


def noted(service: str, *kinds: str) -> list[tuple[int, str]]:
    """The rounds in a role's journal entries of these kinds, each with its time."""
    told = inside(service, "python", "-c", JOURNAL, *kinds)
    assert told.returncode == 0, told.stderr
    return [(number, at) for number, at in json.loads(told.stdout)]


def test_the_study_starts_and_ends_by_itself_also_after_down_and_up_before_and_while_it_trains(
    consortium: float, approve: Approve
) -> None:
    """A start of everybody costs the round under way, and the next if its key was made ahead; no charge is doubled."""
    approve("hospital-a")
    approve("hospital-b")
    compose("down")
    compose("up", "--detach", "--wait", "--no-build")
    approve("hospital-c")
    wait_for(lambda: status()["rounds_completed"] >= 1, lambda: guide())
    compose("down")
    downed = dt.datetime.now(dt.UTC).isoformat()
    compose("up", "--detach", "--wait", "--no-build")
    wait_for(lambda: ended("study") is not None, lambda: guide() + compose("logs", "--tail", "30").stdout)
    assert ended("study") == 0, guide()
    study = status()
    assert (study["state"], study["rounds_completed"]) == ("finished", ROUNDS)
    trained, lost = (dict(noted("orchestrator", kind)) for kind in ("round-finished", "round-lost"))
    assert sorted([*trained, *lost]) == list(range(1, ROUNDS + 1)) and len(lost) <= 2, lost
    assert min(trained.values()) < downed < max(trained.values())  # so it did happen in the middle
    print(f"down and up while it trained: {len(lost)} of {ROUNDS} rounds lost")
    assert {s["name"]: s["updates"] for s in study["sites"]} == dict.fromkeys(HOSPITALS, len(trained))
    for name in HOSPITALS:
        charged = [number for number, _ in noted(name, "round-charged")]
        assert len(charged) == len(set(charged)) and set(trained) <= set(charged), (name, charged)
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
