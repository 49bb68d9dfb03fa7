"""Where the orchestrator learns its database's address."""

from __future__ import annotations

import pytest

from orchestrator.daemon import _database_url
from privacy.errors import InvalidInput


def test_the_databases_address_comes_from_a_file_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL_FILE", raising=False)
    assert _database_url() is None
    monkeypatch.setenv("DATABASE_URL", "postgresql://here/a")
    assert _database_url() == "postgresql://here/a"
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "secret"))
    with pytest.raises(InvalidInput, match="DATABASE_URL_FILE"):
        _database_url()
    (tmp_path / "secret").write_text("postgresql://there/b\n")
    assert _database_url() == "postgresql://there/b"
