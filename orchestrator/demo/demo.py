"""``tessera demo``: a whole consortium on one machine, from data to privacy reports.

The demo plays every person in turn, through the same interfaces they would use: it ingests tables for each hospital,
exchanges public keys, proposes a study over PySyft, approves it in each hospital's portal by its HTTP API, waits for
the rounds and evaluates the model on patients who were held out before anything else.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import shlex
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from datasites.data.commands import shown_of
from datasites.data.federations import Site, check_federation
from datasites.data.tcga.tables import classes_of
from datasites.node.credentials.signed_pdf import signer_of
from datasites.node.home import address
from datasites.node.http import SignedClient
from datasites.node.warm import Warm
from datasites.strategy.registry import noise_named
from datasites.study.proposal import Proposal
from datasites.study.thread import OVER_FOR_GOOD
from orchestrator.dashboard.access import new_link
from orchestrator.demo.consortium import DELTA, Homes, Prepared, Steward, prepare
from orchestrator.demo.filing import FILING, LEGAL_BASIS
from orchestrator.demo.processes import Processes, import_ahead
from orchestrator.demo.schema_data import prepare_schema, prepare_tables
from orchestrator.demo.settings import DemoSettings
from orchestrator.demo.view import approval_guide, conditions_guide, conditions_of
from orchestrator.studies.evaluation import final_metrics, last_evaluation, learning_curve
from orchestrator.studies.facts import study_facts
from orchestrator.studies.proposing.propose import check_aggregation, local_blocks, notes_on
from orchestrator.studies.proposing.settings import StudySettings
from orchestrator.studies.report import write_study_pdf, write_study_report
from orchestrator.studies.run import Progress
from orchestrator.studies.status import OVER, Watched
from orchestrator.studies.submit import offers_of, scientist, submit
from privacy.dp.calibration import check_most
from privacy.errors import InvalidInput, TesseraError

STUDY = "cancer-staging"
_OFFER_SECONDS = 120.0
_APPROVE_AT_ONCE = 4
_REPORT_SECONDS = 240.0
_POLL_SECONDS = 0.3
_EVALUATION_SHARE = 1.0
_PURPOSE = "Train one model that tells early from late cancer stages from what several hospitals hold."

Stay = Callable[[dict[str, Any], dict[str, str]], None]


def run_demo(settings: DemoSettings, progress: Progress, *, warm: Warm, stay: Stay | None = None) -> dict[str, Any]:
    """Run the demo and return the object that ``--json`` prints.

    Args:
        settings: what to run.
        progress: who shows it.
        warm: the process that every role is forked from; it may still import.
        stay: called with that object and the portals that were left to a person, while all roles still run.

    Raises:
        InvalidInput: bad options or tables; nothing was started.
        TesseraError: a role failed; everything is ended.
    """
    os.umask(0o077)
    _check(settings)
    started = time.monotonic()
    out = _out_folder(settings)
    with ExitStack() as stack:
        progress.step("Splitting patients over hospitals")
        prepared = _prepared(settings, out)
        homes = Homes.make(out, prepared, settings.epsilon)
        stewards = homes.invite()
        import_ahead()
        processes = stack.enter_context(Processes(logs=out / "logs", warm=warm))
        progress.step("Starting orchestrator, keyholder and hospitals")
        homes.start(processes, settings.start_seconds)
        identity = homes.orchestrator.identity()
        url = address(homes.orchestrator.folder)
        client = stack.enter_context(SignedClient(identity, url, identity.public_key))
        demo = _Demo(
            settings=settings,
            progress=progress,
            prepared=prepared,
            homes=homes,
            stewards=stewards,
            processes=processes,
            client=client,
        )
        found = demo.run_study()
        seconds = round(time.monotonic() - started, 1)
        shown = _ended(found, out=out, seconds=seconds) if "sites" not in found else _shown(found, out, homes, seconds)
        if stay is not None:
            by_hand = prepared.sites if settings.manual_all else prepared.sites[:1]
            stay(shown, {site.name: address(homes.hospitals[site.name].folder) for site in by_hand})
    return shown


def _prepared(settings: DemoSettings, out: Path) -> Prepared:
    sites, seed = settings.sites, settings.seed
    if settings.schema is not None and settings.data is not None:
        return prepare_tables(
            settings.schema,
            settings.data,
            out,
            outcome=settings.outcome,
            federation=settings.federation,
            sites=sites,
            seed=seed,
        )
    if settings.schema is not None:
        return prepare_schema(settings.schema, out, outcome=settings.outcome, sites=sites, seed=seed)
    return prepare(
        settings.data, out, federation=settings.federation, task=settings.task, sites=sites, seed=settings.seed
    )


def _check(settings: DemoSettings) -> None:
    if settings.schema is None and settings.outcome is not None:
        raise InvalidInput("expected --outcome with --schema, got it alone; TCGA tables have a --task")
    if settings.schema is None:
        check_federation(settings.federation)
        classes_of(settings.task)
    noise = noise_named(settings.noise)
    if not settings.epsilon > 0:
        raise InvalidInput(f"expected epsilon above 0, got {settings.epsilon:g}; use inf for no privacy at all")
    check_most(settings.epsilon)
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


@dataclass(frozen=True, kw_only=True)
class _Demo:
    """A consortium whose roles run, and the people the demo plays."""

    settings: DemoSettings
    progress: Progress
    prepared: Prepared
    homes: Homes
    stewards: list[Steward]
    processes: Processes
    client: SignedClient

    def run_study(self) -> dict[str, Any]:
        """Propose the study, approve it, wait for its rounds; return its status with what it gave and cost.

        Of a study that people ended in the portals only the status is returned.
        """
        proposal = self._propose()
        self.progress.step("Waiting for the hospitals to review and approve")
        self._approve(proposal.proposal_hash)
        status = self._wait(proposal.rounds)
        if status["state"] != "finished":
            return status
        self.progress.step("Evaluating on held-out patients; hospitals write their privacy reports")
        test = self.prepared.test
        curve = learning_curve(self.client, status, test)
        return {
            **status,
            "curve": curve,
            "metrics": final_metrics(self.client, status, test),
            "dp_evaluation": last_evaluation(self.client, status, test),
            "sites": [self._site_result(site, status) for site in self.prepared.sites],
            "lost": list(self.prepared.federation.lost),
        }

    def _propose(self) -> Proposal:
        home = self.homes.orchestrator
        self.progress.step("Reading what the hospitals published (PySyft mock data and released counts)")
        node = scientist(home, self.client)
        names = [site.name for site in self.prepared.sites]
        offers = offers_of(node, home, names, seconds=_OFFER_SECONDS, check=self.processes.check)
        for line in shown_of(self.prepared.federation.lost):
            self.progress.note(line)
        self.progress.step("Proposing the study")
        proposal = submit(node, home, self.client, _study(self.settings, self.prepared.federation.task), offers)
        for note in notes_on(proposal):
            self.progress.note(note)
        for block in local_blocks(proposal):
            self.progress.note(
                f"the {block} part has fewer than {proposal.min_sites} holders and stays at its hospitals"
            )
        self.progress.note(f"dashboard, for one browser and half an hour: {new_link(home)}")
        return proposal

    def _approve(self, proposal_hash: str) -> None:
        by_hand = self.stewards if self.settings.manual_all else self.stewards[: 1 if self.settings.manual else 0]
        urls = {site: address(home.folder) for site, home in self.homes.hospitals.items()}
        if by_hand:  # first, so that nobody waits for those whom the demo plays
            links = {s.site: f"{urls[s.site]}/register?token={s.invitation}" for s in by_hand}
            for line in approval_guide(links, study=STUDY, others=len(self.stewards) - len(by_hand)):
                self.progress.note(line)
        pool, ended = ThreadPoolExecutor(_APPROVE_AT_ONCE), threading.Event()
        try:
            played = [
                pool.submit(_approve_as, steward, urls[steward.site], proposal_hash, ended)
                for steward in self.stewards
                if steward not in by_hand
            ]
            for approval in played:
                while not approval.done():
                    self.processes.check()
                    wait([approval], _POLL_SECONDS)
                approval.result()
        finally:
            ended.set()
            pool.shutdown(cancel_futures=True)

    def _wait(self, rounds: int) -> dict[str, Any]:
        """Return the study's status at its end; without people in the portals it has to end well."""
        paused = asked = ""
        watched = Watched(f"/studies/{STUDY}")
        while True:
            self.processes.check()
            status: dict[str, Any] = watched.look(self.client)
            state = status["state"]
            self.progress.rounds(status["rounds_completed"], rounds, _missing(status) if state == "waiting" else state)
            if state == "finished":
                return status
            if (found := conditions_of(status)) != asked:
                asked = found
                for line in conditions_guide(found, study=STUDY, home=self.homes.orchestrator.folder):
                    self.progress.note(line)
            if state in OVER and not self.settings.by_hand:
                raise TesseraError(f"the study is {state}: {status['reason']}")
            if state in OVER_FOR_GOOD:
                return status
            if state in OVER and status["reason"] != paused:
                paused = status["reason"]
                self.progress.note(f"the study is {state}: {paused}")
                quoted = shlex.quote(str(self.homes.orchestrator.folder))
                self.progress.note(f"let it go on with: tessera study resume {STUDY} --home {quoted}")
            time.sleep(_POLL_SECONDS)

    def _site_result(self, site: Site, status: dict[str, Any]) -> dict[str, Any]:
        report = _wait_for_report(self.homes.hospitals[site.name].folder)
        return {
            "name": site.name,
            "institution": site.institution,
            "modalities": list(site.modalities),
            "patients": len(site.cases),
            "rounds": sum(site.name in checkpoint["sites"] for checkpoint in status["checkpoints"]),
            **{name: report[name] for name in ("epsilon_spent", "delta", "epsilon_cap")},
        }


