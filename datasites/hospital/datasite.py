"""A hospital's stores, client, worker pool and round participant, opened together from its folder."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from datasites.data.publishing import Datasets
from datasites.hospital.rounds import RoundParticipant
from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.node.http import SignedClient
from datasites.node.rollback import Standing
from datasites.review.accounts import AccountStore
from datasites.review.approvals import ApprovalStore
from datasites.review.endings import Endings
from datasites.review.policy import Policy
from datasites.study.proposal import Proposal
from datasites.worker.job import Outcome
from datasites.worker.pool import WorkerPool
from datasites.worker.trainer import SandboxedTrainer
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Datasite:
    """Everything one datasite consists of."""

    home: Home
    site: str
    client: SignedClient
    policy: Policy
    journal: Journal
    ledger: Ledger
    accounts: AccountStore
    approvals: ApprovalStore
    datasets: Datasets
    pool: WorkerPool
    trainer: SandboxedTrainer
    participant: RoundParticipant
    standing: Standing
    endings: Endings

    @classmethod
    def open(cls, home: Home) -> Datasite:
        """Open a home's stores.

        Raises:
            InvalidInput: a file is missing or malformed.
        """
        config, identity, roster = home.config(), home.identity(), home.roster()
        policy = Policy.load(home.folder / "policy.toml")
        journal = Journal(home.folder / "journal.sqlite", identity)
        ledger = Ledger(home.folder / "ledger.sqlite", identity)
        datasets = Datasets(home=home, ledger=ledger, journal=journal, policy=policy)
        client = SignedClient(identity, config.orchestrator_url, roster.orchestrator.public_key, ca=config.ca)
        standing = Standing(home=home, client=client, ledger=ledger, journal=journal)

        def reserve(proposal: Proposal) -> None:
            standing.require()
            population = datasets.population_of(proposal.participant(config.name).dataset)
            hashed, plan = proposal.proposal_hash, proposal.mechanism
            ledger.reserve(population, study=proposal.study, proposal_hash=hashed, plan=plan)

        approvals = ApprovalStore(
            home.folder / "approvals.sqlite",
            site=config.name,
            identity=identity,
            policy=policy,
            record=journal.append,
            reserve=reserve,
            release=lambda proposal_hash, reason: endings.study_ended(proposal_hash, reason),
            hospitals=lambda: (*home.roster().sites, *home.roster().helpers),
        )
        endings = Endings(
            ledger=ledger,
            journal=journal,
            approvals=approvals,
            newest=datasets.newest,
            held=lambda: standing.trouble,
        )
        pool = WorkerPool(policy.sandbox, hidden=(home.folder,))
        trainer = _trainer(home, config.name, pool, approvals)
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
            round_seconds=policy.sandbox.round_seconds,
        )
        journal.append("started", {"policy_hash": policy.policy_hash})
        return cls(
            home=home,
            site=config.name,
            client=client,
            policy=policy,
            journal=journal,
            ledger=ledger,
            accounts=AccountStore(home.folder / "accounts.sqlite"),
            approvals=approvals,
            datasets=datasets,
            pool=pool,
            trainer=trainer,
            participant=participant,
            standing=standing,
            endings=endings,
        )

    def close(self) -> None:
        """Close everything; workers are ended."""
        self.pool.close()
        self.client.close()
        for store in (self.approvals, self.accounts, self.ledger, self.journal):
            store.close()


def _trainer(home: Home, site: str, pool: WorkerPool, approvals: ApprovalStore) -> SandboxedTrainer:
    return SandboxedTrainer(
        site=site,
        pool=pool,
        folder=home.folder / "scratch",
        code_of=lambda proposal_hash: approvals.request(proposal_hash).folder,
        failed=lambda outcome, log: _keep_log(home, outcome, log),
    )


def _keep_log(home: Home, outcome: Outcome, log: str) -> None:
    """Keep a failed worker's log for the hospital's own staff."""
    name = dt.datetime.now(dt.UTC).strftime("worker-%Y%m%dT%H%M%S.log")
    text = f"{outcome.status}: {outcome.reason} after {outcome.seconds:.1f} s\n\n{log}"
    write_atomically(home.folder / "worker-logs" / name, text.encode())
