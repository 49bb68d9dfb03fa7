"""From GDC and cBioPortal files to our tables.

Runs at the steward's desk (``tessera fetch``, ``tessera convert``), never in a daemon. Start with ``conversion.py``.
"""
