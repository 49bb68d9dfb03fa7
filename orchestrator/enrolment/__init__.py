"""The consortium's operator: invites parties, takes their answers, admits them, and signs the roster.

The invited party's side is :mod:`datasites.node.joining`. Start with ``desk.py``.
"""