def _study(settings: DemoSettings, task: str) -> StudySettings:
    return StudySettings(
        study=STUDY,
        purpose=_PURPOSE if settings.schema is None else f"Train one model of {task} from what several hospitals hold.",
        legal_basis=LEGAL_BASIS,
        filing=FILING,
        task=task,
        rounds=settings.rounds,
        epsilon=settings.epsilon,
        delta=DELTA,
        noise=settings.noise,
        architecture=settings.architecture,  # type: ignore[arg-type]  # checked before
        aggregation=settings.aggregation,
        seed=settings.seed if settings.public_noise else None,
        min_sites=settings.min_sites,
        colluders=settings.colluders,
        evaluation_share=_evaluation_share(settings),
    )


def _evaluation_share(settings: DemoSettings) -> float:
    if settings.evaluation_share is not None:
        return settings.evaluation_share
    return _EVALUATION_SHARE if settings.rounds > 1 else 0.0  # a first round has no model to score yet


def _approve_as(steward: Steward, url: str, proposal_hash: str, ended: threading.Event) -> None:
    """Do what a steward does: make an account from the one-time link, log in, read the request, approve."""
    with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as portal:
        person = {"name": f"steward-{steward.site}", "password": steward.password}
        _ok(portal.post("/api/register", json={"token": steward.invitation, **person}))
        session = _ok(portal.post("/api/login", json=person))
        deadline = time.monotonic() + _OFFER_SECONDS
        while not any(r["proposal_hash"] == proposal_hash for r in _ok(portal.get("/api/requests"))):
            if ended.wait(_POLL_SECONDS) or time.monotonic() > deadline:
                raise TesseraError(f"the proposal did not reach {steward.site} in {_OFFER_SECONDS:g} s; see its log")
        _ok(
            portal.post(
                f"/api/requests/{proposal_hash}/approve",
                json={"password": steward.password},
                headers={"x-csrf-token": session["csrf"]},
            )
        )


