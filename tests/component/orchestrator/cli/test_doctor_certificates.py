"""`tessera doctor` names every certificate and its end; an expired one is never called a problem of the clock."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from datasites.node.credentials.tls import ensure_authority, ensure_server_certificate
from datasites.node.home import Config, Home
from orchestrator.cli.doctor import SOON_DAYS, Check, examine

LASTS = 825  # days


def checks(folder: Path, *, days_left: float) -> dict[str, Check]:
    made = dt.datetime.now(dt.UTC) - dt.timedelta(days=LASTS - days_left)
    authority = ensure_authority(folder / "tls", name="north", now=dt.datetime.now(dt.UTC))
    path = ensure_server_certificate(authority, folder / "tls", names=["localhost"], now=made)
    config = Config(name="north", institution="N", role="orchestrator", orchestrator_url="", tls_certificate=str(path))
    home = Home.create(folder / "home", config)
    return {check.name: check for check in examine(home.folder)}


def test_a_certificate_that_lasts_is_named_with_its_end(tmp_path: Path) -> None:
    found = checks(tmp_path, days_left=LASTS)["certificates"]
    assert found.ok and "this server's certificate in" in found.found and "days" in found.found


@pytest.mark.parametrize(("days_left", "told"), [(SOON_DAYS - 1, "ends on"), (0.5, "ends on"), (-3, "has expired on")])
def test_a_certificate_near_its_end_is_a_fault_with_its_name(tmp_path: Path, days_left: float, told: str) -> None:
    found = checks(tmp_path, days_left=days_left)
    assert not found["certificates"].ok and told in found["certificates"].found
    assert "renew it" in found["certificates"].advice
    assert "clock" not in found["certificates"].found + found["certificates"].advice


def test_without_any_certificate_that_is_said(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home", Config(name="north", institution="N", role="keyholder", orchestrator_url=""))
    found = {check.name: check for check in examine(home.folder)}
    assert found["certificates"].ok and found["certificates"].found == "none are used"
