"""A proposal in plain words, for people who decide and do not program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from datasites.language import mark, spoken, tr, tr_plural
from datasites.language.formats import instant, whole
from datasites.language.formats import listed as in_words
from datasites.portal.shown.asking import asker_words, code_words
from datasites.portal.shown.constants_words import constants_sentences
from datasites.report.words import certainty
from datasites.review.accounts import Account
from datasites.review.budget_acts import Act
from datasites.review.budgets import CostPreview
from datasites.review.people.acts import PersonAct
from datasites.review.records import Request, word
from datasites.study.outcome_words import outcome_text
from datasites.study.parties import parse_time
from datasites.study.proposal import Party, Proposal
from datasites.study.recomputed.released_numbers import expected_names
from datasites.study.text import delta_text, epsilon_text, self_scaled_text
from privacy.identity import fingerprint

_TASKS = {
    "I-II": mark(
        "{who} of {institution} asks to train a model that tells stage I from stage II, together with {others}."
    ),
    "early-late": mark(
        "{who} of {institution} asks to train a model that tells early (I and II) from late (III and IV) stages, "
        "together with {others}."
    ),
    "ordinal": mark(
        "{who} of {institution} asks to train a model that orders stages I, II and III or later, together with "
        "{others}."
    ),
    "I-IV": mark(
        "{who} of {institution} asks to train a model that orders stages I, II, III and IV, together with {others}."
    ),
}
_ANOTHER_TASK = mark("{who} of {institution} asks to train a model that predicts {task}, together with {others}.")
_MODALITIES = {"mrna": mark("gene expression"), "image": mark("slide features"), "clinical": mark("clinical facts")}
STUDY_STATES = {
    "waiting": mark("Approved here. Training begins when all hospitals of the study have approved."),
    "unused": mark("The study ended before any record was read. It cost nothing."),
    "finished": mark("All rounds are done. Nothing more is computed on these patients for this study."),
    "stopped": mark("The approval was taken back or does not hold any more: no further round runs here."),
}
_OTHER_STATES = (mark("unused"), mark("stopped"), mark("rejected"))
_NAMED_ROUNDS = 6


def summary(proposal: Proposal, site: str, cost: CostPreview | None) -> tuple[str, ...]:
    """Return a few sentences: what is asked, on which data, with which protection, at which cost."""
    own = proposal.participant(site)
    sentences = [
        _asked(proposal, site),
        tr_plural(
            "Here it would read {what} of about {patients} patients in {dataset}, version {version}, in one round.",
            "Here it would read {what} of about {patients} patients in {dataset}, version {version}, in up to {count} "
            "rounds.",
            proposal.rounds,
            what=listed([modality(m) for m in own.modalities]),
            patients=whole(own.dataset.patients),
            dataset=own.dataset.name,
            version=own.dataset.version,
        )
        + " "
        + (
            tr("No record leaves: the round sends counts, with noise, encrypted.")
            if proposal.model.counting is not None
            else tr("No record leaves: each round sends one update of the model, with noise, encrypted.")
        ),
        tr(
            "Only the sum of at least {least} hospitals is ever decrypted, by {who} of {institution}, who never "
            "receives a single hospital's update.",
            least=proposal.min_sites,
            who=proposal.keyholder.name,
            institution=proposal.keyholder.institution,
        ),
        *asker_words(proposal),
        *_helpers(proposal),
        *_first_round(proposal),
        *_patience(proposal),
        _noise_sentence(proposal),
    ]
    if cost is not None:
        sentences.append(_cost_sentence(cost))
    basis = proposal.legal_basis.rstrip(".")
    sentences += [
        _goes_to(proposal),
        tr("Legal basis: {basis}.", basis=basis),
        *code_words(proposal),
    ]
    return tuple(sentences)


def _asked(proposal: Proposal, site: str) -> str:
    """Return who asks for what, together with whom."""
    others = listed([p.institution for p in proposal.participants if p.name != site])
    asker = proposal.scientist or proposal.orchestrator
    who, institution = asker.name, asker.institution
    if proposal.model.counting is None:
        task = outcome_text(proposal.task, proposal.model.predicts, proposal.model.classes)
        asked = _TASKS.get(proposal.task, _ANOTHER_TASK)
        return tr(asked, task=task, who=who, institution=institution, others=others)
    what = "; ".join(question.title for question in proposal.model.counting.questions)
    return (
        tr(
            "{who} of {institution} asks for statistics, together with {others}: {what}. No model is trained.",
            who=who,
            institution=institution,
            others=others,
            what=what,
        )
        + " "
        + tr_plural(
            "One table is counted, and a patient counts in it once at most.",
            "{count} tables are counted, and a patient counts once at most in each.",
            len(proposal.model.counting.counts),
        )
    )


def _goes_to(proposal: Proposal) -> str:
    """Return who gets what comes out, and for how long."""
    custody = proposal.custody
    who, licence = listed(custody.downloaders), custody.licence
    if proposal.model.counting is not None:
        return tr_plural(
            "The noised statistics go to {who}, who may keep them for one day ({licence}).",
            "The noised statistics go to {who}, who may keep them for {count} days ({licence}).",
            custody.retention_days,
            who=who,
            licence=licence,
        )
    return tr_plural(
        "The trained model goes to {who}, who may keep it for one day ({licence}).",
        "The trained model goes to {who}, who may keep it for {count} days ({licence}).",
        custody.retention_days,
        who=who,
        licence=licence,
    )


def _cost_sentence(cost: CostPreview) -> str:
    values = {"before": epsilon_text(cost.before), "after": epsilon_text(cost.after), "cap": epsilon_text(cost.cap)}
    charge = tr(
        "It costs at most epsilon {cost} at delta {delta}.", cost=epsilon_text(cost.cost), delta=delta_text(cost.delta)
    )
    if cost.reserved:
        return f"{charge} " + tr(
            "Epsilon {before} is spent so far; when every approved study has run, this one included, it is at most "
            "{after} of {cap}.",
            **values,
        )
    return f"{charge} " + tr(
        "Epsilon {before} is spent or promised to other studies so far; after the study it would be at most {after} of "
        "{cap}.",
        **values,
    )


def _first_round(proposal: Proposal) -> tuple[str, ...]:
    if proposal.constants is not None:
        return constants_sentences(proposal.constants)
    if not proposal.model.centred:
        return ()
    if proposal.model.standardised:
        return (
            tr(
                "The first three rounds send averages and then mean distances from them instead: of each value the "
                "hospitals exchange, over the patients of those that hold it, under the same noise, encryption and "
                "cost. They stay readable in the model. Without them, nobody knows the scale of the values of {what}.",
                what=listed([modality(m) for m in proposal.model.standardised]),
            ),
        )
    return (
        tr(
            "The first round sends averages instead: of each value the hospitals exchange, over the patients of those "
            "that hold it, under the same noise, encryption and cost. They stay readable in the model."
        ),
    )


def _patience(proposal: Proposal) -> tuple[str, ...]:
    """Return whose absence the rounds put up with; nothing where they wait for everybody."""
    waits, found = proposal.waits, list[str]()
    if waits.starts_with:
        text = tr(
            "The study begins once {count} of {all} hospitals have approved; the others join with their approval, and "
            "each is charged from the first round that it takes part in.",
            count=waits.starts_with,
            all=len(proposal.participants),
        )
        found.append(text)
    if waits.grace_seconds is not None:
        text = tr(
            "A round closes {seconds} s after enough hospitals have come. A hospital that comes later is charged for "
            "the round, and its update is not used.",
            seconds=waits.grace_seconds,
        )
        found.append(text)
    if waits.pass_over_after:
        text = tr(
            "A hospital that missed {count} rounds in a row is passed over, and not charged, until it asks for work "
            "again.",
            count=waits.pass_over_after,
        )
        found.append(text)
    return tuple(found)


def _helpers(proposal: Proposal) -> tuple[str, ...]:
    if not proposal.helpers:
        return (
            tr(
                "No helpers hold part of the pads: orchestrator and keyholder together could read every single update, "
                "and only the keyholder knows whether a sum is right."
            ),
        )
    one, two = (
        tr("{name} of {institution}", name=helper.name, institution=helper.institution) for helper in proposal.helpers
    )
    return (
        tr(
            "Two helpers hold part of the pads, {one} and {two}: no two parties together read a single update, the "
            "orchestrator included.",
            one=one,
            two=two,
        ),
        tr(
            "Each round's key and pad sums are published once it is answered, so every hospital recomputes the sum; "
            "from then on orchestrator and both helpers together could read the single updates of that round."
        )
        if proposal.published
        else tr("Nothing of a round is published: only the keyholder knows whether a sum is right."),
    )


def _noise_sentence(proposal: Proposal) -> str:
    if not proposal.mechanism.private:
        return tr("Something leaves without noise: this study gives no privacy at all.")
    if proposal.model.self_scaled:
        return self_scaled_text()
    if proposal.seed is not None:
        return tr("The noise comes from a public seed, so anybody can remove it: this study gives no privacy.")
    return proposal.noise_mode.sentence(proposal.colluders)


def meaning(cost: CostPreview) -> tuple[str, ...]:
    """Return what the cost means for one patient: how sure somebody could be who sees everything that leaves."""
    if not math.isfinite(cost.after):
        return (tr("There would be no bound on what everything that leaves may tell about a single patient."),)
    sure = {"before": certainty(cost.before), "after": certainty(cost.after), "cap": certainty(cost.cap)}
    return (
        tr(
            "Take somebody who thinks it as likely as not (50 %) that a certain patient is in this data, and who sees "
            "everything that leaves."
        ),
        tr(
            "Now they can become at most {before} sure, when every approved study has run at most {after}; at the cap "
            "it is {cap}.",
            **sure,
        )
        if cost.reserved
        else tr(
            "Before this study they can become at most {before} sure, after it at most {after}; at the cap it is "
            "{cap}.",
            **sure,
        ),
        tr(
            "This is the worst case, whatever else they know; it fails with probability {delta} at most.",
            delta=delta_text(cost.delta),
        ),
    )


def released(proposal: Proposal, site: str) -> tuple[str, ...]:
    """Return which noised numbers leave unencrypted in which rounds, one sentence each without its full stop."""
    mechanism, every = proposal.mechanism, range(1, proposal.rounds + 1)
    kinds = (
        (
            "loss.",
            mechanism.losses,
            mechanism.releases_losses,
            mark("{count} noised sum of the model's losses over the patients, in {rounds}"),
            mark("{count} noised sums of the model's losses over the patients, in {rounds}"),
        ),
        (
            "score.",
            mechanism.evaluation,
            mechanism.releases_evaluation,
            mark("{count} noised count of validation patients by score, in {rounds}"),
            mark("{count} noised counts of validation patients by score, in {rounds}"),
        ),
    )
    found = []
    for start, release, releases, one, many in kinds:
        rounds = [number for number in every if release is not None and releases(number)]
        if rounds:
            count = sum(name.startswith(start) for name in expected_names(proposal, site, rounds[0]))
            found.append(tr(one if count == 1 else many, count=whole(count), rounds=_rounds(rounds)))
    if mechanism.evaluation is not None and proposal.evaluated_by_pattern:
        found.append(tr("these counts tell apart which modalities the patients have"))
    if mechanism.evaluation is not None and proposal.participant(site).evaluated_alone:
        found.append(tr("figures of the records of this hospital alone are made of them and shown with its name"))
    return tuple(found)


def _rounds(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return tr("round {number}", number=numbers[0])
    if len(numbers) <= _NAMED_ROUNDS:
        return tr("rounds {numbers}", numbers=listed([str(n) for n in numbers]))
    return tr("{count} rounds from {first} to {last}", count=len(numbers), first=numbers[0], last=numbers[-1])


def state(name: str) -> str:
    """Return a request's state in words."""
    return spoken(word(name))


