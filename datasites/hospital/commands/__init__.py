"""The hospital's own command line beside its process: budgets, ingest, extracts.

Each module is one group of commands; it parses, calls a room below and prints. Nothing but ``hospital/cli.py`` imports
them. Start with ``budget.py``.
"""
