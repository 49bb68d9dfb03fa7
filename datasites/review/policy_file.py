"""The policy in force: the owner's file, read again whenever it changes, and the caps of the ledger with it.

A change is validated as a whole, journaled with what differs, and holds from the next approval and the next round; no
restart is needed. A file that is no valid policy changes nothing: the last valid one stays in force, and the reason is
journaled and shown. A file that is being written is read when it has been left alone for a moment: the first half of
a policy is often a policy too. The cap of the file is the cap of every patient population in the ledger.

    >>> policies = PolicyFile(folder / "policy.toml", journal=journal, ledger=ledger)
    >>> policies.current().budget.epsilon_cap
    8.0
"""

from __future__ import annotations

import fcntl
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasites.language import mark
from datasites.node.files import text_of, write_atomically
from datasites.review.policy import Policy
from privacy.errors import InvalidInput
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger
from privacy.sentences import joined, say

CHANGED = "policy-changed"
REFUSED = "policy-refused"
FILE = mark("policy file")
_QUIET_SECONDS = 0.3
_LOOKS = 5


@dataclass(frozen=True, kw_only=True)
class Change:
    """One rule that differs: its key in the file, and its value before and after, as text."""

    key: str
    before: str
    after: str


class HeldBack(InvalidInput):
    """The file loosens what takes several people by the policy in force, and waits for them."""


