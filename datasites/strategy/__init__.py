"""The rules a study may choose: how sites are weighted, modalities blended, noise added, and the server's step taken.

Each rule is one object behind a small Protocol, looked up by its name in ``registry.py``. Site, orchestrator and
simulation use the same objects. A rule reads the proposal it is given but imports it for its type only: ``study``
stands on this room and refuses an unknown or impossible choice when a proposal is built. Imports ``privacy`` and
nothing else of ours. Start with ``registry.py``; docs/adding-a-strategy.md adds a rule.
"""
