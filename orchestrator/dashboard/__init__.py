"""Pages for the scientists; every page only reads.

Imports the shared web plumbing and nothing of the portal. Start with ``app.py``.
"""
