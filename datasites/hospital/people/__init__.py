"""What operators do on the datasite's own machine about people: list, end, forget; and take the journal elsewhere.

Start with ``commands.py``, which calls the other modules.
"""
