"""A study's own server's rule, run in the sandbox: it gets public numbers and the code tree, no records and no key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from datasites.strategy.own_step import Stepped, Stepping, input_bytes, read_output
from datasites.strategy.server_steps import Vector
from datasites.study.proposal import Proposal
from datasites.worker.job import Outcome, RuleJob
from datasites.worker.pool import WorkerPool
from datasites.worker.trainer import JobFolder
from privacy.errors import InvalidInput, Refused

RuleOf = Callable[[Proposal], Stepping | None]
_INPUT_NAME = "input.safetensors"
_LOG_CHARACTERS = 20_000


def brings_none(_: Proposal) -> Stepping | None:
    """Return no rule: for whoever follows studies with Tessera's own rules alone."""
    return None


@dataclass(frozen=True, kw_only=True)
class SandboxedRule:
    """The rule of one code tree, in workers of ``pool``.

    Args:
        pool: the workers.
        folder: where jobs have their folders while they run (mode 0700).
        code: the approved code tree.
        failed: told how a worker failed and the end of its log.
    """

    pool: WorkerPool
    folder: Path
    code: Path
    failed: Callable[[Outcome, str], None] = lambda _outcome, _log: None

    def __call__(
        self,
        models: Mapping[str, Vector],
        updates: Mapping[str, Vector],
        states: Mapping[str, Mapping[str, Vector]],
    ) -> Stepped:
        """Return the step of a round."""
        with JobFolder(self.folder) as place:
            (place / "out").mkdir()
            given = place / _INPUT_NAME
            given.write_bytes(input_bytes(models, updates, states))
            outcome = self.pool.run_rule(RuleJob(code=self.code, input=given, output=place / "out"))
            if outcome.result is None:
                self.failed(outcome, outcome.log.read_text(errors="replace")[-_LOG_CHARACTERS:])
                raise Refused(f"the study's own server's rule cannot be run here: {outcome.reason}")
            try:
                return read_output(outcome.result, models)
            except InvalidInput as error:
                raise Refused(f"the study's own server's rule gave no model: {error}") from error


def sandboxed_rules(
    pool: WorkerPool,
    folder: Path,
    code_of: Callable[[Proposal], Path],
    failed: Callable[[Outcome, str], None] = lambda _outcome, _log: None,
) -> RuleOf:
    """Return what gives the server's rule of a study: one in the sandbox where it brings its own, else None.

    Args:
        pool: the workers.
        folder: for jobs while they run.
        code_of: the approved code tree of a study.
        failed: told how a worker failed.
    """

    def rule_of(proposal: Proposal) -> Stepping | None:
        if not proposal.own_server_rule:
            return None
        return SandboxedRule(pool=pool, folder=folder, code=code_of(proposal), failed=failed)

    return rule_of
