"""Spans of rounds for an OpenTelemetry collector, off unless a role's environment names one.

Start with ``spans.py``.
"""
