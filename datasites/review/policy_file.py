"""The policy in force: the owner's file, read again whenever it changes, and the caps of the ledger with it.

A change is validated as a whole, journaled with what differs, and holds from the next approval and the next round; no
restart is needed. A file that is no valid policy changes nothing: the last valid one stays in force, and the reason is
journaled and shown. The cap of the file is the cap of every patient population in the ledger.

    >>> policies = PolicyFile(folder / "policy.toml", journal=journal, ledger=ledger)
    >>> policies.current().budget.epsilon_cap
    8.0
"""

from __future__ import annotations

import fcntl
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasites.language import mark
from datasites.node.files import write_atomically
from datasites.review.policy import Policy
from privacy.errors import InvalidInput
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger
from privacy.sentences import say

CHANGED = "policy-changed"
REFUSED = "policy-refused"
FILE = mark("policy file")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One rule that differs: its key in the file, and its value before and after, as text."""

    key: str
    before: str
    after: str


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
        self._in_force = path.with_name(f"{path.stem}-in-force.toml")
        self._journal = journal
        self._ledger = ledger
        self._lock = threading.RLock()
        self._seen = self._stamp()
        self._policy = Policy.load(path)
        self.changes = self.reload()  # made while nothing looked

    def current(self) -> Policy:
        """Return the policy in force, after a look at the file."""
        with self._lock:
            if self._stamp() != self._seen:
                with suppress(InvalidInput):  # journaled and shown; the last valid policy stays in force
                    self.reload()
            return self._policy

    def reload(self, *, by: str = FILE, reason: str = mark("policy.toml was changed")) -> tuple[Change, ...]:
        """Read the file, put it in force, and return what differs from before.

        Args:
            by: who changed it.
            reason: why.

        Raises:
            InvalidInput: it is no valid policy; nothing changes.
        """
        with self._lock, self._alone():
            self._seen = self._stamp()
            try:
                text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
                policy = Policy.load(self.path)
            except (InvalidInput, UnicodeDecodeError, OSError) as error:
                self._refuse(str(error))
                raise InvalidInput(say("{error}; the policy before it stays in force", error=error)) from error
            before = self._before(policy)
            changes = differences(before, policy)
            if changes:
                body = {"policy_hash": policy.policy_hash, "before": before.policy_hash, "by": by, "reason": reason}
                self._journal.append(CHANGED, {**body, "changes": [vars(change) for change in changes]})
            if changes or not self._in_force.exists():
                write_atomically(self._in_force, text.encode(), mode=0o600)
            self.problem, self._policy = "", policy
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
            document = tomlkit.parse(self.path.read_text(encoding="utf-8"))
            budget = document.setdefault("budget", tomlkit.table())
            budget["epsilon_cap"] = float(epsilon)
            if delta is not None:
                budget["delta"] = float(delta)
            text = tomlkit.dumps(document)
            Policy.parse(text)
            write_atomically(self.path, text.encode(), mode=0o600)
        return self.reload(by=by, reason=reason)

    def _before(self, policy: Policy) -> Policy:
        if not self._in_force.exists():
            return policy  # the first policy of this datasite, or the first start after an upgrade
        try:
            return Policy.load(self._in_force)
        except InvalidInput:
            return self._policy

    def _refuse(self, reason: str) -> None:
        if reason != self.problem:
            self.problem = reason
            self._journal.append(REFUSED, {"reason": reason})

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
