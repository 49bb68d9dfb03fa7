"""What the report says about one study: from its line in the ledger, its proposal, its decisions, its rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping

from datasites.language import spoken, tr, tr_plural
from datasites.language.formats import moment, significant
from datasites.language.remembered import retold
from datasites.report import words
from datasites.report.facts import Date, Epsilon, Fact, PartyLine, Person, RoundLine, SecondEpsilon, StudyReport
from datasites.report.records import Records
from datasites.review.budgets import StudyState, study_state
from datasites.review.environment import Compared, compare
from datasites.review.records import Request
from datasites.strategy.registry import noise_named
from datasites.study.proposal import Environment, Proposal
from datasites.study.second_figures import second_figures
from datasites.study.signing import parse
from datasites.study.text import self_scaled_text
from datasites.study.thread import SHOWN, Word
from privacy.canonical import canonical_hash
from privacy.dp.mechanism import HistogramRelease, LossRelease, Mechanism
from privacy.identity import fingerprint
from privacy.ledger.chain import Entry
from privacy.ledger.cost_documents import cost_from_json
from privacy.ledger.costs import ZERO, Cost
from privacy.ledger.ledger import Account, StudyAccount


def study_report(
    account: Account,
    study: StudyAccount,
    request: Request | None,
    records: Records,
    environment: Environment | None = None,
) -> StudyReport:
    """Return one study's part of the report.

    Args:
        account: the population it is charged to.
        study: its line in the ledger.
        request: its proposal and decisions; None when they are not here any more.
        records: the entries of ledger and journal.
        environment: the software that runs here now.
    """
    proposal = request.proposal if request else None
    mechanism = proposal.mechanism if proposal else _mechanism(study)
    delta = account.cap.delta if account.cap else 0.0
    seeded = proposal is not None and proposal.seed is not None
    state = study_state(study, request.state if request else None)
    who = words.nobody() if seeded else words.against(mechanism) if mechanism else words.everybody()
    spent, worst, twice, central = _figures(proposal.charged if proposal else mechanism, study, delta, who)
    return StudyReport(
        study=study.study,
        state=words.STATES[state],
        population=account.population,
        proposal_hash=study.proposal_hash,
        plan_hash=proposal.plan_hash if proposal else None,
        purpose=proposal.purpose if proposal else None,
        legal_basis=proposal.legal_basis if proposal else None,
        custody=_custody(proposal) if proposal else None,
        filing=_filing(proposal) if proposal else (),
        thread=_thread(request) if request else (),
        code=_code(proposal) if proposal else tr("The proposal is not in this datasite's records any more."),
        code_hash=canonical_hash(dict(proposal.plan.code)) if proposal else None,
        environment=software(proposal.environment, environment) if proposal else (),
        people=_people(request) if request else (),
        parties=_parties(proposal) if proposal else (),
        mechanism=(*_mechanism_facts(mechanism), *_centring_facts(proposal)) if mechanism else (),
        rounds_planned=study.rounds,
        rounds_charged=len(study.charged_rounds),
        rounds_freed=len(study.freed_rounds),
        spent=spent,
        worst_case=worst,
        spent_in_ledger=words.stated(study.spent.epsilon, delta, words.filter_name(), who),
        two_hospitals=twice,
        without_colluders=central,
        rounds=_rounds(study, who, delta, records),
        exposure=words.exposures(proposal, worst) if proposal else (),
        warnings=warnings(proposal, mechanism),
        watermarks=watermarks(proposal, mechanism),
        foreign_code=proposal is not None and proposal.plan.kind == "python",
        dates=_dates(request, study, records),
        given_back=_given_back(study, state, records),
        readers_of_sums=_readers_of_sums(proposal, account, _rounds_seen(study), delta) if proposal else (),
    )


def _readers_of_sums(proposal: Proposal, account: Account, rounds: int, delta: float) -> tuple[SecondEpsilon, ...]:
    """Return what was spent against those who read sums only, where local noise adds up in them."""
    here = [p.name for p in proposal.participants if (p.dataset.name, p.dataset.version) in account.datasets]
    if not here or not delta or not rounds:
        return ()
    found = second_figures(proposal, here[0], delta, rounds=min(rounds, proposal.mechanism.rounds))
    return tuple(
        SecondEpsilon(label=f.label, epsilon=words.stated(f.epsilon, delta, words.pld(), f.against))
        for f in found
        if f.of_sums
    )


def watermarks(proposal: Proposal | None, mechanism: Mechanism | None) -> tuple[str, ...]:
    """Return what voids a study's privacy claim."""
    found = []
    if proposal is not None and proposal.seed is not None:
        found.append(
            tr("NO PRIVACY: the noise came from a public seed. This is a demonstration, not a protected study.")
        )
    if proposal is not None and proposal.model.self_scaled:
        found.append(self_scaled_text())
    elif mechanism is not None and not mechanism.private:
        found.append(tr("NO PRIVACY: something in this study is released without noise; epsilon is infinite."))
    return tuple(found)