def _ok(response: httpx.Response) -> Any:
    if response.is_success:
        return response.json()
    detail = response.json().get("detail", "") if "json" in response.headers.get("content-type", "") else ""
    raise TesseraError(f"{response.request.url.path} answered {response.status_code}: {detail}")


def _missing(status: dict[str, Any]) -> str:
    names = [p["name"] for p in status["proposal"]["payload"]["participants"] if p["name"] not in status["approvals"]]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"waiting for {names[0]}{more} to approve" if names else "waiting"


def _wait_for_report(home: Path) -> dict[str, Any]:
    path = home / "reports" / "summary.json"
    deadline = time.monotonic() + _REPORT_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise TesseraError(f"{home.name} wrote no privacy report in {_REPORT_SECONDS:g} s; see its log")
        time.sleep(0.1)
    return dict(json.loads(path.read_bytes()))


def _ended(status: dict[str, Any], *, out: Path, seconds: float) -> dict[str, Any]:
    """Return what there is to show of a study that people ended: how far it came, and why no further."""
    kept = {name: status[name] for name in ("study", "state", "reason", "rounds_completed")}
    return {**kept, "seconds": seconds, "out": str(out)}


def _shown(result: dict[str, Any], out: Path, homes: Homes, seconds: float) -> dict[str, Any]:
    measured = {name: result[name] for name in ("metrics", "sites", "curve")}
    facts = study_facts(result, **measured, made=dt.datetime.now(dt.UTC))
    sign = signer_of(homes.orchestrator, f"Study report {facts.number}")
    reports = [*write_study_report(facts, out / "reports"), write_study_pdf(facts, out / "reports", sign=sign)]
    for home in homes.hospitals.values():
        reports += [home.folder / "reports" / f"privacy-report.{suffix}" for suffix in ("html", "json", "pdf")]
    return {
        "study": STUDY,
        "rounds_completed": result["rounds_completed"],
        "seconds": seconds,
        "uplink_bytes": sum(c["uplink_bytes"] for c in result["checkpoints"]),
        **{name: result[name] for name in ("metrics", "dp_evaluation", "sites", "lost")},
        "reports": [str(path) for path in reports],
        "out": str(out),
    }
