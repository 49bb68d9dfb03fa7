"""Schemas that come with Tessera, to use or to start from; `tessera schema check NAME` shows one.

Start with ``toy.toml``, the smallest; :mod:`datasites.study.schema.document` says what may stand in one.
"""