def warnings(proposal: Proposal | None, mechanism: Mechanism | None) -> tuple[str, ...]:
    """Return what voids or weakens a study's privacy claim."""
    found = watermarks(proposal, mechanism)
    if proposal is None or proposal.plan.kind != "python":
        return found
    return (*found, tr("The guarantee assumes that the reviewed code is honest: this study ran code written for it."))


def _dates(request: Request | None, study: StudyAccount, records: Records) -> tuple[Date, ...]:
    charged = [e.at for e in records.ledger if e.kind == "charge" and e.body["proposal_hash"] == study.proposal_hash]
    found = []
    if request is not None:
        found.append((tr("Request received"), request.received))
    found.append((tr("Budget reserved"), study.reserved_at))
    if charged:
        found += [(tr("First round charged"), charged[0]), (tr("Last round charged"), charged[-1])]
    if request is not None:
        found += [(tr("Revoked"), d.at) for d in request.decisions if d.kind == "revoked"]
    found += [(tr("Reservation given back"), entry.at) for entry in _freed(study, records)[-1:]]
    if request is not None:
        found.append((tr("Request expires"), request.proposal.expires))
    return tuple(Date(label=label, at=at) for label, at in found)


def _given_back(study: StudyAccount, state: StudyState, records: Records) -> str:
    """Return what became of the part of the reservation that was not spent, and why."""
    left = study.rounds - len(study.charged_rounds)
    if left <= 0:
        return tr("nothing: every round was charged")
    if study.promised.cost != ZERO:
        if state not in ("stopped", "unused"):
            return ""
        return tr("not yet: the study is over here, and its reservation still counts")
    cost = tr_plural("the cost of {count} round", "the cost of {count} rounds", left)
    reasons = dict.fromkeys(retold(entry.body["reason"]) for entry in _freed(study, records))
    return f"{cost} ({'; '.join(reasons)})" if reasons else cost


def _freed(study: StudyAccount, records: Records) -> list[Entry]:
    return [e for e in records.ledger if e.kind == "free" and e.body["proposal_hash"] == study.proposal_hash]


def _mechanism(study: StudyAccount) -> Mechanism | None:
    return parse(Mechanism, dict(study.mechanism)) if study.mechanism is not None else None


def _figures(
    mechanism: Mechanism | None, study: StudyAccount, delta: float, who: str
) -> tuple[Epsilon, Epsilon, Epsilon | None, Epsilon | None]:
    """Return the tight figures: spent, worst case, for two hospitals, and when nobody colludes."""
    if mechanism is None or not delta:
        spent = words.stated(study.spent.epsilon, delta, words.filter_name(), who)
        total = (study.spent.cost + study.promised.cost).epsilon(delta) if delta else math.inf
        return spent, words.stated(total, delta, words.filter_name(), who), None, None
    from privacy.dp.two_hospitals import epsilon_at_two_hospitals  # only where an epsilon is computed

    done = _rounds_seen(study)
    spent = words.stated(_tight(mechanism, delta, done), delta, words.pld(), who)
    worst = words.stated(_tight(mechanism, delta, mechanism.rounds), delta, words.pld(), who)
    both = epsilon_at_two_hospitals(mechanism, delta, rounds=done) if done else 0.0
    twice = words.stated(both, delta, words.pld(), who, words.adjacency_two())
    if noise_named(mechanism.noise).covers_single_updates:
        return spent, worst, twice, None
    alone = _tight(mechanism.central(), delta, done)
    return (
        spent,
        worst,
        twice,
        words.stated(alone, delta, words.pld(), tr("everybody who works with no hospital and no keyholder")),
    )


