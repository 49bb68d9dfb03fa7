"""The rules of a policy in words, each value as people read it, and which settings take protection away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from datasites.language import mark, tr, tr_plural
from datasites.language.formats import decimal, listed, significant
from datasites.review.policy import Policy
from datasites.study.text import delta_text, epsilon_text

_SECTIONS = {
    "partners": mark("Partners"),
    "budget": mark("Privacy budget"),
    "noise": mark("Noise"),
    "study": mark("Studies"),
    "review": mark("Review"),
    "sandbox": mark("Sandbox"),
    "workers": mark("Studies at once"),
    "people": mark("People"),
}
RULES = {
    "accept_only_partners": mark("Accept only partners"),
    "partners": mark("Partners"),
    "budget.epsilon_cap": mark("Cap of epsilon"),
    "budget.delta": mark("Delta"),
    "budget.required_people": mark("People needed to change a budget"),
    "noise.modes": mark("Accepted noise"),
    "noise.minimum_multiplier": mark("Least noise multiplier"),
    "noise.allow_public_seed": mark("Allow noise from a public seed"),
    "noise.allow_infinite_epsilon": mark("Allow studies without privacy (infinite epsilon)"),
    "study.maximum_rounds": mark("Most rounds"),
    "study.minimum_sites": mark("Fewest hospitals in a sum"),
    "study.minimum_patients": mark("Fewest patients of a dataset"),
    "study.plan_authors": mark("Accepted authors of plans"),
    "study.allow_free_python": mark("Allow plans with their own Python code"),
    "study.allow_own_evaluation": mark("Allow figures of this hospital's records alone"),
    "review.required_reviewers": mark("Signatures needed"),
    "review.free_python_reviewers": mark("Signatures needed for a plan's own code"),
    "review.required_roles": mark("Roles that must sign"),
    "review.approval_days": mark("An approval holds for"),
    "review.auto_approve_reruns": mark("Approve repeated plans automatically"),
    "review.auto_approve_analytics_epsilon": mark("Approve statistics up to this epsilon automatically"),
    "review.auto_approve_plain_jobs": mark("Run plain jobs without a person's look"),
    "sandbox.time_seconds": mark("Longest run"),
    "sandbox.round_seconds": mark("An update leaves at a multiple of"),
    "sandbox.memory_bytes": mark("Most memory"),
    "sandbox.output_bytes": mark("Most output"),
    "sandbox.minimum_layers": mark("Layers that must be active"),
    "sandbox.device": mark("Rounds run on"),
    "sandbox.jobs_may_measure": mark("Run plain jobs that can see the sizes of files"),
    "workers.studies": mark("Studies that train at once"),
    "workers.cores": mark("Cores for training (0: all)"),
    "workers.memory_bytes": mark("Memory for training (0: all)"),
    "people.security_key": mark("Security keys"),
    "people.required_people": mark("People needed for accounts and keys"),
    "people.idle_minutes": mark("A session ends without use after"),
}
_WEAKER = {
    "noise.allow_public_seed": mark("Anybody can take such noise off again: no privacy."),
    "noise.allow_infinite_epsilon": mark("Such a study has no privacy at all."),
    "study.allow_free_python": mark("The guarantee then assumes that the reviewed code is honest."),
    "study.allow_own_evaluation": mark("Others then read how good a model is on the records of this hospital."),
    "review.auto_approve_reruns": mark("Nobody here looks at a repeated plan."),
    "review.auto_approve_analytics_epsilon": mark("Nobody here looks at small questions about the patients."),
    "review.auto_approve_plain_jobs": mark("Code runs here that nobody has read."),
    "sandbox.jobs_may_measure": mark("Where the layer disk is missing, a job sees how large the private part is."),
}
_VALUES = {
    "sandbox.device": {"cpu": mark("processors")},
    "people.security_key": {
        "if-registered": mark("asked of everybody who has one"),
        "required": mark("nobody decides without one"),
    },
}
_ROLES = {"steward": mark("data steward"), "privacy-officer": mark("privacy officer")}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule: its key in policy.toml, its name, its value, and what it takes away as it is set (mostly nothing)."""

    key: str
    name: str
    value: str
    weaker: str = ""


def rule_in_words(key: str) -> str:
    """Return the name of one rule by its key in policy.toml; an unknown key as it is."""
    return tr(RULES[key]) if key in RULES else tr(RULES["partners"]) if key.startswith("partners.") else key


def policy_sections(policy: Policy) -> list[tuple[str, list[Rule]]]:
    """Return every section of a policy with its rules, in the language that is spoken."""
    partners = listed([p.name for p in policy.partners]) or tr("none are written down")
    found = [
        (
            tr(_SECTIONS["partners"]),
            [_rule("accept_only_partners", policy.accept_only_partners), _named("partners", partners)],
        )
    ]
    for section, values in policy.model_dump(mode="python").items():
        if isinstance(values, dict):
            rules = [_rule(f"{section}.{key}", value) for key, value in values.items()]
            found.append((tr(_SECTIONS[section]), rules))
    return found


def _rule(key: str, value: Any) -> Rule:
    return _named(key, _value(key, value), tr(_WEAKER[key]) if value and key in _WEAKER else "")


def _named(key: str, value: str, weaker: str = "") -> Rule:
    return Rule(key=key, name=rule_in_words(key), value=value, weaker=weaker)


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return tr("yes") if value else tr("no")
    if key.endswith("_bytes"):
        return tr("{size} MiB", size=decimal(value / 2**20, 0))
    if key.endswith("_seconds"):
        return tr("{seconds} s", seconds=significant(value, 6))
    if key.endswith("_minutes"):
        return tr("{minutes} min", minutes=significant(value, 6))
    if key.endswith("_days"):
        return tr_plural("{count} day", "{count} days", value)
    if key == "budget.epsilon_cap":
        return tr("no cap") if math.isinf(value) else epsilon_text(value)
    if key == "budget.delta":
        return delta_text(value)
    if isinstance(value, str):
        return tr(_VALUES.get(key, {}).get(value, value))
    if isinstance(value, (list, tuple)):
        return listed([tr(_ROLES.get(str(v), str(v))) for v in value]) or tr("none named")
    return significant(value, 6) if isinstance(value, float) else decimal(value, 0)
