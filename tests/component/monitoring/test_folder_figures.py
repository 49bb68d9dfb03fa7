"""Figures of a role's folder: what is wrong, the certificate's end, the disk, and no reason or name."""

from __future__ import annotations

import json
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from datasites.node.credentials.tls import ensure_authority, ensure_server_certificate
from datasites.node.home import Config, Home
from datasites.node.web.folder_figures import FolderFigures


def figures(folder: Path) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(FolderFigures(folder))
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_what_is_wrong_is_told_without_the_reason(tmp_path: Path) -> None:
    (tmp_path / "health.json").write_text(json.dumps({"at": 12.5, "problems": ["keyholder: north has gone"]}))
    found = figures(tmp_path)
    assert found["tessera_looked_after_seconds"] == 12.5
    assert found['tessera_unwell{what="keyholder"}'] == 1 and found['tessera_unwell{what="disk"}'] == 0
    assert found["tessera_disk_free_bytes"] > 0
    assert not any("north" in name for name in found)


def test_a_folder_without_any_of_it_gives_its_disk_alone(tmp_path: Path) -> None:
    (tmp_path / "health.json").write_text("[")
    assert set(figures(tmp_path)) == {"tessera_disk_free_bytes"}


def test_the_end_of_the_servers_certificate_is_told(tmp_path: Path) -> None:
    authority = ensure_authority(tmp_path / "tls", name="north")
    path = ensure_server_certificate(authority, tmp_path / "tls", names=["localhost"])
    config = Config(name="north", institution="N", role="orchestrator", orchestrator_url="", tls_certificate=str(path))
    home = Home.create(tmp_path / "home", config)
    assert figures(home.folder)["tessera_certificate_expires_seconds"] > 1.7e9
