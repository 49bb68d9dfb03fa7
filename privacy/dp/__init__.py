"""Differential privacy in memory: mechanism, accounting, clipping, noise, audit.

The only importer of dp_accounting and opacus. Start with ``mechanism.py``: what runs and what is charged come from one
frozen value.
"""
