"""A helper: holds part of the pads of a round, encrypted on its disk, and answers one list a round.

Start with ``custody.py``, then ``daemon.py``. Why two helpers: docs/decisions/0018-pads-among-helpers.md.
"""
