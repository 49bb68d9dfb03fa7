"""Append-only records of what was spent: chain, costs, state, verification.

The state is a pure fold over signed entries. Start with ``ledger.py``, then ``state.py``.
"""
