"""A whole consortium on one machine: data, identities, processes, proposal, approvals, rounds, reports.

The demo plays every person in turn, through the same interfaces they would use: it ingests tables for each hospital,
exchanges public keys, proposes a study over PySyft, approves it in each hospital's portal by its HTTP API, waits for
the rounds and evaluates the model on patients who were held out before anything else.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from datasites.node.home import Config, Home, address
from datasites.node.http import SignedClient
from datasites.node.roster import Roster
from datasites.review.accounts import AccountStore
from datasites.strategy.registry import noise_named
from orchestrator.dashboard.access import new_link
from orchestrator.demo.guide import Prepared, approval_guide, prepare
from orchestrator.demo.processes import Processes
from orchestrator.studies.evaluation import final_metrics, last_evaluation, learning_curve
from orchestrator.studies.facts import study_facts
from orchestrator.studies.propose import StudySettings, check_aggregation, local_blocks
from orchestrator.studies.report import write_study_pdf, write_study_report
from orchestrator.studies.submit import offers_of, scientist, submit
from privacy.errors import InvalidInput, TesseraError

STUDY = "cancer-staging"
_READY_SECONDS = 90.0
_OFFER_SECONDS = 120.0
_POLL_SECONDS = 0.3


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What ``tessera demo`` is asked for."""

    data: Path | None
    federation: str
    task: str
    rounds: int
    sites: int
    out: Path | None
    manual: bool
    seed: int
    epsilon: float
    noise: str
    architecture: str
    public_noise: bool
    manual_all: bool = False
    aggregation: str = "fedavg"


class Progress(Protocol):
    """Somebody who shows how far the demo is."""

    def step(self, text: str) -> None:
        """A new step has begun."""

    def note(self, text: str) -> None:
        """Something people should read and keep."""

    def rounds(self, done: int, total: int, text: str) -> None:
        """``done`` of ``total`` rounds are finished."""


@dataclass(frozen=True, kw_only=True)
class Reviewer:
    """The demo's steward at one hospital."""

    site: str
    name: str
    password: str


def run_demo(
    settings: DemoSettings, progress: Progress, *, stay: Callable[[dict[str, Any], dict[str, str]], None] | None = None
) -> dict[str, Any]:
    """Run the demo and return the object that ``--json`` prints.

    Args:
        settings: what to run.
        progress: who shows it.
        stay: called with that object and the portals that were left to a person, while all roles still run.

    Raises:
        InvalidInput: bad options or tables; nothing was started.
        TesseraError: a role failed; everything is ended.
    """
    os.umask(0o077)
    _check(settings)
    started = time.monotonic()
    out = _out_folder(settings)
    progress.step("Dealing patients to hospitals")
    prepared = prepare(
        settings.data, out, federation=settings.federation, task=settings.task, sites=settings.sites, seed=settings.seed
    )
    homes = _make_homes(out, prepared, settings.epsilon)
    reviewers = [_invite(homes[site.name]) for site in prepared.sites]
    with ExitStack() as stack:
        processes = stack.enter_context(Processes(logs=out / "logs"))
        progress.step("Starting orchestrator, keyholder and hospitals")
        _start(processes, homes, prepared)
        identity = homes["orchestrator"].identity()
        client = stack.enter_context(SignedClient(identity, address(homes["orchestrator"].folder), identity.public_key))
        result = _study(settings, progress, client, homes, prepared, reviewers, processes)
        seconds = round(time.monotonic() - started, 1)
        shown = _shown(result, seconds=seconds, out=out, homes=homes, prepared=prepared)
        if stay is not None:
            shown_to = prepared.sites if settings.manual_all else prepared.sites[:1]
            stay(shown, {site.name: address(homes[site.name].folder) for site in shown_to})
    return shown


def _shown(
    result: dict[str, Any], *, seconds: float, out: Path, homes: dict[str, Home], prepared: Prepared
) -> dict[str, Any]:
    reports = [str(path) for path in _study_report(out, result)] + _reports(homes, prepared)
    return {
        "study": STUDY,
        "rounds_completed": result["rounds_completed"],
        "seconds": seconds,
        "uplink_bytes": sum(c["uplink_bytes"] for c in result["checkpoints"]),
        "metrics": result["metrics"],
        "dp_evaluation": result["dp_evaluation"],
        "sites": result["sites"],
        "reports": reports,
        "out": str(out),
    }


def _check(settings: DemoSettings) -> None:
    noise = noise_named(settings.noise)
    if not settings.epsilon > 0:
        raise InvalidInput(f"expected epsilon above 0, got {settings.epsilon:g}; use inf for no privacy at all")
    if noise.needs_privacy and math.isinf(settings.epsilon):
        raise InvalidInput("expected a finite epsilon with shared noise, which has no encoding without noise")
    if settings.architecture not in ("linear", "mlp", "mlp-auxiliary"):
        raise InvalidInput(f"expected model linear, mlp or mlp-auxiliary, got {settings.architecture!r}")
    check_aggregation(settings.aggregation, settings.noise)
    if settings.out is not None and settings.out.exists() and any(settings.out.iterdir()):
        raise InvalidInput(f"expected an empty or new folder for --out, got {settings.out}; choose another")


