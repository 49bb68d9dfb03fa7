"""HTTP for the parties: studies, work, uploads, results, blobs and the mailbox.

Every request is signed; what a caller may do follows from who it is. Start with ``server.py``, then
``authentication.py``.
"""
