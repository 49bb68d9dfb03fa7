"""The same study without parties: no process, no encryption, the same numbers.

The engine is a seam: in this process, or on Ray. With a public seed a simulated study equals the live one bit for
bit. Start with ``engine.py``.
"""