class PolicyFile:
    """The policy of one datasite.

    Args:
        path: ``policy.toml``. The policy in force is kept beside it, so that a change made while nothing ran is found.
        journal: gets every change and every file that was refused.
        ledger: whose caps follow the file.
        changed: called with each new policy.

    Raises:
        InvalidInput: there is no valid policy to begin with.
    """

    def __init__(
        self, path: Path, *, journal: Journal, ledger: Ledger, changed: Callable[[Policy], object] = lambda _: None
    ) -> None:
        self.path = path
        self.changed = changed
        self.problem = ""
        self.held = ""
        self._in_force = path.with_name(f"{path.stem}-in-force.toml")
        self._journal = journal
        self._ledger = ledger
        self._lock = threading.RLock()
        self._seen = self._stamp()
        self._policy = Policy.load(path)
        self.changes: tuple[Change, ...] = ()
        with suppress(HeldBack):
            self.changes = self.reload()  # made while nothing looked

    def current(self) -> Policy:
        """Return the policy in force, after a look at the file."""
        with self._lock:
            if self._stamp() != self._seen and self._left_alone():
                with suppress(InvalidInput):  # journaled and shown; the last valid policy stays in force
                    self.reload()
            return self._policy

    def reload(
        self, *, by: str = FILE, reason: str = mark("policy.toml was changed"), accepted: str = ""
    ) -> tuple[Change, ...]:
        """Read the file, put it in force, and return what differs from before.

        Args:
            by: who changed it.
            reason: why.
            accepted: hash of the policy that enough people asked for.

        Raises:
            HeldBack: it loosens what takes several people by the policy in force; nothing changes.
            InvalidInput: it is no valid policy; nothing changes.
        """
        with self._lock, self._alone():
            self._seen = self._stamp()
            try:
                text = text_of(self.path)
                if not text.strip() and self._before(Policy()) != Policy():
                    raise InvalidInput(say("policy.toml is empty; an editor may be writing it at this moment"))
                policy = Policy.parse(text)
            except InvalidInput as error:
                self._refuse(str(error))
                raise InvalidInput(say("{error}; the policy before it stays in force", error=error)) from error
            before = self._before(policy)
            changes = differences(before, policy)
            loosened = loosenings(before, policy)
            if loosened and policy.policy_hash != accepted:
                self._policy, self.held = before, policy.policy_hash
                raise HeldBack(self._refuse(_waits(loosened)))
            if changes:
                body = {"policy_hash": policy.policy_hash, "before": before.policy_hash, "by": by, "reason": reason}
                self._journal.append(CHANGED, {**body, "changes": [vars(change) for change in changes]})
            if changes or not self._in_force.exists():
                write_atomically(self._in_force, text.encode(), mode=0o600)
            self.problem, self.held, self._policy = "", "", policy
        self.set_caps(by=by, reason=reason)
        self.changed(policy)
        return changes

    def set_caps(self, *, by: str = FILE, reason: str = mark("the cap of policy.toml")) -> None:
        """Give every population of the ledger that has a cap the one of the policy in force."""
        budget = self._policy.budget
        for population in self._ledger.populations():
            account = self._ledger.account(population)
            cap = account.cap
            if (
                cap is not None
                and not account.closed
                and (cap.epsilon, cap.delta) != (budget.epsilon_cap, budget.delta)
            ):
                self._ledger.set_cap(population, epsilon=budget.epsilon_cap, delta=budget.delta, by=by, reason=reason)

    def write_cap(self, *, epsilon: float, delta: float | None, by: str, reason: str) -> tuple[Change, ...]:
        """Write another cap into the file, keep the rest of it and its comments, and put it in force.

        Raises:
            InvalidInput: the cap is out of range; nothing changes.
        """
        import tomlkit

        with self._lock, self._alone():
            document = tomlkit.parse(text_of(self.path))
            budget = document.setdefault("budget", tomlkit.table())
            budget["epsilon_cap"] = float(epsilon)
            if delta is not None:
                budget["delta"] = float(delta)
            text = tomlkit.dumps(document)
            policy = Policy.parse(text)
            besides = [c for c in loosenings(self._before(policy), policy) if c.key not in _CAP]
            if besides:
                raise InvalidInput(_waits(tuple(besides)))
            write_atomically(self.path, text.encode(), mode=0o600)
        return self.reload(by=by, reason=reason, accepted=policy.policy_hash)

    def accept(self, policy_hash: str, *, by: str, reason: str) -> tuple[Change, ...]:
        """Put a file in force that loosens what takes several people, once they asked for exactly this one.

        Raises:
            InvalidInput: the file is another one by now; nothing changes.
        """
        return self.reload(by=by, reason=reason, accepted=policy_hash)

    def _before(self, policy: Policy) -> Policy:
        if not self._in_force.exists():
            return policy  # the first policy of this datasite, or the first start after an upgrade
        try:
            return Policy.load(self._in_force)
        except InvalidInput:
            return self._policy

    def _refuse(self, reason: str) -> str:
        if reason != self.problem:
            self.problem = reason
            self._journal.append(REFUSED, {"reason": reason})
        return reason

    def _left_alone(self) -> bool:
        """Wait until nobody has written the file for a moment; return false if somebody goes on writing."""
        for _ in range(_LOOKS):
            stamp = self._stamp()
            age = time.time() - stamp[0] / 1e9 if stamp else _QUIET_SECONDS
            if not 0 <= age < _QUIET_SECONDS:  # a time to come is that of another clock
                return True
            time.sleep(_QUIET_SECONDS - age)
        return False

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes of this datasite from changing the policy meanwhile."""
        with self._in_force.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


_CAP = ("budget.epsilon_cap", "budget.delta")


def loosenings(before: Policy, after: Policy) -> tuple[Change, ...]:
    """Return the rules of ``after`` that give more room than ``before`` says one person may give.

    Where budgets take several people: a higher cap or delta, or fewer people. Where accounts do: fewer people, or
    security keys that are wanted no more.
    """
    looser = set()
    if before.budget.required_people > 1:
        for key in ("epsilon_cap", "delta"):
            if getattr(after.budget, key) > getattr(before.budget, key):
                looser.add(f"budget.{key}")
        if after.budget.required_people < before.budget.required_people:
            looser.add("budget.required_people")
    if before.people.required_people > 1:
        if after.people.required_people < before.people.required_people:
            looser.add("people.required_people")
        if before.people.security_key == "required" != after.people.security_key:
            looser.add("people.security_key")
    return tuple(change for change in differences(before, after) if change.key in looser)


def _waits(changes: tuple[Change, ...]) -> str:
    said = [say("{key} from {before} to {after}", key=c.key, before=c.before, after=c.after) for c in changes]
    return say(
        "policy.toml changes {changes}, which takes several people by the policy in force: each asks for it on the "
        "page Budget, or with `tessera datasite reload --by`; until then the policy before it stays in force",
        changes=joined(said, ", "),
    )


def differences(before: Policy, after: Policy) -> tuple[Change, ...]:
    """Return the rules by which two policies differ, in the file's order."""
    old, new = _flat(before), _flat(after)
    return tuple(
        Change(key=key, before=old.get(key, "none"), after=new.get(key, "none"))
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
    )


def _flat(policy: Policy) -> dict[str, str]:
    found: dict[str, str] = {}
    for section, values in policy.model_dump(mode="python").items():
        if isinstance(values, Mapping):
            found |= {f"{section}.{key}": _text(value) for key, value in values.items()}
        elif section == "partners":
            found |= {f"partners.{partner['name']}": _text(sorted(partner.items())) for partner in values}
        else:
            found[section] = _text(values)
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "inf" if math.isinf(value) else f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(" ".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in value) or "none"
    return str(value)
