"""The orchestrator's time, for tests that have a ``played`` consortium."""

from support.passing_time import let_pass

__all__ = ["let_pass"]
