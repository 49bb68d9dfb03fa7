"""The owner's policy: what may be asked of this datasite at all, read from a TOML file.

The policy is checked when a proposal arrives, when people decide on it, and again before every round. A proposal
that breaks it can be read and denied, but never approved.

    >>> policy = Policy.parse('[budget]\\nepsilon_cap = 8.0\\ndelta = 1e-5')
    >>> policy.noise.modes
    ('local', 'shared')
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from datasites.language.shapes import expected
from datasites.node.files import text_of
from datasites.strategy.registry import noise_named
from datasites.study.proposal import Proposal
from privacy.canonical import canonical_hash
from privacy.errors import InvalidInput
from privacy.sentences import Sentence, joined, say, say_plural, sentence_of

Layer = Literal[
    "rlimits", "no-new-privileges", "not-dumpable", "capabilities", "namespaces", "disk", "landlock", "seccomp"
]
_PublicKey = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BudgetPolicy(_Section):
    """The privacy cap of every patient population here, in (epsilon, delta), add-or-remove adjacency.

    ``epsilon_cap = inf`` is no cap at all, and needs ``noise.allow_infinite_epsilon`` beside it. ``required_people``
    is how many different people must ask before a reservation is released, the cap moves or a population is closed.
    """

    epsilon_cap: float = Field(default=10.0, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    required_people: int = Field(default=1, ge=1, le=3)


def _known_noise(name: str) -> str:
    return noise_named(name).name


class NoisePolicy(_Section):
    """Which noise is accepted: either, since a budget charges shared noise against the orchestrator and colluders.

    A public seed or no noise at all gives no privacy and is off by default.
    """

    modes: tuple[Annotated[str, AfterValidator(_known_noise)], ...] = ("local", "shared")
    minimum_multiplier: float = Field(default=0.3, ge=0, allow_inf_nan=False)
    allow_public_seed: bool = False
    allow_infinite_epsilon: bool = False


class StudyPolicy(_Section):
    """Bounds on a study. Empty ``plan_authors`` accepts every confirmed orchestrator; ``allow_own_evaluation`` lets a
    study show how good its model is on this hospital's records alone."""

    maximum_rounds: int = Field(default=200, ge=1)
    minimum_sites: int = Field(default=3, ge=3)
    minimum_patients: int = Field(default=20, ge=1)
    plan_authors: tuple[str, ...] = ()
    allow_free_python: bool = False
    allow_own_evaluation: bool = False


class ReviewPolicy(_Section):
    """How many people must sign, in which roles, and for how long an approval holds.

    ``auto_approve_plain_jobs`` runs plain PySyft jobs, sandboxed and on mock data, without a person's look at them.
    ``auto_approve_analytics_epsilon`` above 0 approves counting studies that cost at most so much, without a person.
    """

    required_reviewers: int = Field(default=1, ge=1, le=9)
    free_python_reviewers: int = Field(default=2, ge=2, le=9)
    required_roles: tuple[Literal["steward", "privacy-officer"], ...] = ()
    approval_days: int = Field(default=90, ge=1, le=3650)
    auto_approve_reruns: bool = False
    auto_approve_plain_jobs: bool = False
    auto_approve_analytics_epsilon: float = Field(default=0.0, ge=0, le=10, allow_inf_nan=False)


class PeoplePolicy(_Section):
    """What is asked of the people here.

    ``security_key``: ``if-registered`` asks whoever has one for it whenever they sign; ``required`` lets nobody decide
    without one. ``required_people`` is how many people must want an invitation, the closing of an account or a
    confirmed fingerprint. A session ends after ``idle_minutes`` without use.
    """

    security_key: Literal["if-registered", "required"] = "if-registered"
    required_people: int = Field(default=1, ge=1, le=3)
    idle_minutes: float = Field(default=30.0, ge=1, le=480, allow_inf_nan=False)


class SandboxPolicy(_Section):
    """Limits of the worker and the layers that must be active before it may read a record.

    ``memory_bytes`` counts what the job allocates on top of the preloaded libraries. ``output_bytes`` bounds one file,
    and all that a job writes together. An update leaves at a whole
    multiple of ``round_seconds`` after its work began: a worker that crashes early looks like one that trained. With
    ``round_seconds`` above ``time_seconds`` (plus some for the encryption) a hanging one does as well.
    ``jobs_may_measure`` runs plain PySyft jobs also where the layer ``disk`` is missing: such a job can see names,
    sizes and times of files in this role's home, so how large the private part is, and what it prints leaves.
    ``device`` other than ``cpu`` is refused, with the reason.
    """

    time_seconds: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    round_seconds: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    memory_bytes: int = Field(default=4 * 2**30, ge=2**26)
    output_bytes: int = Field(default=2**28, ge=2**16)
    minimum_layers: tuple[Layer, ...] = ("rlimits", "no-new-privileges", "landlock", "seccomp")
    jobs_may_measure: bool = False
    device: str = "cpu"

    @field_validator("device")
    @classmethod
    def _on_processors(cls, name: str) -> str:
        if name == "cpu":
            return name
        raise ValueError(
            say("rounds on private records run on processors, the only kernels tried so far; expected device = cpu")
        )


