"""The image: small, without tools and secrets, in layers, and with what its roles may be asked for.

Needs an engine; ``.ci/run`` starts one where it can. Settings: ``WHEELS_DIR``, ``BUILD_CA_FILE`` (see Dockerfile).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from support.composed import PROJECT, ROOT, docker, environment

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

IMAGE_LIMIT_BYTES = 1_200_000_000
PATCH_LIMIT_BYTES = 5_000_000


def test_the_image_is_small_and_has_no_build_tools_and_no_secrets(image: str) -> None:
    size = int(docker("image", "inspect", "-f", "{{.Size}}", image).stdout)
    print(f"image: {size / 1e9:.2f} GB")
    assert size < IMAGE_LIMIT_BYTES
    look = (
        "import shutil, importlib.util as u, pathlib, sys; "
        "print([t for t in ('gcc', 'cc', 'make', 'git', 'pip', 'pip3') if shutil.which(t)], "
        "[m for m in ('pip', 'setuptools', 'pytest', 'mypy', 'hatchling') if u.find_spec(m)], "
        "[str(p) for f in ('/opt/tessera', '/etc/tessera', '/var/lib/tessera') "
        "for p in pathlib.Path(f).rglob('*') if p.name in ('identity.pem', 'authority.pem')])"
    )
    found = docker("run", "--rm", "--network=none", "--read-only", "--entrypoint=python", image, "-c", look).stdout
    assert found.strip() == "[] [] []"
    settings = json.loads(docker("image", "inspect", image).stdout)[0]["Config"]
    assert settings["User"] == "10000:10000"
    assert not [e for e in settings["Env"] if re.search(r"(?i)password|secret|key|token", e)]


def test_the_image_says_what_it_is_and_its_files_are_those_that_were_installed(image: str) -> None:
    labels = json.loads(docker("image", "inspect", "-f", "{{json .Config.Labels}}", image).stdout)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.title"] == "Tessera" and labels[f"{prefix}.version"] == project["version"]
    assert labels[f"{prefix}.licenses"] == project["license"]
    assert labels[f"{prefix}.base.name"] == "python:3.11-slim" and f"{prefix}.revision" in labels
    look = "from datasites.review.environment import installed_files as f; print(len(f().packages) > 100, f().changed)"
    found = docker("run", "--rm", "--network=none", "--read-only", "--entrypoint=python", image, "-c", look).stdout
    assert found.strip() == "True ()"


def test_the_image_has_what_a_bucket_and_traces_need(image: str) -> None:
    look = (
        "import os; from datasites.node.tracing import spans; from obstore.store import S3Store; "
        "spans.start('orchestrator', 'o'); print(spans._traces.provider is not None); "
        "print(S3Store('bucket', config={'region': 'us-east-1'})); os._exit(0)"  # no collector is there
    )
    command = ["run", "--rm", "--network=none", "--env", "TESSERA_TRACES=http://127.0.0.1:9", "--entrypoint=python"]
    found = docker(*command, image, "-u", "-c", look).stdout.splitlines()
    assert found[0] == "True" and "bucket" in found[1], found


def layers(image: str) -> dict[str, int]:
    """The layers of an image with their sizes in bytes, the lowest first."""
    digests = json.loads(docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", image).stdout)
    told = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image).stdout
    made = [line.partition("\t") for line in told.splitlines() if re.match(r"\d+\t(COPY|RUN|WORKDIR) ", line)]
    sizes = [int(size) for size, _, _ in made][::-1]
    assert len(sizes) == len(digests), told
    return dict(zip(digests, sizes, strict=True))


def test_a_change_of_one_line_is_a_small_patch(image: str, tmp_path: Path) -> None:
    """Whoever has the image fetches only layers that are new; a release would otherwise cost a gigabyte a hospital."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if not (ROOT / name).is_file() or name.startswith(("tests/", "docs/", "benchmarks/")):
            continue
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "docker" / "wheels").mkdir(parents=True, exist_ok=True)
    with (tmp_path / "datasites" / "keyholder" / "record.py").open("a") as module:
        module.write("\n# one more line\n")
    patched = environment() | {"TESSERA_VERSION": "patched"}
    done = subprocess.run(
        ["docker", "compose", "-p", PROJECT, "build"], cwd=tmp_path, env=patched, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = layers(image), layers("tessera:patched")
    new = {digest: size for digest, size in after.items() if digest not in before}
    docker("image", "rm", "tessera:patched", check=False)
    print(f"a patch of one line: {sum(new.values()) / 1e6:.2f} MB in {len(new)} layers of {len(after)}")
    assert 0 < sum(new.values()) < PATCH_LIMIT_BYTES


def test_another_base_image_than_the_named_digest_is_not_taken(image: str) -> None:
    wrong = {"BASE_DIGEST": f"sha256:{'0' * 64}"}
    done = subprocess.run(
        ["docker", "compose", "-p", PROJECT, "build"],
        cwd=ROOT,
        env=environment() | wrong,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and f"python:3.11-slim@{wrong['BASE_DIGEST']}" in done.stderr
