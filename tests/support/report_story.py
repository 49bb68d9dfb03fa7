"""A hospital's whole story, for tests of its report: two approved studies, one denied, a count, a failed round."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from datasites import report as reporting
from privacy.dp.mechanism import HistogramRelease, LossRelease, Mechanism
from privacy.ledger.costs import gaussian_cost
from privacy.ledger.ledger import Ledger, case_hash

SECRET_CASES = [f"TCGA-AB-{n:04d}" for n in range(173)]
LOCAL = Mechanism(
    max_grad_norm=1.0,
    noise_multiplier=3.2,
    sampling_rate=0.2,
    steps_per_round=4,
    rounds=10,
    target_delta=1e-4,
    losses=LossRelease(every_rounds=2, bound=2.0, noise_multiplier=25.0),
)
SHARED = Mechanism(
    max_grad_norm=1.0,
    noise_multiplier=2.5,
    sampling_rate=0.25,
    steps_per_round=1,
    rounds=8,
    target_delta=1e-4,
    noise="shared",
    max_parameters=20_000,
    evaluation=HistogramRelease(every_rounds=8, noise_multiplier=20.0),
)


@dataclasses.dataclass
class Story:
    desk: Any
    ledger: Ledger
    population: str

    def build(self, **changes: Any) -> reporting.Report:
        fields = {
            "site": "alba",
            "institution": "Hospital Alba",
            "records": reporting.Records.read(self.desk.folder, "alba", self.ledger, self.desk.journal),
            "requests": self.desk.store.requests(),
        }
        return reporting.build_report(**{**fields, **changes})


class Calendar:
    """A clock that moves on a few days with every look."""

    def __init__(self, start: dt.datetime) -> None:
        self.now = start

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(days=2, hours=5)
        return self.now


def told_story(new_desk: Any, new_proposal: Any, now: dt.datetime) -> Story:
    """Return the story, told on a fresh review desk."""
    desk = new_desk('[noise]\nmodes = ["local", "shared"]\n[review]\nrequired_reviewers = 2')
    ledger = Ledger(desk.folder / "ledger.sqlite", desk.store._identity, clock=Calendar(now))
    population = ledger.register_dataset("alba-lung", 1, [case_hash(b"k" * 32, case) for case in SECRET_CASES])
    ledger.set_cap(population, epsilon=8.0, delta=1e-4, by="Dr. Rossi", reason="Ethics board, minute 12 of 2026")
    count = {"name": "count of alba-lung version 1", "by": "publishing", "reason": "the number that scientists see"}
    ledger.release(population, cost=gaussian_cost(10.0), **count)
    desk.journal.append("count-released", {"dataset": "alba-lung", "version": 1, "patients": 181})
    told = Story(desk, ledger, population)
    first = approved(told, new_proposal(mechanism=LOCAL, rounds=10), now)
    play(told, first, rounds=10, failed=7)
    second = new_proposal(study="lung-survival", mechanism=SHARED, noise="shared", rounds=8, nonce="1" * 32)
    play(told, approved(told, second, now), rounds=5)
    denied = desk.submit(new_proposal(study="insurance-risk", purpose="Price risks.", nonce="2" * 32))
    desk.store.deny(denied, reviewer=desk.accounts.account("bela"), reason="No purpose of care.", now=now)
    return told


def approved(story: Story, proposal: Any, now: dt.datetime) -> Any:
    proposal_hash = story.desk.submit(proposal)
    story.desk.approve(proposal_hash, "anna")
    story.desk.approve(proposal_hash, "bela")
    plan = proposal.mechanism
    story.ledger.reserve(story.population, study=proposal.study, proposal_hash=proposal_hash, plan=plan)
    return proposal


def play(story: Story, proposal: Any, *, rounds: int, failed: int = 0) -> None:
    journal, ledger = story.desk.journal, story.ledger
    for number_of_round in range(1, rounds + 1):
        ledger.charge(proposal.proposal_hash, number_of_round)
        where = {"study": proposal.study, "round": number_of_round}
        if number_of_round == failed:
            journal.append("worker-failed", where)
        releases = {"loss/fused": 0.61} if proposal.mechanism.releases_losses(number_of_round) else {}
        journal.append("update-encrypted", {**where, "body_hash": "0" * 64, "bytes": 262_144, "releases": releases})
        heads = {"alba": {"journal": journal.head.hash, "ledger": ledger.head.hash}}
        journal.append("attested", {**where, "heads": heads})
