"""The orchestrator's sandbox: the server's rules that studies bring run there, with the code that hospitals approve.

The code tree lies in the store, file by file under the hashes that the proposal binds. The pool of workers starts with
the first study that needs it.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

from datasites.node.files import write_atomically
from datasites.review.policy import SandboxPolicy
from datasites.strategy.own_step import Stepping
from datasites.study.proposal import Proposal
from datasites.worker.job import Outcome
from datasites.worker.pool import WorkerPool
from datasites.worker.rule import sandboxed_rules
from orchestrator.rounds.store import Store
from privacy.errors import InvalidInput

_log = logging.getLogger(__name__)


class OwnRules:
    """Gives the own rule of a study, None where it has none.

    Args:
        store: where the code trees are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self, proposal: Proposal) -> Stepping | None:
        """Return the rule.

        Raises:
            InvalidInput: a file of the tree is not in the store.
        """
        if not proposal.own_server_rule:
            return None
        rule_of = sandboxed_rules(self._pool, self._store.folder / "scratch", self._tree, _failed)
        return rule_of(proposal)

    def close(self) -> None:
        """End the workers, if there are any."""
        if "_pool" in vars(self):
            self._pool.close()

    @cached_property
    def _pool(self) -> WorkerPool:
        return WorkerPool(SandboxPolicy(), hidden=(self._store.folder.parent,))

    def _tree(self, proposal: Proposal) -> Path:
        folder = self._store.folder / "trees" / proposal.proposal_hash
        for name, digest in proposal.plan.code.items():
            target = folder / name
            if folder.resolve() not in target.resolve().parents:
                raise InvalidInput("expected the files of a code tree inside its folder")
            if not target.exists():
                write_atomically(target, self._store.blob(digest))
        return folder


def require_code(store: Store, proposal: Proposal) -> None:
    """Check that every file of a study's own code is in the store.

    Raises:
        InvalidInput: one is not.
    """
    if proposal.own_server_rule:
        for digest in proposal.plan.code.values():
            store.blob_path(digest)


def _failed(outcome: Outcome, log: str) -> None:
    _log.error("a study's own server's rule stopped: %s; it said last: %s", outcome.reason, log[-2000:])
