"""The try before the first charge: whatever does not depend on the records must fail here, where it costs nothing.

Two things are tried in the sandbox of the real round: our own code opens every file that the round will read, the
private ones included, and reads no byte of them; then the round runs on the made-up records of the mock part, after a
look whether this machine gives a record the same bits among whatever others (:mod:`datasites.worker.same_bits`). So a
missing file, a folder that a worker cannot see, a package that does not import, a plan that crashes or kernels under
which the accounting would not hold cost no privacy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from datasites.worker.job import TrainingJob
from datasites.worker.trainer import SandboxedTrainer
from privacy.errors import Refused


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """Tries the rounds of one hospital.

    ``passed`` are the proposals whose mock round has run well since this process began, and since a worker last failed;
    it is not run again for them.
    """

    trainer: SandboxedTrainer
    passed: set[str] = field(default_factory=set)

    def __call__(self, job: TrainingJob) -> None:
        """Try a round before it is charged.

        Raises:
            Refused: it cannot run here; nothing was charged.
        """
        problem = self.trainer.try_files(job)
        if not problem and job.plan.proposal_hash not in self.passed:
            problem = self.trainer.try_round(job)
        if problem:
            raise Refused(f"the worker cannot do this round here, so nothing was charged: {problem}")
        self.passed.add(job.plan.proposal_hash)