def _tight(mechanism: Mechanism, delta: float, rounds: int) -> float:
    return mechanism.epsilon(delta, rounds=rounds) if rounds else 0.0


def _rounds_seen(study: StudyAccount) -> int:
    """Rounds 1 to n for n charged ones; where some were left out, all up to the last, which is never less."""
    charged = study.charged_rounds
    return max(charged) if charged else 0


def _filing(proposal: Proposal) -> tuple[Fact, ...]:
    lines = proposal.filing.lines() if proposal.filing else ()
    return tuple(Fact(label=label, value=text) for label, text in lines)


def _thread(request: Request) -> tuple[Fact, ...]:
    return tuple(
        Fact(label=tr("{who} {did}", who=w.author, did=tr(SHOWN[w.kind])), value=_said(w)) for w in request.words
    )


def _said(word: Word) -> str:
    signed = tr("{person}, {when}", person=word.who, when=moment(word.at))
    return f"“{word.text}” ({signed})" if word.text else signed


def _custody(proposal: Proposal) -> str:
    custody = proposal.custody
    who = ", ".join(custody.downloaders) or tr("nobody")
    return tr_plural(
        "{who} may have the model; licence: {licence}; kept {count} day",
        "{who} may have the model; licence: {licence}; kept {count} days",
        custody.retention_days,
        who=who,
        licence=custody.licence,
    )


def _code(proposal: Proposal) -> str:
    if proposal.plan.kind == "declarative":
        return tr("Tessera's own reviewed training code, selected by a specification; no foreign code ran.")
    return tr_plural(
        "Python code written for this study ({count} file), in the sandbox.",
        "Python code written for this study ({count} files), in the sandbox.",
        len(proposal.plan.code),
    )


def software(environment: Environment, here: Environment | None = None) -> tuple[Fact, ...]:
    """Return the software of a study or of a report: hashes of code and lock file, and the versions of packages.

    Args:
        environment: what was approved, or what writes the report.
        here: what runs now; where it differs from what was approved, that is said.
    """
    differing = compare(environment, here) if here is not None else Compared(refused=())
    differs = [
        Fact(label=label, value="; ".join(spoken(line) for line in lines))
        for label, lines in (
            (tr("Differs now, as the rest of the software may"), differing.allowed),
            (tr("Differs now, so that no round runs"), differing.refused),
        )
        if lines
    ]
    release = (Fact(label=tr("Tessera's release"), value=environment.release),) if environment.release else ()
    packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
    files = (Fact(label=tr("Files of packages"), value=environment.files_hash),) if environment.files_hash else ()
    return (
        *release,
        Fact(label=tr("Tessera's code"), value=environment.code_hash),
        Fact(label=tr("Lock file"), value=environment.lock_hash),
        *files,
        Fact(label=tr("Packages"), value=packages),
        *differs,
    )


