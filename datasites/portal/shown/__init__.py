"""What the portal's pages say: a proposal in plain words, answers, figures, code, and names of policy and journal.

Nothing here decides or writes. Start with ``words.py``.
"""
