"""Differential privacy, encrypted sums, identities, journals and the privacy ledger.

A leaf package: it knows no model, no network, no hospital and no PySyft. Rooms, from the bottom: ``dp``,
``encryption``, ``ledger``. Start with ``dp/mechanism.py``.
"""