def _people(request: Request) -> tuple[Person, ...]:
    roles = {signature.reviewer: signature.role for signature in request.signatures}
    return tuple(
        Person(name=d.who, role=roles.get(d.person, ""), decision=d.kind, reason=d.reason, at=d.at)
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
    others = [("orchestrator", proposal.orchestrator), ("keyholder", proposal.keyholder)]
    for role, party in (*others, *(("helper", helper) for helper in proposal.helpers)):
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
    if proposal is not None and proposal.constants is not None:
        stated = proposal.constants
        what = tr(
            "{source} ({patients} public patients; tables {tables}, constants {constants})",
            source=stated.source.rstrip("."),
            patients=stated.patients,
            tables=stated.tables_hash[:16],
            constants=stated.constants_hash[:16],
        )
        return (Fact(label=tr("Constants of the first model"), value=what),)
    if proposal is None or not proposal.model.centred:
        return ()
    if proposal.model.standardised:
        what = tr("asked for the inputs' averages and spreads in a gradient's place: same bound, noise and cost")
        return (Fact(label=tr("Rounds 1 to 3"), value=what),)
    what = tr("asked for the inputs' averages in a gradient's place: same bound, noise and cost")
    return (Fact(label=tr("Round 1"), value=what),)


def _mechanism_facts(m: Mechanism) -> tuple[Fact, ...]:
    noise = noise_named(m.noise).who_adds(min_sites=m.min_sites, colluders=m.colluders)
    clipping = tr("per patient") if m.clipping == "record" else tr("per modality")
    method = tr("DP-SGD: Poisson-sampled batches, gradients clipped per patient, Gaussian noise")
    steps = tr("{steps} in each of {rounds} rounds", steps=m.steps_per_round, rounds=m.rounds)
    facts = [
        (tr("Method"), method),
        (tr("Clipping norm"), f"{significant(m.max_grad_norm, 6)} ({clipping})"),
        (tr("Noise multiplier"), significant(m.noise_multiplier, 6)),
        (tr("Noise"), noise),
        (tr("Sampling rate"), significant(m.sampling_rate, 6)),
        (tr("Steps"), steps),
    ]
    if m.losses is not None:
        losses = tr("noised sums every {rounds} rounds, {noise}", **_every(m.losses))
        facts.append((tr("Losses"), losses))
    if m.evaluation is not None:
        histograms = tr("noised score histograms every {rounds} rounds, {noise}", **_every(m.evaluation))
        facts.append((tr("Evaluation"), histograms))
    if m.count is not None:
        count = tr("one noised count by class, {noise}", noise=_times(m.count.noise_multiplier))
        facts.append((tr("Count"), count))
    return tuple(Fact(label=label, value=value) for label, value in facts)


def _every(release: LossRelease | HistogramRelease) -> dict[str, object]:
    return {"rounds": release.every_rounds, "noise": _times(release.noise_multiplier)}


def _times(noise_multiplier: float) -> str:
    return tr("noise {times} times the largest effect of one patient", times=significant(noise_multiplier, 6))


def _rounds(study: StudyAccount, who: str, delta: float, records: Records) -> tuple[RoundLine, ...]:
    sent = {e.body["round"]: e.body for e in records.journal if _is(e, "update-encrypted", study.study)}
    failed = {e.body["round"] for e in records.journal if _is(e, "worker-failed", study.study)}
    lines, total = [], ZERO
    for entry in records.ledger:
        if entry.kind != "charge" or entry.body["proposal_hash"] != study.proposal_hash:
            continue
        number, total = entry.body["round"], _plus(total, entry)
        body = sent.get(number)
        outcome = tr("sent") if body else tr("charged, nothing sent")
        lines.append(
            RoundLine(
                round=number,
                outcome=tr("sent noise only (training failed)") if number in failed else outcome,
                bytes_sent=int(body["bytes"]) if body else None,
                releases=_named(body["releases"]) if body else (),
                spent=words.stated(total.epsilon(delta) if delta else math.inf, delta, words.filter_name(), who),
                at=entry.at,
            )
        )
    return tuple(lines)


def _named(releases: Mapping[str, float]) -> tuple[str, ...]:
    """Return the names of released numbers; the bins of score histograms are counted instead of listed."""
    bins = [name for name in releases if name.startswith("score.")]
    names = sorted(name for name in releases if not name.startswith("score."))
    return (*names, *([tr("score histograms ({count} bins)", count=len(bins))] if bins else []))


def _is(entry: Entry, kind: str, study: str) -> bool:
    return entry.kind == kind and entry.body.get("study") == study


def _plus(total: Cost, entry: Entry) -> Cost:
    return total + cost_from_json(entry.body["cost"])
