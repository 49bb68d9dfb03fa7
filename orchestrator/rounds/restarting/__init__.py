"""What an orchestrator looks at when it starts: whether it was restored from a backup, and what a kill left undone.

Rule of this room: nothing runs before it has looked, and what it finds stays visible until it is mended.
Start with ``rollback.py``.
"""
