"""What the report says about one study: from its line in the ledger, its proposal, its decisions, its rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from datasites.report import words
from datasites.report.facts import Epsilon, Fact, PartyLine, Person, RoundLine, StudyReport
from datasites.review.budgets import study_state
from datasites.review.records import Request
from datasites.strategy.registry import noise_named
from datasites.study.proposal import Proposal
from datasites.study.signing import parse
from privacy.canonical import canonical_hash
from privacy.dp.mechanism import Mechanism
from privacy.dp.two_hospitals import epsilon_at_two_hospitals
from privacy.identity import fingerprint
from privacy.ledger.chain import Entry
from privacy.ledger.costs import ZERO, Cost, cost_from_json
from privacy.ledger.ledger import Account, StudyAccount


@dataclass(frozen=True, kw_only=True)
class Records:
    """The entries of ledger and journal, read once for all studies."""

    ledger: Sequence[Entry]
    journal: Sequence[Entry]


def study_report(account: Account, study: StudyAccount, request: Request | None, records: Records) -> StudyReport:
    """Return one study's part of the report.

    Args:
        account: the population it is charged to.
        study: its line in the ledger.
        request: its proposal and decisions; None when they are not here any more.
        records: the entries of ledger and journal.
    """
    proposal = request.proposal if request else None
    mechanism = _mechanism(study)
    delta = account.cap.delta if account.cap else 0.0
    seeded = proposal is not None and proposal.seed is not None
    who = words.NOBODY if seeded else words.against(mechanism) if mechanism else words.EVERYBODY
    spent, worst, twice, central = _figures(mechanism, study, delta, who)
    return StudyReport(
        study=study.study,
        state=words.STATES[study_state(study, request.state if request else None)],
        population=account.population,
        proposal_hash=study.proposal_hash,
        plan_hash=proposal.plan_hash if proposal else None,
        purpose=proposal.purpose if proposal else None,
        legal_basis=proposal.legal_basis if proposal else None,
        custody=_custody(proposal) if proposal else None,
        code=_code(proposal) if proposal else "The proposal is not in this datasite's records any more.",
        code_hash=canonical_hash(dict(proposal.plan.code)) if proposal else None,
        environment=_environment(proposal) if proposal else (),
        people=_people(request) if request else (),
        parties=_parties(proposal) if proposal else (),
        mechanism=(*_mechanism_facts(mechanism), *_centring_facts(proposal)) if mechanism else (),
        rounds_planned=study.rounds,
        rounds_charged=len(study.charged_rounds),
        rounds_freed=len(study.freed_rounds),
        spent=spent,
        worst_case=worst,
        spent_in_ledger=_epsilon(study.spent.epsilon, delta, words.LEDGER, who),
        two_hospitals=twice,
        without_colluders=central,
        rounds=_rounds(study, who, delta, records),
        exposure=words.exposures(proposal, worst) if proposal else (),
        warnings=warnings(proposal, mechanism),
    )


def warnings(proposal: Proposal | None, mechanism: Mechanism | None) -> tuple[str, ...]:
    """Return what voids or weakens a study's privacy claim."""
    found = []
    if proposal is not None and proposal.seed is not None:
        found.append("NO PRIVACY: the noise came from a public seed. This is a demonstration, not a protected study.")
    if mechanism is not None and not mechanism.private:
        found.append("NO PRIVACY: something in this study is released without noise; epsilon is infinite.")
    if proposal is not None and proposal.plan.kind == "python":
        found.append("The guarantee assumes that the reviewed code is honest: this study ran code written for it.")
    return tuple(found)


def _mechanism(study: StudyAccount) -> Mechanism | None:
    return parse(Mechanism, dict(study.mechanism)) if study.mechanism is not None else None


def _figures(
    mechanism: Mechanism | None, study: StudyAccount, delta: float, who: str
) -> tuple[Epsilon, Epsilon, Epsilon | None, Epsilon | None]:
    """Return the tight figures: spent, worst case, for two hospitals, and when nobody colludes."""
    if mechanism is None or not delta:
        spent = _epsilon(study.spent.epsilon, delta, words.LEDGER, who)
        total = (study.spent.cost + study.promised.cost).epsilon(delta) if delta else math.inf
        return spent, _epsilon(total, delta, words.LEDGER, who), None, None
    done = _rounds_seen(study)
    spent = _epsilon(_tight(mechanism, delta, done), delta, words.PLD, who)
    worst = _epsilon(_tight(mechanism, delta, mechanism.rounds), delta, words.PLD, who)
    both = _tight_at_two(mechanism, delta, done)
    twice = _epsilon(both, delta, words.PLD, who, words.ADJACENCY_TWO)
    if noise_named(mechanism.noise).covers_single_updates:
        return spent, worst, twice, None
    alone = _tight(mechanism.central(), delta, done)
    return (
        spent,
        worst,
        twice,
        _epsilon(alone, delta, words.PLD, "everybody who works with no hospital and no keyholder"),
    )


@lru_cache(maxsize=256)
def _tight(mechanism: Mechanism, delta: float, rounds: int) -> float:
    return mechanism.epsilon(delta, rounds=rounds) if rounds else 0.0


@lru_cache(maxsize=256)
def _tight_at_two(mechanism: Mechanism, delta: float, rounds: int) -> float:
    return epsilon_at_two_hospitals(mechanism, delta, rounds=rounds) if rounds else 0.0


def _rounds_seen(study: StudyAccount) -> int:
    """Rounds 1 to n for n charged ones; where some were left out, all up to the last, which is never less."""
    charged = study.charged_rounds
    return max(charged) if charged else 0


