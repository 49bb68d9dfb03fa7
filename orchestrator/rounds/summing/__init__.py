"""From uploads to one encrypted sum: which uploads count, and the process that adds their ciphertexts.

Of the round's machinery it knows the store alone. Start with ``intake.py``, then ``sums.py``.
"""
