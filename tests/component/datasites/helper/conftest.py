"""The orchestrator's time, for tests that have a ``played`` consortium."""

from support.passing_time import let_pass, without_the_gone

__all__ = ["let_pass", "without_the_gone"]
