"""People at the portal: signing in, accounts, whose password is checked when, and what is written down of it.

Start with ``admission.py``, then ``desk.py``.
"""
