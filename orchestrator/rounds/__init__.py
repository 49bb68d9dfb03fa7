"""A round, from its work items to the next model.

Closing lists, adding ciphertexts, asking the keyholder, dividing and stepping, all journaled so that a restart goes
on. No web framework. Start with ``runner.py``.
"""
