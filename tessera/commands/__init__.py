"""The commands of the package beside those of the roles: ``tessera predict``, ``tessera analytics``.

Start with ``predict.py``.
"""
