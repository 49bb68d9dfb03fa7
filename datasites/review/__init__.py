"""People and their decisions: accounts, findings, policy, signed approvals.

No page and no HTML: the portal draws what this room decides. Imports ``node``, ``study`` and ``privacy``. Start with
``approvals.py``.
"""
