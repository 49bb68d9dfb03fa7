"""Looks at a dataset before it is published: does an input tell the outcome, do inputs vary? For the hospital only.

Start with ``judging.py``; ``association.py`` has the test. Nothing here is released: it goes into the reading report.
"""
