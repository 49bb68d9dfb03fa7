"""Figures of a role's own folder for Prometheus: what is wrong with the role, its certificate, its disk.

What is wrong comes from ``health.json`` (:mod:`datasites.node.wellbeing`), by the fixed names of its lines. The
reasons, which may name a party, stay in the file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from datasites.node import health
from datasites.node.home import Home
from privacy.errors import TesseraError

LINES = ("certificate", "records", "restored", "disk", "orchestrator", "keyholder")


class FolderFigures(Collector):
    """Reads the files of one role's folder whenever somebody asks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering reads nothing."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the figures as they are now; what cannot be read is left out."""
        yield from self._looks()
        ends = _certificate_ends(self._folder)
        if ends is not None:
            yield GaugeMetricFamily(
                "tessera_certificate_expires_seconds", "When this server's certificate ends (Unix time).", value=ends
            )
        free = GaugeMetricFamily("tessera_disk_free_bytes", "Room on the disk of the role's folder.")
        free.add_metric((), shutil.disk_usage(self._folder).free)
        yield free

    def _looks(self) -> Iterable[Metric]:
        try:
            found = json.loads((self._folder / health.FILE).read_bytes())
            looked, lines = float(found["at"]), [str(line) for line in found["problems"]]
        except (OSError, ValueError, KeyError, TypeError):
            return
        yield GaugeMetricFamily("tessera_looked_after_seconds", "When the role last looked (Unix time).", value=looked)
        unwell = GaugeMetricFamily("tessera_unwell", "1 where the role says that something is wrong.", labels=("what",))
        for name in LINES:
            unwell.add_metric((name,), float(any(line.startswith(f"{name}:") for line in lines)))
        yield unwell


def _certificate_ends(folder: Path) -> float | None:
    try:
        path = Home(folder=folder).config().tls_certificate
        if not path:
            return None
        return x509.load_pem_x509_certificates(Path(path).read_bytes())[0].not_valid_after_utc.timestamp()
    except (TesseraError, OSError, ValueError, IndexError):
        return None
