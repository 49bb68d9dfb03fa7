"""The error of this package; it knows nothing of the rest of Tessera."""

from __future__ import annotations


class InvalidModel(ValueError):
    """A configuration describes no model, or bytes and values do not fit the model they are meant for."""