def _epsilon(value: float, delta: float, accountant: str, against: str, adjacency: str = words.ADJACENCY) -> Epsilon:
    return Epsilon(
        value=value if math.isfinite(value) else None,
        delta=delta,
        adjacency=adjacency,
        accountant=accountant,
        against=against,
    )


def _custody(proposal: Proposal) -> str:
    custody = proposal.custody
    who = ", ".join(custody.downloaders) or "nobody"
    return f"{who} may have the model; licence: {custody.licence}; kept {custody.retention_days} days"


def _code(proposal: Proposal) -> str:
    if proposal.plan.kind == "declarative":
        return "Tessera's own reviewed training code, selected by a specification; no foreign code ran."
    return f"Python code written for this study ({len(proposal.plan.code)} files), in the sandbox."


def _environment(proposal: Proposal) -> tuple[Fact, ...]:
    environment = proposal.environment
    packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
    return (
        Fact(label="Tessera's code", value=environment.code_hash),
        Fact(label="Lock file", value=environment.lock_hash),
        Fact(label="Packages", value=packages),
    )


def _people(request: Request) -> tuple[Person, ...]:
    roles = {signature.reviewer: signature.role for signature in request.signatures}
    return tuple(
        Person(name=d.person, role=roles.get(d.person, ""), decision=d.kind, reason=d.reason, at=d.at)
        for d in request.decisions
    )


def _parties(proposal: Proposal) -> tuple[PartyLine, ...]:
    lines = [
        PartyLine(
            role="hospital",
            name=p.name,
            institution=p.institution,
            modalities=tuple(p.modalities),
            fingerprint=fingerprint(p.public_key),
        )
        for p in proposal.participants
    ]
    for role, party in (("orchestrator", proposal.orchestrator), ("keyholder", proposal.keyholder)):
        lines.append(
            PartyLine(
                role=role,
                name=party.name,
                institution=party.institution,
                modalities=(),
                fingerprint=fingerprint(party.public_key),
            )
        )
    return tuple(lines)


def _centring_facts(proposal: Proposal | None) -> tuple[Fact, ...]:
    if proposal is None or not proposal.model.centred:
        return ()
    what = "asked for the inputs' averages in a gradient's place: same bound, noise and cost"
    return (Fact(label="Round 1", value=what),)


def _mechanism_facts(m: Mechanism) -> tuple[Fact, ...]:
    noise = noise_named(m.noise).who_adds(min_sites=m.min_sites, colluders=m.colluders)
    facts = [
        Fact(label="Method", value="DP-SGD: Poisson-sampled batches, gradients clipped per patient, Gaussian noise"),
        Fact(
            label="Clipping norm",
            value=f"{m.max_grad_norm:g} ({'per patient' if m.clipping == 'record' else 'per modality'})",
        ),
        Fact(label="Noise multiplier", value=f"{m.noise_multiplier:g}"),
        Fact(label="Noise", value=noise),
        Fact(label="Sampling rate", value=f"{m.sampling_rate:g}"),
        Fact(label="Steps", value=f"{m.steps_per_round} in each of {m.rounds} rounds"),
    ]
    if m.losses is not None:
        facts.append(
            Fact(
                label="Losses",
                value=f"noised sums every {m.losses.every_rounds} rounds, {_times(m.losses.noise_multiplier)}",
            )
        )
    if m.evaluation is not None:
        facts.append(
            Fact(
                label="Evaluation",
                value=f"noised score histograms every {m.evaluation.every_rounds} rounds, "
                + _times(m.evaluation.noise_multiplier),
            )
        )
    if m.count is not None:
        facts.append(Fact(label="Count", value=f"one noised count by class, {_times(m.count.noise_multiplier)}"))
    return tuple(facts)


def _times(noise_multiplier: float) -> str:
    return f"noise {noise_multiplier:g} times the largest effect of one patient"


def _rounds(study: StudyAccount, who: str, delta: float, records: Records) -> tuple[RoundLine, ...]:
    sent = {e.body["round"]: e.body for e in records.journal if _is(e, "update-encrypted", study.study)}
    failed = {e.body["round"] for e in records.journal if _is(e, "worker-failed", study.study)}
    lines, total = [], ZERO
    for entry in records.ledger:
        if entry.kind != "charge" or entry.body["proposal_hash"] != study.proposal_hash:
            continue
        number, total = entry.body["round"], _plus(total, entry)
        body = sent.get(number)
        outcome = "sent" if body else "charged, nothing sent"
        lines.append(
            RoundLine(
                round=number,
                outcome="sent noise only (training failed)" if number in failed else outcome,
                bytes_sent=int(body["bytes"]) if body else None,
                releases=_named(body["releases"]) if body else (),
                spent=_epsilon(total.epsilon(delta) if delta else math.inf, delta, words.LEDGER, who),
            )
        )
    return tuple(lines)


def _named(releases: Mapping[str, float]) -> tuple[str, ...]:
    """Return the names of released numbers; the bins of score histograms are counted instead of listed."""
    bins = [name for name in releases if name.startswith("score.")]
    names = sorted(name for name in releases if not name.startswith("score."))
    return (*names, *([f"score histograms ({len(bins)} bins)"] if bins else []))


def _is(entry: Entry, kind: str, study: str) -> bool:
    return entry.kind == kind and entry.body.get("study") == study


def _plus(total: Cost, entry: Entry) -> Cost:
    return total + cost_from_json(entry.body["cost"])
