"""The staging models over partially present modalities.

A leaf package of plain torch, few files that read downward. Start with ``config.py``, then ``networks.py``.
"""
