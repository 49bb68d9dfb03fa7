"""The demo's hospitals and roles on disk: who gets which patients, one folder each, a roster, policies, invitations."""

from __future__ import annotations

import datetime as dt
import json
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasites.data.dataset import read_schema
from datasites.data.federations import Federation, Site
from datasites.data.ingest import ingest
from datasites.data.synthetic import generate
from datasites.node.home import Config, Home, Role, address
from datasites.node.roster import Roster
from datasites.review.accounts import AccountStore
from datasites.review.policy import SandboxPolicy
from datasites.study.proposal import Party
from datasites.worker.sandbox import available_layers
from orchestrator.demo.processes import Processes
from orchestrator.demo.roles import partner_lines

DELTA = 1e-4
_CAP = 12.0
READY_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Where everybody's data lies, and the held-out test patients that no hospital and no orchestrator ever gets."""

    federation: Federation
    test: Path
    public: bool

    @property
    def sites(self) -> tuple[Site, ...]:
        """The institutions."""
        return self.federation.sites


def prepare(
    data: Path | None,
    out: Path,
    *,
    federation: str,
    task: str,
    sites: int,
    seed: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> Prepared:
    """Split patients over hospitals and put each dataset into its hospital's folder under ``out``.

    Raises:
        InvalidInput: unknown federation or task, or tables that cannot be read; nothing was written.
    """
    source = generate(seed=seed) if data is None else data
    dealt = out / "dealt"
    plan = ingest(source, dealt, federation=federation, task=task, seed=seed, sites=sites, progress=progress)
    for site in plan.sites:
        folder = dealt / "sites" / site.name
        schema = read_schema(folder)
        target = out / site.name / "datasets" / schema.name / f"v{schema.version}"
        target.parent.mkdir(parents=True, mode=0o700)
        folder.replace(target)
    (dealt / "sites").rmdir()
    return Prepared(federation=plan, test=dealt / "test", public=data is not None)


@dataclass(frozen=True, kw_only=True)
class Steward:
    """The demo's steward at one hospital: the secret of the one-time link, and the password of the account."""

    site: str
    invitation: str
    password: str


@dataclass(frozen=True, kw_only=True)
class Homes:
    """The folders of all roles under ``out``."""

    orchestrator: Home
    keyholder: Home
    hospitals: dict[str, Home]
    helpers: dict[str, Home]

    @classmethod
    def make(
        cls, out: Path, prepared: Prepared, epsilon: float, helpers: int = 2, scientists: Sequence[Party] = ()
    ) -> Homes:
        """Make identities and roster, and policies under which a study at ``epsilon`` may be approved.

        ``helpers`` of the hospitals run a helper beside, the first ones. ``scientists`` may ask with keys of their own.
        """
        homes = cls(
            orchestrator=_home(out, "orchestrator", "Study scientists (demo)", "orchestrator"),
            keyholder=_home(out, "keyholder", "Neutral keyholder (demo)", "keyholder"),
            hospitals={site.name: _home(out, site.name, site.institution, "datasite") for site in prepared.sites},
            helpers={
                f"helper-{site.name}": _home(out, f"helper-{site.name}", site.institution, "helper")
                for site in prepared.sites[:helpers]
            },
        )
        roster = Roster(
            orchestrator=homes.orchestrator.party(),
            keyholder=homes.keyholder.party(),
            sites=tuple(home.party() for home in homes.hospitals.values()),
            helpers=tuple(home.party() for home in homes.helpers.values()),
            scientists=tuple(scientists),
        )
        for home in (homes.orchestrator, homes.keyholder, *homes.helpers.values(), *homes.hospitals.values()):
            roster.save(home.folder / "roster.json")
        for home in homes.hospitals.values():
            policy = _policy(roster, home.identity().public_key, math.inf if math.isinf(epsilon) else _CAP)
            (home.folder / "policy.toml").write_text(policy, encoding="utf-8")
        return homes

    def invite(self) -> list[Steward]:
        """Invite a first steward at every hospital."""
        found = []
        for name, home in self.hospitals.items():
            accounts = AccountStore(home.folder / "accounts.sqlite")
            try:
                invitation = accounts.invite("steward", now=dt.datetime.now(dt.UTC))
            finally:
                accounts.close()
            found.append(Steward(site=name, invitation=invitation, password=secrets.token_urlsafe(12)))
        return found

    def start(self, processes: Processes, seconds: float = READY_SECONDS) -> None:
        """Start all roles by their public commands, the orchestrator first: the others dial its address.

        Raises:
            TesseraError: one ended, or not all are ready after ``seconds``.
        """
        deadline, folder = time.monotonic() + seconds, self.orchestrator.folder
        processes.start("orchestrator", ["orchestrator", "run", "--home", str(folder)])
        processes.wait_until_ready([folder], seconds)
        url = address(folder)
        others = {"keyholder": self.keyholder, **self.helpers, **self.hospitals}
        for name, home in others.items():
            config = home.config()
            Home.create(home.folder, replace(config, orchestrator_url=url))
            processes.start(name, [config.role, "run", "--home", str(home.folder)])
        processes.wait_until_ready([home.folder for home in others.values()], deadline - time.monotonic())


def _home(out: Path, name: str, institution: str, role: Role) -> Home:
    url = "http://127.0.0.1:9"  # replaced once the orchestrator listens
    return Home.create(out / name, Config(name=name, institution=institution, role=role, orchestrator_url=url))


def _policy(roster: Roster, own_key: str, cap: float) -> str:
    lines = [
        "# Policy of this datasite (docs/review.md). In the demo all fingerprints count as compared.",
        "[budget]",
        f"epsilon_cap = {cap}",
        f"delta = {DELTA}",
        "[noise]",
        'modes = ["local", "shared"]',
        "minimum_multiplier = 0.3",
        "allow_public_seed = true",
        "allow_infinite_epsilon = true",
        *_sandbox_lines(),
        *partner_lines(roster, own_key),
    ]
    return "\n".join(lines) + "\n"


def _sandbox_lines() -> list[str]:
    """Return shorter steps of time, and the layers that this machine offers where it lacks some that are demanded."""
    lines = [
        "[sandbox]",
        "# Updates leave at whole multiples of this, so that their time says little. Nobody's records are here.",
        "round_seconds = 0.25",
    ]
    demanded, offered = SandboxPolicy().minimum_layers, available_layers()
    if all(offered[layer] for layer in demanded):
        return lines
    kept = [layer for layer in demanded if offered[layer]]
    return [
        *lines,
        "# This machine lacks a layer that real records need (docs/review.md).",
        f"minimum_layers = {json.dumps(kept)}",
    ]
