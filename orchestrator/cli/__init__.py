"""The command line: parse, call, print.

No logic that a test must start a process to reach. Start with ``main.py``.
"""
