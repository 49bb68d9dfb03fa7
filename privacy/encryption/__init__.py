"""CKKS sums of integers: packing, pads, tags, keys.

The only importer of tenseal. Start with ``ckks.py``, then ``packing.py``.
"""