class WorkersPolicy(_Section):
    """How many studies train here at once: ``studies`` at most, at one core and ``sandbox.memory_bytes`` each.

    ``cores`` and ``memory_bytes`` 0 are what the machine, or the container, gives. Whatever they are, one study trains.
    """

    studies: int = Field(default=2, ge=1, le=64)
    cores: int = Field(default=0, ge=0, le=4096)
    memory_bytes: int = Field(default=0, ge=0)

    def at_once(self, each_bytes: int, *, cores: int, memory_bytes: int) -> int:
        """Return how many studies may train at once.

        Args:
            each_bytes: what each worker may take.
            cores, memory_bytes: what this process may use (:func:`datasites.worker.machine.allowance`).
        """
        return max(1, min(self.studies, self.cores or cores, (self.memory_bytes or memory_bytes) // each_bytes))


class Partner(_Section):
    """A party whose key the owner has checked out of band; with an institution the key counts as that one's only."""

    name: str
    public_key: _PublicKey
    institution: str = ""


class Policy(_Section):
    """Everything the owner decided beforehand; frozen, and hashed into the journal when it is loaded."""

    budget: BudgetPolicy = BudgetPolicy()
    noise: NoisePolicy = NoisePolicy()
    study: StudyPolicy = StudyPolicy()
    review: ReviewPolicy = ReviewPolicy()
    people: PeoplePolicy = PeoplePolicy()
    sandbox: SandboxPolicy = SandboxPolicy()
    workers: WorkersPolicy = WorkersPolicy()
    partners: tuple[Partner, ...] = ()
    accept_only_partners: bool = False

    @model_validator(mode="after")
    def _no_cap_needs_a_second_word(self) -> Policy:
        if math.isinf(self.budget.epsilon_cap) and not self.noise.allow_infinite_epsilon:
            raise ValueError(
                say("epsilon_cap = inf is no cap: set noise.allow_infinite_epsilon = true as well, or a number")
            )
        return self

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read a policy from TOML text; what is left out has the cautious default.

        Raises:
            InvalidInput: not TOML, an unknown key, or a value out of range; the message names the first one.
        """
        try:
            return cls.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise InvalidInput(say("the policy is not valid TOML: {error}", error=error)) from error
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part)[:40] for part in first["loc"]) or say("the policy as a whole")
            raise InvalidInput(say("the policy is not valid: {why}", why=expected(first, where))) from error

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read the policy file at ``path``.

        Raises:
            InvalidInput: the file is missing or not a valid policy.
        """
        return cls.parse(text_of(path))

    @property
    def policy_hash(self) -> str:
        """SHA-256 of the canonical policy; what came later counts only where it is said, so that old hashes hold."""
        usual = {"people": PeoplePolicy(), "workers": WorkersPolicy()}
        unsaid = {section for section, rules in usual.items() if getattr(self, section) == rules}
        value = self.model_dump(mode="json", exclude=unsaid)
        del value["sandbox"]["device"]  # there is one
        added = {"auto_approve_analytics_epsilon", "jobs_may_measure", "allow_own_evaluation"}
        for section in ("review", "sandbox", "study"):
            value[section] = {name: rule for name, rule in value[section].items() if rule or name not in added}
        if math.isinf(self.budget.epsilon_cap):
            value["budget"]["epsilon_cap"] = "inf"  # canonical JSON has no such number
        return canonical_hash(value)

    def required_reviewers(self, proposal: Proposal) -> int:
        """Return how many different people must sign ``proposal``; free Python needs at least two."""
        required = max(self.review.required_reviewers, len(set(self.review.required_roles)))
        return required if proposal.plan.kind == "declarative" else max(required, self.review.free_python_reviewers)


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One rule that a proposal breaks: the policy's key and a sentence for people."""

    rule: str
    message: str


def check(policy: Policy, proposal: Proposal, site: str, *, epsilon: float | None = None) -> list[Violation]:
    """Return every rule of ``policy`` that ``proposal`` breaks at ``site``; an empty list means none.

    Args:
        policy: the owner's policy.
        proposal: what is asked.
        site: this datasite's name, which must be among the participants.
        epsilon: what the population would have spent after the study at its worst, at the policy's delta, where it
            is known (see the ledger's preview).

    Raises:
        InvalidInput: the site does not take part.
    """
    found = [
        *_charge_violations(proposal),
        *_noise_violations(policy, proposal),
        *_study_violations(policy, proposal, site),
        *_partner_violations(policy, proposal, site),
    ]
    if epsilon is not None and epsilon > policy.budget.epsilon_cap * (1 + 1e-9):
        found.append(
            Violation(
                rule="budget.epsilon_cap",
                message=say(
                    "epsilon would reach {epsilon:.3g} at delta {delta:g}, the cap is {epsilon_cap:g}",
                    epsilon=epsilon,
                    delta=policy.budget.delta,
                    epsilon_cap=policy.budget.epsilon_cap,
                ),
            )
        )
    if proposal.model.self_scaled and not policy.noise.allow_infinite_epsilon:
        found.append(
            Violation(
                rule="noise.allow_infinite_epsilon",
                message=say(
                    "{modalities}: each hospital scales its values by statistics of its own patients, so no epsilon "
                    "can be stated",
                    modalities=", ".join(proposal.model.self_scaled),
                ),
            )
        )
    unprotected = not proposal.mechanism.private or (epsilon is not None and not math.isfinite(epsilon))
    if unprotected and not proposal.model.self_scaled and not policy.noise.allow_infinite_epsilon:
        found.append(
            Violation(
                rule="noise.allow_infinite_epsilon",
                message=say("something leaves without noise: epsilon is infinite, which is no privacy"),
            )
        )
    return found


def _charge_violations(proposal: Proposal) -> list[Violation]:
    """Return whether the study would do more than the mechanism that is charged; no policy can allow that."""
    try:
        proposal.mechanism.check_study(
            noise=proposal.noise_mode.accounted_as,
            rounds=proposal.rounds,
            min_sites=proposal.min_sites,
            colluders=proposal.colluders,
            sites=len(proposal.participants),
        )
    except InvalidInput as error:
        return [Violation(rule="what runs is what is charged", message=sentence_of(error))]
    return []


def _noise_violations(policy: Policy, proposal: Proposal) -> list[Violation]:
    found = []
    if proposal.noise not in policy.noise.modes:
        allowed = joined((Sentence(mode) for mode in policy.noise.modes), ", ") if policy.noise.modes else say("none")
        found.append(
            Violation(
                rule="noise.modes",
                message=say(
                    "{noise} noise is asked for, {allowed} is accepted here",
                    noise=Sentence(proposal.noise),
                    allowed=allowed,
                ),
            )
        )
    multiplier = proposal.mechanism.noise_multiplier
    if 0 < multiplier < policy.noise.minimum_multiplier:
        found.append(
            Violation(
                rule="noise.minimum_multiplier",
                message=say(
                    "the noise multiplier is {multiplier:g}, at least {minimum_multiplier:g} is wanted",
                    multiplier=multiplier,
                    minimum_multiplier=policy.noise.minimum_multiplier,
                ),
            )
        )
    if proposal.seed is not None and not policy.noise.allow_public_seed:
        found.append(
            Violation(
                rule="noise.allow_public_seed",
                message=say("the noise comes from a public seed: anybody can take it off again, which is no privacy"),
            )
        )
    return found


def _study_violations(policy: Policy, proposal: Proposal, site: str) -> list[Violation]:
    rules = policy.study
    patients = proposal.participant(site).dataset.patients
    author = proposal.orchestrator
    broken = {
        "study.maximum_rounds": proposal.rounds > rules.maximum_rounds
        and say_plural(
            "{count} round is asked for, {most} are accepted",
            "{count} rounds are asked for, {most} are accepted",
            proposal.rounds,
            most=rules.maximum_rounds,
        ),
        "study.minimum_sites": proposal.min_sites < rules.minimum_sites
        and say_plural(
            "sums over {count} site are asked for, at least {least} are wanted",
            "sums over {count} sites are asked for, at least {least} are wanted",
            proposal.min_sites,
            least=rules.minimum_sites,
        ),
        "study.minimum_patients": patients < rules.minimum_patients
        and say_plural(
            "the dataset has about {count} patient, at least {least} are wanted",
            "the dataset has about {count} patients, at least {least} are wanted",
            patients,
            least=rules.minimum_patients,
        ),
        "study.allow_free_python": proposal.plan.kind == "python"
        and not rules.allow_free_python
        and say("the plan brings its own Python code, which is not accepted here"),
        "study.allow_own_evaluation": proposal.participant(site).evaluated_alone
        and not rules.allow_own_evaluation
        and say("it shows figures of this hospital's records alone, which is not accepted here"),
        "study.plan_authors": bool(rules.plan_authors)
        and author.name not in rules.plan_authors
        and author.public_key not in rules.plan_authors
        and say("{author} is not among the accepted plan authors", author=author.name),
    }
    return [Violation(rule=rule, message=message) for rule, message in broken.items() if message]


def _partner_violations(policy: Policy, proposal: Proposal, site: str) -> list[Violation]:
    if not policy.accept_only_partners:
        return []
    hospitals = [p for p in proposal.participants if p.name != site]
    others = (*hospitals, proposal.orchestrator, proposal.keyholder, *proposal.helpers, *proposal.asker)
    known = {partner.public_key for partner in policy.partners}
    return [
        Violation(
            rule="accept_only_partners",
            message=say("{name} ({institution}) is not a partner", name=party.name, institution=party.institution),
        )
        for party in others
        if party.public_key not in known
    ]
