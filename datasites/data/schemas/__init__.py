"""Schemas that come with Tessera, to use or to start from; `tessera schema check NAME` shows one."""