def modality(name: str) -> str:
    """Return a modality in words."""
    return tr(_MODALITIES.get(name, name))


def listed(names: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return in_words(names) or tr("nobody")


def when(text: str) -> str:
    """Return an ISO time as people read it, in UTC."""
    return instant(parse_time(text)) if text else ""


def parts(proposal: Proposal) -> list[tuple[Party, str, str]]:
    """Return everybody in a study with the part they play and what they bring."""
    nothing = tr("no data")
    return [
        (proposal.orchestrator, tr("proposes and adds up encrypted updates"), nothing),
        (proposal.keyholder, tr("holds the keys and decrypts sums only"), nothing),
        *((helper, tr("holds part of the pads, one list a round"), nothing) for helper in proposal.helpers),
        *(
            (
                p,
                tr("trains on its own {cohort} patients", cohort=p.cohort),
                listed([modality(m) for m in p.modalities]),
            )
            for p in proposal.participants
        ),
    ]


def act_title(act: Act | PersonAct, roles: Mapping[str, str]) -> str:
    """Return an act that waits for more people, in one line.

    Args:
        act: on a budget, an account or a key.
        roles: what the roles are called.
    """
    if isinstance(act, PersonAct):
        if act.kind == "invite":
            return tr("Invite a {role}", role=tr(roles.get(act.target, act.target)))
        if act.kind == "close-account":
            return tr("Close the account {name}", name=act.target)
        if act.kind == "roster":
            return tr("Put the consortium's changed roster in force: {change}", change=act.name)
        digits = fingerprint(act.target)
        return tr(
            "Confirm the fingerprint {digits} of {name}, {where}", digits=digits, name=act.name, where=act.institution
        )
    if act.kind == "cap":
        delta = tr("delta {delta}", delta=act.delta) if act.delta else tr("the present delta")
        return tr("Move the cap to epsilon {epsilon} at {delta}", epsilon=act.epsilon, delta=delta)
    if act.kind == "close":
        return tr("Close the patients {population} for every study", population=act.target)
    if act.kind == "note":
        return tr("Note that {name} was given out of {population} by hand", name=act.name, population=act.target)
    if act.kind == "continue":
        return tr("Let proposal {digits} go on after a failed round", digits=act.target[:12])
    if act.kind == "policy":
        return tr("Put the changed policy.toml in force ({digits})", digits=act.target[:12])
    return tr("Release what is reserved for proposal {digits}", digits=act.target[:12])


def needs(request: Request, person: Account) -> bool:
    """Return whether a request waits for this very person: they may decide, it is open, and they have not signed."""
    signed = {signature.reviewer for signature in request.signatures}
    return person.decides and request.state == "pending" and person.name not in signed
