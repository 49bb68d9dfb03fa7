"""Web plumbing that portal, orchestrator and dashboard share.

Server, limits on requests, problem answers, server-sent events, metrics, charts and the frame of a page. FastAPI and
Starlette are imported here, in ``datasites.portal``, ``orchestrator.api`` and ``orchestrator.dashboard``, and nowhere
else. Start with ``server.py``.
"""
