"""A whole consortium on one machine.

It starts the roles by their public commands and does what people would do. Start with ``demo.py``.
"""
