"""Entry points decide which code runs as a role: only ours, and an approval's code hash covers them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from datasites.node import plugins
from datasites.review import environment
from privacy.errors import InvalidInput


class Installed:
    """A distribution with entry points of our choice."""

    def __init__(self, value: str) -> None:
        self.entry_points = EntryPoints([EntryPoint(name="datasite", value=value, group="tessera.roles")])


@pytest.fixture(autouse=True)
def fresh_hash() -> Iterator[None]:
    environment.code_hash.cache_clear()
    yield
    environment.code_hash.cache_clear()


def test_a_role_of_a_foreign_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "distribution", lambda _: Installed("stranger.daemon:run"))
    with pytest.raises(InvalidInput, match=r"Tessera's own packages, got .stranger\.daemon:run"):
        plugins.process_of("datasite")
    with pytest.raises(InvalidInput, match="stranger"):
        environment.code_hash()


def test_another_function_for_a_role_is_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = environment.code_hash()
    monkeypatch.setattr(plugins, "distribution", lambda _: Installed("datasites.hospital.daemon:main"))
    environment.code_hash.cache_clear()
    assert environment.code_hash() != usual
