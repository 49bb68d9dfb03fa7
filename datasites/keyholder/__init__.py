"""The neutral third party: makes one key per round and decrypts one sum.

It imports ``study``, ``node`` and ``privacy`` and nothing else of ours: whoever audits the keyholder reads this
folder. Start with ``checks.py``, the pure decisions under a table of who could lie.
"""
