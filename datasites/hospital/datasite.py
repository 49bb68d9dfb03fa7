"""A hospital's stores, client, worker pool and round participant, opened together from its folder."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from datasites.data.publishing import Datasets
from datasites.hospital.rounds.taking_part import RoundParticipant
from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.node.http import SignedClient
from datasites.node.notices.absences import Absences
from datasites.node.rollback import Standing
from datasites.review.accounts import AccountStore
from datasites.review.approvals import ApprovalStore
from datasites.review.budget_acts import BudgetActs
from datasites.review.endings import STOPPED, Endings
from datasites.review.environment import current_environment, data_hash
from datasites.review.plain_jobs import PlainJobs
from datasites.review.policy import Policy
from datasites.review.policy_file import PolicyFile
from datasites.study.proposal import Proposal
from datasites.worker.job import Outcome
from datasites.worker.pool import WorkerPool
from datasites.worker.preflight import Preflight
from datasites.worker.rule import RuleOf, sandboxed_rules
from datasites.worker.trainer import SandboxedTrainer
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Datasite:
    """Everything one datasite consists of."""

    home: Home
    site: str
    client: SignedClient
    policies: PolicyFile
    journal: Journal
    ledger: Ledger
    accounts: AccountStore
    approvals: ApprovalStore
    datasets: Datasets
    jobs: PlainJobs
    pool: WorkerPool
    trainer: SandboxedTrainer
    participant: RoundParticipant
    standing: Standing
    endings: Endings

    @classmethod
    def open(cls, home: Home) -> Datasite:
        """Open a home's stores; InvalidInput where a file is missing or malformed."""
        config, identity = home.config(), home.identity()
        journal = Journal(home.folder / "journal.sqlite", identity)
        ledger = Ledger(home.folder / "ledger.sqlite", identity)
        policies = PolicyFile(home.folder / "policy.toml", journal=journal, ledger=ledger)
        datasets = Datasets(home=home, ledger=ledger, journal=journal, policy=policies.current)
        client = _client(home)
        standing = Standing(home=home, client=client, ledger=ledger, journal=journal)
        approvals = ApprovalStore(
            home.folder / "approvals.sqlite",
            site=config.name,
            identity=identity,
            policy=policies.current,
            record=journal.append,
            reserve=lambda proposal: _reserve(proposal, config.name, standing, datasets),
            release=lambda proposal_hash, reason: endings.study_ended(proposal_hash, reason),
            roster=home.roster,
        )
        endings = _endings(standing, datasets, approvals)
        pool = WorkerPool(policies.current().sandbox, hidden=(home.folder,))
        accounts = AccountStore(home.folder / "accounts.sqlite", idle_minutes=policies.current().people.idle_minutes)
        policies.changed = _applied(pool, accounts)
        trainer = _trainer(home, config.name, pool, approvals, journal, passed := set[str]())
        participant = RoundParticipant(
            site=config.name,
            home=home,
            client=client,
            approvals=approvals,
            ledger=ledger,
            journal=journal,
            train=trainer,
            dataset=datasets.here,
            build=trainer.initial_model,
            rule_of=_rules(home, pool, approvals, journal),
            preflight=Preflight(trainer=trainer, passed=passed),
            round_seconds=lambda: policies.current().sandbox.round_seconds,
        )
        journal.append("started", {"policy_hash": policies.current().policy_hash})
        return cls(
            home=home,
            site=config.name,
            client=client,
            policies=policies,
            journal=journal,
            ledger=ledger,
            accounts=accounts,
            approvals=approvals,
            datasets=datasets,
            jobs=PlainJobs(home.folder / "plain-jobs", record=journal.append),
            pool=pool,
            trainer=trainer,
            participant=participant,
            standing=standing,
            endings=endings,
        )

    @property
    def policy(self) -> Policy:
        """The owner's rules at this moment."""
        return self.policies.current()

    @cached_property
    def acts(self) -> BudgetActs:
        """What people do to budgets by hand."""
        return BudgetActs(ledger=self.ledger, journal=self.journal, policies=self.policies, endings=self.endings)

    @cached_property
    def absences(self) -> Absences:
        """Which of the people are away, and who gets their notices."""
        return Absences(self.home.folder)

    def close(self) -> None:
        """Close everything; workers are ended."""
        self.absences.close()
        self.pool.close()
        self.client.close()
        for store in (self.approvals, self.accounts, self.ledger, self.journal):
            store.close()


def _client(home: Home) -> SignedClient:
    """Return what asks the orchestrator, and tells it which software touches data here."""
    config, key, software = home.config(), home.roster().orchestrator.public_key, data_hash(current_environment())
    return SignedClient(
        home.identity(), config.orchestrator_url, key, ca=config.ca, proxy=config.proxy, data_software=software
    )


def _reserve(proposal: Proposal, site: str, standing: Standing, datasets: Datasets) -> None:
    """Reserve the worst case of a study in the ledger."""
    standing.require()
    population = datasets.population_of(proposal.participant(site).dataset)
    hashed, plan = proposal.proposal_hash, proposal.charged
    datasets.ledger.reserve(population, study=proposal.study, proposal_hash=hashed, plan=plan)


def _endings(standing: Standing, datasets: Datasets, approvals: ApprovalStore) -> Endings:
    """Return what gives back the budgets of studies that ended."""
    return Endings(
        ledger=datasets.ledger,
        journal=datasets.journal,
        approvals=approvals,
        newest=datasets.newest,
        held=lambda: standing.trouble,
    )


def _trainer(
    home: Home, site: str, pool: WorkerPool, approvals: ApprovalStore, journal: Journal, passed: set[str]
) -> SandboxedTrainer:
    def failed(outcome: Outcome, log: str) -> None:
        passed.clear()  # the next round is tried on made-up records again before it is charged
        _keep_log(home, journal, outcome, log)

    return SandboxedTrainer(
        site=site,
        pool=pool,
        folder=home.folder / "scratch",
        code_of=lambda proposal_hash: approvals.request(proposal_hash).folder,
        failed=failed,
    )


def _applied(pool: WorkerPool, accounts: AccountStore) -> Callable[[Policy], None]:
    """Return what makes a changed policy hold for workers and sessions."""

    def changed(policy: Policy) -> None:
        pool.limits, accounts.sessions.idle_minutes = policy.sandbox, policy.people.idle_minutes

    return changed


def _rules(home: Home, pool: WorkerPool, approvals: ApprovalStore, journal: Journal) -> RuleOf:
    return sandboxed_rules(
        pool,
        home.folder / "scratch",
        lambda proposal: approvals.request(proposal.proposal_hash).folder,
        lambda outcome, log: _keep_log(home, journal, outcome, log),
    )


def _keep_log(home: Home, journal: Journal, outcome: Outcome, log: str) -> None:
    """Keep a failed worker's log for the hospital's own staff; journal where it lies and how the worker ended."""
    name = dt.datetime.now(dt.UTC).strftime("worker-%Y%m%dT%H%M%S.%f.log")
    text = f"{outcome.status}: {outcome.reason} after {outcome.seconds:.1f} s\n\n{log}"
    write_atomically(home.folder / "worker-logs" / name, text.encode())
    journal.append(STOPPED, {"status": outcome.status, "reason": outcome.reason, "log": f"worker-logs/{name}"})
    _log.error("a worker stopped: %s; its log is worker-logs/%s", outcome.reason or "its result is no update", name)
