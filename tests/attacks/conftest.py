"""One consortium whose orchestrator lies, and one round of it per test; with two helpers or without."""

from support.helped import helped, helped_consortium
from support.liar import consortium, stage

__all__ = ["consortium", "helped", "helped_consortium", "stage"]
