"""What is kept of rounds and studies that are over, and what is deleted when.

Rule of this room: what goes is journaled, signed documents never go, and nothing goes that a running round needs.
Start with ``retention.py``.
"""
