"""Backups of a role's folder. Start with ``archive.py``."""
