"""One consortium whose orchestrator lies, and one round of it per test."""

from support.liar import consortium, stage

__all__ = ["consortium", "stage"]
