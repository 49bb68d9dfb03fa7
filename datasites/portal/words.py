"""A proposal in plain words, for people who decide and do not program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from datasites.language import mark, tr
from datasites.language.formats import instant
from datasites.language.formats import listed as in_words
from datasites.report.words import certainty
from datasites.review.accounts import Account
from datasites.review.budget_acts import Act
from datasites.review.budgets import CostPreview
from datasites.review.people.acts import PersonAct
from datasites.review.records import Request
from datasites.study.outcome_words import outcome_text
from datasites.study.parties import parse_time
from datasites.study.proposal import Party, Proposal
from datasites.study.released_numbers import expected_names
from datasites.study.text import epsilon_text
from privacy.identity import fingerprint

_TASKS = {
    "I-II": "tells stage I from stage II",
    "early-late": "tells early (I and II) from late (III and IV) stages",
    "ordinal": "orders stages I, II and III or later",
    "I-IV": "orders stages I, II, III and IV",
}
_MODALITIES = {"mrna": mark("gene expression"), "image": mark("slide features"), "clinical": mark("clinical facts")}
STUDY_STATES = {
    "waiting": mark("Approved here. Training begins when all hospitals of the study have approved."),
    "unused": mark("The study ended before any record was read. It cost nothing."),
    "finished": mark("All rounds are done. Nothing more is computed on these patients for this study."),
    "stopped": mark("The approval was taken back or does not hold any more: no further round runs here."),
}
_OTHER_STATES = (mark("unused"), mark("stopped"), mark("rejected"))
_NAMED_ROUNDS = 6
_STATES = {
    "pending": mark("waiting for a decision"),
    "changes-requested": mark("changes asked for"),
    "approved": mark("approved"),
    "denied": mark("denied"),
    "revoked": mark("revoked"),
    "ended": mark("ended"),
}


def summary(proposal: Proposal, site: str, cost: CostPreview | None) -> tuple[str, ...]:
    """Return a few sentences: what is asked, on which data, with which protection, at which cost."""
    own = proposal.participant(site)
    others = [p.institution for p in proposal.participants if p.name != site]
    contributed = listed([_MODALITIES.get(m, m) for m in own.modalities])
    sentences = [
        f"{proposal.orchestrator.name} of {proposal.orchestrator.institution} asks to train a model that "
        f"{_predicts(proposal)}, together with {listed(others)}.",
        f"Here it would read {contributed} of about {own.dataset.patients} patients in {own.dataset.name}, "
        f"version {own.dataset.version}, in up to {proposal.rounds} rounds. No record leaves: each round sends one "
        f"update of the model, with noise, encrypted.",
        f"Only the sum of at least {proposal.min_sites} hospitals is ever decrypted, by {proposal.keyholder.name} of "
        f"{proposal.keyholder.institution}, who never receives a single hospital's update. "
        f"{_helpers_sentence(proposal)}",
        *_first_round(proposal),
        _noise_sentence(proposal),
    ]
    if cost is not None:
        sentences.append(
            f"It costs at most epsilon {epsilon_text(cost.cost)} at delta {cost.delta:g}. {_so_far(cost)} at most "
            f"{epsilon_text(cost.after)} of {epsilon_text(cost.cap)}."
        )
    sentences.append(
        f"The trained model goes to {listed(proposal.custody.downloaders)}, who may keep it for "
        f"{proposal.custody.retention_days} days ({proposal.custody.licence}). Legal basis: {proposal.legal_basis}"
        f"{'' if proposal.legal_basis.endswith('.') else '.'}"
    )
    code = (
        "The code is our own, reviewed and selected by a specification."
        if proposal.plan.kind == "declarative"
        else "The study brings its own Python code: the guarantee assumes that the reviewed code is honest."
    )
    return (*sentences, code)


def _predicts(proposal: Proposal) -> str:
    return _TASKS.get(proposal.task) or f"predicts {outcome_text(proposal.task, proposal.model)}"


def _so_far(cost: CostPreview) -> str:
    before = f"Epsilon {epsilon_text(cost.before)} is spent"
    if cost.reserved:
        return f"{before} so far; when every approved study has run, this one included, it is"
    return f"{before} or promised to other studies so far; after the study it would be"


def _first_round(proposal: Proposal) -> tuple[str, ...]:
    if not proposal.model.centred:
        return ()
    if proposal.model.standardised:
        return (
            "The first three rounds send averages and then mean distances from them instead: of each value the "
            "hospitals exchange, over the patients of those that hold it, under the same noise, encryption and cost. "
            "They stay readable in the model. Without them, nobody knows the scale of the values of "
            f"{' and '.join(proposal.model.standardised)}.",
        )
    return (
        "The first round sends averages instead: of each value the hospitals exchange, over the patients of those that "
        "hold it, under the same noise, encryption and cost. They stay readable in the model.",
    )


def _helpers_sentence(proposal: Proposal) -> str:
    if not proposal.helpers:
        return (
            "No helpers hold part of the pads: orchestrator and keyholder together could read every single update, and "
            "only the keyholder knows whether a sum is right."
        )
    one, two = (f"{helper.name} of {helper.institution}" for helper in proposal.helpers)
    published = (
        "Each round's key and pad sums are published once it is answered, so every hospital recomputes the sum; from "
        "then on orchestrator and both helpers together could read the single updates of that round."
        if proposal.published
        else "Nothing of a round is published: only the keyholder knows whether a sum is right."
    )
    return (
        f"Two helpers hold part of the pads, {one} and {two}: no two parties together read a single update, the "
        f"orchestrator included. {published}"
    )


def _noise_sentence(proposal: Proposal) -> str:
    if not proposal.mechanism.private:
        return "Something leaves without noise: this study gives no privacy at all."
    if proposal.seed is not None:
        return "The noise comes from a public seed, so anybody can remove it: this study gives no privacy."
    return proposal.noise_mode.sentence(proposal.colluders)


def meaning(cost: CostPreview) -> tuple[str, ...]:
    """Return what the cost means for one patient: how sure somebody could be who sees everything that leaves."""
    if not math.isfinite(cost.after):
        return ("There would be no bound on what everything that leaves may tell about a single patient.",)
    return (
        "Take somebody who thinks it as likely as not (50 %) that a certain patient is in this data, and who sees "
        f"everything that leaves. {'Now' if cost.reserved else 'Before this study'} they can become at most "
        f"{certainty(cost.before)} sure, {'when every approved study has run' if cost.reserved else 'after it'} "
        f"at most {certainty(cost.after)}; at the cap it is {certainty(cost.cap)}. This is the worst case, whatever "
        f"else they know; it fails with probability {cost.delta:g} at most.",
    )


def released(proposal: Proposal, site: str) -> tuple[str, ...]:
    """Return which noised numbers leave unencrypted in which rounds, one sentence each without its full stop."""
    mechanism, every = proposal.mechanism, range(1, proposal.rounds + 1)
    kinds = (
        ("loss.", mechanism.losses, mechanism.releases_losses, "sums of the model's losses over the patients"),
        ("score.", mechanism.evaluation, mechanism.releases_evaluation, "counts of validation patients by score"),
    )
    found = []
    for start, release, releases, what in kinds:
        rounds = [number for number in every if release is not None and releases(number)]
        if rounds:
            count = sum(name.startswith(start) for name in expected_names(proposal, site, rounds[0]))
            found.append(f"{count} noised {what}, in {_rounds(rounds)}")
    return tuple(found)


def _rounds(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"round {numbers[0]}"
    if len(numbers) <= _NAMED_ROUNDS:
        return f"rounds {listed([str(n) for n in numbers])}"
    return f"{len(numbers)} rounds from {numbers[0]} to {numbers[-1]}"


def state(name: str) -> str:
    """Return a request's state in words."""
    return tr(_STATES.get(name, name))


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
    return [
        (proposal.orchestrator, "proposes and adds up encrypted updates", "no data"),
        (proposal.keyholder, "holds the keys and decrypts sums only", "no data"),
        *((helper, "holds part of the pads, one list a round", "no data") for helper in proposal.helpers),
        *(
            (p, f"trains on its own {p.cohort} patients", ", ".join(modality(m) for m in p.modalities))
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
        digits = fingerprint(act.target)
        return tr(
            "Confirm the fingerprint {digits} of {name}, {where}", digits=digits, name=act.name, where=act.institution
        )
    if act.kind == "cap":
        delta = tr("delta {delta}", delta=act.delta) if act.delta else tr("the present delta")
        return tr("Move the cap to epsilon {epsilon} at {delta}", epsilon=act.epsilon, delta=delta)
    if act.kind == "close":
        return tr("Close the patients {population} for every study", population=act.target)
    if act.kind == "policy":
        return tr("Put the changed policy.toml in force ({digits})", digits=act.target[:12])
    return tr("Release what is reserved for proposal {digits}", digits=act.target[:12])


def needs(request: Request, person: Account) -> bool:
    """Return whether a request waits for this very person: they may decide, it is open, and they have not signed."""
    signed = {signature.reviewer for signature in request.signatures}
    return person.decides and request.state == "pending" and person.name not in signed
