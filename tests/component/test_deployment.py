"""What we ship for machines of others: a hospital's compose file, a systemd unit, a Helm chart; by their own tools."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "tessera"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
WARNING = 2  # of Helm's severities
FULL = {
    "invitation": {"secret": "tessera-invitation"},
    "proxy": {"secret": "tessera-proxy"},
    "publicUrl": "https://tessera.hospital-a.example",
    "ingress": {"enabled": True, "host": "tessera.hospital-a.example", "className": "nginx", "tlsSecret": "portal"},
    "storage": {"size": "20Gi", "className": "fast"},
    "networkPolicy": {"ingressFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
    "image": {"repository": "tessera", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"kubernetes.io/os": "linux"},
}


# the hospital's compose file ------------------------------------------------------------------------------------


def compose_file() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "hospital" / "compose.yaml").read_text())
    return found


def test_the_hospitals_compose_file_hardens_what_it_starts() -> None:
    (service,) = compose_file()["services"].values()
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["init"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "pids_limit", "healthcheck"} <= service.keys()
    assert service["ports"] == ["${TESSERA_PORTAL:-127.0.0.1:8080}:8080"]
    assert not re.search(r"(?i)password|private|token", (DEPLOY / "hospital" / "compose.yaml").read_text())


SHIPPED = [
    *(ROOT / name for name in ("compose.yaml", "Dockerfile")),
    *(path for folder in ("hospital", "systemd", "helm") for path in (DEPLOY / folder).rglob("*") if path.is_file()),
]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
NAME = re.compile(r"\b(?:TESSERA|DATABASE)_[A-Z_]*[A-Z]\b")
PROGRAMS = "\n".join(
    path.read_text()
    for folder in ("datasites", "orchestrator", "privacy", "models", "tessera", "benchmarks", "docker")
    for path in sorted((ROOT / folder).rglob("*.py"))
)
FILLED_IN = {name for path in SHIPPED for name in re.findall(r"\$\{?([A-Z_]+)", path.read_text())}
READ = {name for name in NAME.findall(PROGRAMS) if f'"{name}"' in PROGRAMS}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_that_a_shipped_file_names_is_read(path: Path) -> None:
    """The file fills it in or hands it on; what it hands on, our programs read."""
    text = path.read_text()
    said = re.sub(r"(?m)^\s*#.*", "", text)
    handed_on = set(re.findall(rf"(?:\s(?={NAME.pattern}[:=])|name: )({NAME.pattern})", said))
    assert {name.removesuffix("_FILE") for name in handed_on} <= READ
    assert set(NAME.findall(text)) <= handed_on | set(re.findall(r"\$\{?([A-Z_]+)", text))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_variable_that_a_page_names_is_read(path: Path) -> None:
    assert set(NAME.findall(path.read_text())) <= READ | FILLED_IN | {"TESSERA_TCGA", "TESSERA_AXE"}  # read by tests


def test_how_people_reach_a_portal_goes_from_the_compose_file_into_the_folder() -> None:
    from typer.main import get_command

    from orchestrator.cli.main import app

    (service,) = compose_file()["services"].values()
    assert service["environment"]["TESSERA_PUBLIC_URL"] == "${TESSERA_PUBLIC_URL:-}"
    options = {option.name: option.envvar for option in get_command(app).commands["join"].params}  # type: ignore[attr-defined]
    assert (options["public_url"], options["proxy"]) == ("TESSERA_PUBLIC_URL", "TESSERA_PROXY")


def has_compose() -> bool:
    """Return whether Docker's command line is here, with its part for compose files."""
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_compose(), reason="needs docker's command line with compose")
def test_composes_own_reader_takes_the_hospitals_file() -> None:
    command = ["docker", "compose", "-f", str(DEPLOY / "hospital" / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# systemd ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
@pytest.mark.parametrize("role", ["datasite", "keyholder", "helper", "orchestrator"])
def test_systemd_takes_the_unit(tmp_path: Path, role: str) -> None:
    """The unit as it is, but for a program that this machine has."""
    text = (DEPLOY / "systemd" / "tessera@.service").read_text()
    assert "{role} run" not in text and "/opt/tessera/bin/tessera %i run" in text
    (tmp_path / f"tessera@{role}.service").write_text(text.replace("/opt/tessera/bin/tessera", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / f"tessera@{role}.service")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "tessera" not in done.stderr, done.stderr


# Helm ------------------------------------------------------------------------------------------------------------


def test_the_charts_own_schema_takes_its_values_and_no_misspelt_ones() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(VALUES, schema)
    jsonschema.validate(VALUES | FULL, schema)
    for wrong in ({"rolle": "datasite"}, {"role": "hospital"}, {"image": {"repository": "t", "digest": "latest"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(VALUES | wrong, schema)


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that Helm makes of the chart."""
    helm = pytest.importorskip("helm_python", reason="needs the extra `charts`")
    with helm.Chart.load(CHART) as chart:
        made = chart.render(values=values, name="hospital-a", namespace="tessera")
    documents = [document for text in made.values() if "kind:" in text for document in yaml.safe_load_all(text)]
    return [document for document in documents if isinstance(document, dict)]


CASES = {
    "default": {},
    "full": FULL,
    **{role: {"role": role} for role in ("keyholder", "helper", "orchestrator")},
}


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_helm_lints_the_chart_and_kubernetes_takes_what_it_makes(values: dict[str, Any]) -> None:
    helm = pytest.importorskip("helm_python", reason="needs the extra `charts`")
    validate = pytest.importorskip("kubernetes_validate", reason="needs the extra `charts`")
    linted = helm.lint(CHART, values=values, strict=True)
    assert linted["total_charts_linted"] == 1 and not linted["errors"], linted
    assert not [one for one in linted["messages"] if one["severity"] >= WARNING], linted
    objects = rendered(values)
    kinds = {one["kind"] for one in objects}
    serves = values.get("role", "datasite") in ("datasite", "orchestrator")
    assert {"StatefulSet", "NetworkPolicy"} <= kinds and ("Service" in kinds) == serves
    for one in objects:
        validate.validate(one, "1.30", strict=True)


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_what_the_chart_starts_is_hardened_and_alone_on_its_folder(values: dict[str, Any]) -> None:
    (made,) = [one for one in rendered(values) if one["kind"] == "StatefulSet"]
    spec = made["spec"]["template"]["spec"]
    assert made["spec"]["replicas"] == 1 and spec["automountServiceAccountToken"] is False
    account = spec["securityContext"]
    assert account["runAsNonRoot"] and account["seccompProfile"]["type"] == "RuntimeDefault"
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
        assert rights["capabilities"]["drop"] == ["ALL"] and container["resources"]["limits"]
    assert "password" not in json.dumps(made).lower()
