"""An orchestrator's service for tests of its pages and its API."""

from support.orchestrator_service import new_service

__all__ = ["new_service"]
