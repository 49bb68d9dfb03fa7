"""Commands, and a consortium's orchestrator."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.joined import Consortium

from orchestrator.cli import main


@pytest.fixture
def tessera(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Type a command; return what it printed on both streams."""

    def run(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["tessera", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        assert ended.value.code == code, f"{arguments}: {ended.value.code}\n{out}\n{err}"
        assert "Traceback" not in out + err
        return " ".join(f"{out} {err}".split())

    return run


@pytest.fixture
def consortium(tmp_path: Path, tessera: Callable[..., str]) -> Consortium:
    return Consortium(tmp_path, tessera)