def _out_folder(settings: DemoSettings) -> Path:
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
    return (settings.out or Path(".demo") / stamp).absolute()


# homes -------------------------------------------------------------------------------------------------------------


def _make_homes(out: Path, prepared: Prepared, epsilon: float) -> dict[str, Home]:
    homes = {
        "orchestrator": _home(out, "orchestrator", "Study scientists (demo)", "orchestrator"),
        "keyholder": _home(out, "keyholder", "Neutral keyholder (demo)", "keyholder"),
    }
    for site in prepared.sites:
        homes[site.name] = _home(out, site.name, site.institution, "datasite")
    roster = Roster(
        orchestrator=homes["orchestrator"].party(),
        keyholder=homes["keyholder"].party(),
        sites=tuple(homes[s.name].party() for s in prepared.sites),
    )
    for home in homes.values():
        roster.save(home.folder / "roster.json")
    for site in prepared.sites:
        _write_policy(homes[site.name], roster, math.inf if math.isinf(epsilon) else _DEMO_CAP)
    return homes


def _home(out: Path, name: str, institution: str, role: Any) -> Home:
    folder = out / name
    url = "http://127.0.0.1:9"  # replaced once the orchestrator listens
    return Home.create(folder, Config(name=name, institution=institution, role=role, orchestrator_url=url))


def _write_policy(home: Home, roster: Roster, cap: float) -> None:
    """Write the demo's policy: what a cautious owner sets, and the partners whose fingerprints were compared."""
    lines = [
        "# Policy of this datasite (docs/review.md). In the demo all fingerprints count as compared.",
        "[budget]",
        f"epsilon_cap = {cap}",
        f"delta = {_DEMO_DELTA}",
        "[noise]",
        'modes = ["local", "shared"]',
        "minimum_multiplier = 0.3",
        "allow_public_seed = true",
        "allow_infinite_epsilon = true",
    ]
    for party in roster.everybody:
        if party.public_key != home.identity().public_key:
            lines += ["[[partners]]", f"name = {json.dumps(party.name)}", f'public_key = "{party.public_key}"']
            lines += [f"institution = {json.dumps(party.institution)}"]
    (home.folder / "policy.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


_DEMO_CAP = 12.0
_DEMO_DELTA = 1e-4
_EVALUATION_SHARE = 0.1


def _invite(home: Home) -> Reviewer:
    store = AccountStore(home.folder / "accounts.sqlite")
    try:
        token = store.invite("steward", now=dt.datetime.now(dt.UTC))
    finally:
        store.close()
    return Reviewer(site=home.config().name, name=token, password=secrets.token_urlsafe(12))


def _start(processes: Processes, homes: dict[str, Home], prepared: Prepared) -> None:
    orchestrator = homes["orchestrator"]
    processes.start("orchestrator", ["orchestrator", "run", "--home", str(orchestrator.folder)])
    processes.wait_until_ready([orchestrator.folder], _READY_SECONDS)
    url = address(orchestrator.folder)
    for name, home in homes.items():
        if name != "orchestrator":
            config = home.config()
            Home.create(home.folder, Config(**{**config.__dict__, "orchestrator_url": url}))
    processes.start("keyholder", ["keyholder", "run", "--home", str(homes["keyholder"].folder)])
    for site in prepared.sites:
        processes.start(site.name, ["datasite", "run", "--home", str(homes[site.name].folder)])
    others = [homes["keyholder"].folder, *(homes[s.name].folder for s in prepared.sites)]
    processes.wait_until_ready(others, _READY_SECONDS)


# the study ---------------------------------------------------------------------------------------------------------


def _study(
    settings: DemoSettings,
    progress: Progress,
    client: SignedClient,
    homes: dict[str, Home],
    prepared: Prepared,
    reviewers: Sequence[Reviewer],
    processes: Processes,
) -> dict[str, Any]:
    home = homes["orchestrator"]
    progress.step("Reading what the hospitals published (PySyft mock data and released counts)")
    node = scientist(home, client)
    names = [s.name for s in prepared.sites]
    offers = offers_of(node, home, names, seconds=_OFFER_SECONDS, check=processes.check)
    progress.step("Proposing the study")
    study = StudySettings(
        study=STUDY,
        purpose="Train one model that tells early from late cancer stages from what several hospitals hold.",
        legal_basis="Demonstration on public or synthetic data; no legal basis needed.",
        task=settings.task,  # type: ignore[arg-type]  # checked against the offers
        rounds=settings.rounds,
        epsilon=settings.epsilon,
        delta=_DEMO_DELTA,
        noise=settings.noise,
        architecture=settings.architecture,  # type: ignore[arg-type]  # checked above
        aggregation=settings.aggregation,
        seed=settings.seed if settings.public_noise else None,
        evaluation_share=_EVALUATION_SHARE if settings.rounds > 1 else 0.0,  # a first round has no model to score yet
        min_sites=noise_named(settings.noise).usual_min_sites(len(offers)),
    )
    proposal = submit(node, home, client, study, offers)
    for block in local_blocks(proposal):
        progress.note(f"the {block} part has fewer than {proposal.min_sites} holders and stays at its sites")
    progress.note(f"dashboard, for one browser and half an hour: {new_link(home)}")
    progress.step("Waiting for the hospitals to review and approve")
    _approve(settings, progress, homes, reviewers, proposal.proposal_hash, processes)
    status = _wait(progress, client, proposal.rounds, processes)
    progress.step("Evaluating on held-out patients; hospitals write their privacy reports")
    curve = learning_curve(client, status, prepared.test)
    metrics = final_metrics(client, status, prepared.test)
    return {
        **status,
        "metrics": metrics,
        "dp_evaluation": last_evaluation(client, status, prepared.test),
        "curve": curve,
        "sites": [_site_result(homes[s.name], s, status) for s in prepared.sites],
    }


def _approve(
    settings: DemoSettings,
    progress: Progress,
    homes: dict[str, Home],
    reviewers: Sequence[Reviewer],
    proposal_hash: str,
    processes: Processes,
) -> None:
    by_hand = reviewers if settings.manual_all else reviewers[:1] if settings.manual else ()
    urls = {r.site: address(homes[r.site].folder) for r in reviewers}
    links = {r.site: f"{urls[r.site]}/register?token={r.name}" for r in by_hand}
    for reviewer in reviewers:
        if reviewer.site not in links:
            _approve_as(reviewer, urls[reviewer.site], proposal_hash, processes)
    if links:
        for line in approval_guide(links, study=STUDY, others=len(reviewers) - len(links)):
            progress.note(line)


def _approve_as(reviewer: Reviewer, url: str, proposal_hash: str, processes: Processes) -> None:
    """Do what a steward does: make an account from the one-time link, log in, read the request, approve."""
    with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as portal:
        person = {"name": f"steward-{reviewer.site}", "password": reviewer.password}
        _ok(portal.post("/api/register", json={"token": reviewer.name, **person}))
        session = _ok(portal.post("/api/login", json=person))
        deadline = time.monotonic() + _OFFER_SECONDS
        while not any(r["proposal_hash"] == proposal_hash for r in _ok(portal.get("/api/requests"))):
            processes.check()
            if time.monotonic() > deadline:
                raise TesseraError(f"the proposal did not reach {reviewer.site} in {_OFFER_SECONDS:g} s; see its log")
            time.sleep(_POLL_SECONDS)
        _ok(
            portal.post(
                f"/api/requests/{proposal_hash}/approve",
                json={"password": reviewer.password},
                headers={"x-csrf-token": session["csrf"]},
            )
        )


def _ok(response: httpx.Response) -> Any:
    if response.is_success:
        return response.json()
    detail = response.json().get("detail", "") if "json" in response.headers.get("content-type", "") else ""
    raise TesseraError(f"{response.request.url.path} answered {response.status_code}: {detail}")


def _wait(progress: Progress, client: SignedClient, rounds: int, processes: Processes) -> dict[str, Any]:
    while True:
        processes.check()
        status: dict[str, Any] = client.get_json(f"/studies/{STUDY}")
        state = status["state"]
        progress.rounds(status["rounds_completed"], rounds, _missing(status) if state == "waiting" else state)
        if state == "finished":
            return status
        if state in ("paused", "failed"):
            raise TesseraError(f"the study is {state}: {status['reason']}")
        time.sleep(_POLL_SECONDS)


def _missing(status: dict[str, Any]) -> str:
    names = [p["name"] for p in status["proposal"]["payload"]["participants"] if p["name"] not in status["approvals"]]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"waiting for {names[0]}{more} to approve" if names else "waiting"


# what it cost ------------------------------------------------------------------------------------------------------


def _site_result(home: Home, site: Any, status: dict[str, Any]) -> dict[str, Any]:
    report = _wait_for_report(home)
    rounds = sum(site.name in c["sites"] for c in status["checkpoints"])
    return {
        "name": site.name,
        "institution": site.institution,
        "modalities": list(site.modalities),
        "patients": len(site.cases),
        "rounds": rounds,
        "epsilon_spent": report["epsilon_spent"],
        "delta": report["delta"],
        "epsilon_cap": report["epsilon_cap"],
    }


def _wait_for_report(home: Home, seconds: float = 240.0) -> dict[str, Any]:
    path = home.folder / "reports" / "summary.json"
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise TesseraError(f"{home.folder.name} wrote no privacy report in {seconds:g} s; see its log")
        time.sleep(0.1)
    return dict(json.loads(path.read_bytes()))


def _study_report(out: Path, result: dict[str, Any]) -> tuple[Path, ...]:
    facts = study_facts(result, metrics=result["metrics"], sites=result["sites"], curve=result["curve"])
    return *write_study_report(facts, out / "reports"), write_study_pdf(facts, out / "reports")


def _reports(homes: dict[str, Home], prepared: Prepared) -> list[str]:
    found = []
    for site in prepared.sites:
        folder = homes[site.name].folder / "reports"
        found += sorted(str(p) for p in folder.glob("privacy-report.*"))
    return found
