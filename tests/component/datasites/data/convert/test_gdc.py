"""`tessera fetch`: a client of the GDC API against a server that replays the documented answers and misbehaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from support.gdc_server import GdcServer, listing, star_counts
from typer.testing import CliRunner

from datasites.data.convert.gdc import read_gdc
from datasites.data.convert.gdc_client import GdcClient, remote_file
from datasites.data.convert.gdc_download import download, fetch_project
from privacy.errors import InvalidInput, Tampered, TesseraError

PROJECT = "TCGA-BRCA"


@pytest.fixture
def server() -> Iterator[GdcServer]:
    with GdcServer() as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def client(server: GdcServer, waits: list[float]) -> Iterator[GdcClient]:
    with GdcClient(server.url, requests_per_second=50, attempts=4, sleep=waits.append) as made:
        yield made


def test_a_project_is_fetched_page_by_page_and_lies_as_the_transfer_tool_lays_it_out(server, client, tmp_path):
    for number in range(5):
        server.publish(number)
    seen: list[tuple[int, int]] = []
    done = fetch_project(client, PROJECT, tmp_path, progress=lambda _, n, total: seen.append((n, total)))
    assert (done.cases, done.files) == (5, 5)
    assert sum(path == "/cases" for _, path, _ in server.requests) == 3
    for file in server.files:
        path = tmp_path / PROJECT / file["file_id"] / file["file_name"]
        assert path.read_bytes() == server.bodies[file["file_id"]]
    manifest = (tmp_path / PROJECT / "manifest.txt").read_text().splitlines()
    assert manifest[0] == "id\tfilename\tmd5\tsize\tstate"
    assert len(manifest) == 6
    total = sum(len(body) for body in server.bodies.values())
    assert seen[-1] == (total, total)
    assert [n for n, _ in seen] == sorted(n for n, _ in seen)
    assert done.bytes_moved == total


def test_fetching_again_moves_nothing_and_a_limit_takes_the_first_cases(server, client, tmp_path):
    for number in range(4):
        server.publish(number)
    assert fetch_project(client, PROJECT, tmp_path, limit=3).files == 3
    again = fetch_project(client, PROJECT, tmp_path, limit=3)
    assert (again.cases, again.files, again.bytes_moved) == (3, 3, 0)


def test_an_interrupted_transfer_goes_on_where_it_stopped(server, client, tmp_path):
    server.publish(1, body=star_counts(1) * 2000)
    size = len(server.bodies[server.files[0]["file_id"]])
    [file] = client.star_counts(PROJECT)
    server.troubles = [("cut", 200_000)]
    moved = download(client, file, tmp_path)
    ranges = [r for method, _, r in server.requests if method == "GET"]
    assert ranges[0] is None
    assert ranges[1] is not None
    start = int(ranges[1].removeprefix("bytes=").rstrip("-"))
    assert 0 < start <= 200_000
    assert moved == size
    assert (tmp_path / file.file_id / file.name).read_bytes() == server.bodies[file.file_id]


def test_a_later_run_continues_the_part_that_an_earlier_one_left(server, client, tmp_path):
    server.publish(1)
    [file] = client.star_counts(PROJECT)
    part = tmp_path / file.file_id / f".{file.name}.part"
    part.parent.mkdir()
    part.write_bytes(server.bodies[file.file_id][:100])
    assert download(client, file, tmp_path) == file.size_bytes - 100
    assert not part.exists()


def test_a_part_with_wrong_bytes_is_thrown_away_and_fetched_whole(server, client, tmp_path):
    server.publish(1)
    [file] = client.star_counts(PROJECT)
    part = tmp_path / file.file_id / f".{file.name}.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * 100)
    download(client, file, tmp_path)
    assert (tmp_path / file.file_id / file.name).read_bytes() == server.bodies[file.file_id]


def test_a_server_that_ignores_the_range_starts_again(server, client, tmp_path):
    server.publish(1)
    [file] = client.star_counts(PROJECT)
    part = tmp_path / file.file_id / f".{file.name}.part"
    part.parent.mkdir()
    part.write_bytes(server.bodies[file.file_id][:100])
    server.troubles = [("ignore-range",)]
    assert download(client, file, tmp_path) == file.size_bytes


def test_a_file_with_another_checksum_is_refused_and_removed(server, client, tmp_path):
    server.publish(1)
    file_id = server.files[0]["file_id"]
    server.bodies[file_id] = server.bodies[file_id].replace(b"TP53", b"TP35", 1)
    [file] = client.star_counts(PROJECT)
    with pytest.raises(Tampered, match="MD5"):
        download(client, file, tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_more_bytes_than_announced_are_refused_and_removed(server, client, tmp_path):
    server.publish(1)
    server.bodies[server.files[0]["file_id"]] += b"more"
    [file] = client.star_counts(PROJECT)
    with pytest.raises(Tampered, match="sends more"):
        download(client, file, tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_given_the_time_it_asks_for(server, client, waits, status):
    server.publish(1)
    server.troubles = [("status", status, {"Retry-After": "7"})]
    assert len(client.cases(PROJECT)) == 1
    assert 7.0 in waits


def test_retry_after_may_be_a_date(server, client, waits):
    server.publish(1)
    until = datetime.now(UTC) + timedelta(seconds=280)
    server.troubles = [("status", 503, {"Retry-After": format_datetime(until, usegmt=True)})]
    client.cases(PROJECT)
    assert any(200 <= wait <= 281 for wait in waits)


def test_a_server_that_stays_busy_ends_the_command_with_a_clear_line(server, client):
    server.troubles = [("status", 503, {})] * 9
    with pytest.raises(TesseraError, match="did not answer in 4 attempts"):
        client.cases(PROJECT)
    server.troubles = [("status", 429, {"Retry-After": "86400"})]
    with pytest.raises(TesseraError, match="come back in 86400 s"):
        client.cases(PROJECT)


def test_requests_keep_their_distance(server, waits):
    server.publish(1)
    with GdcClient(server.url, requests_per_second=2, sleep=waits.append) as slow:
        for _ in range(3):
            slow.cases(PROJECT)
    assert len(waits) == 2
    assert all(0.3 < wait <= 0.5 for wait in waits)


@pytest.mark.parametrize(
    "change",
    [
        {"file_name": "../../etc/passwd"},
        {"file_name": ".bashrc"},
        {"file_name": "a/b.tsv"},
        {"file_id": ".."},
        {"md5sum": "x"},
        {"file_size": 10**12},
        {"file_size": "12"},
        {"file_size": 0},
    ],
)
def test_a_file_described_unsafely_is_refused_before_anything_is_written(change):
    with pytest.raises(InvalidInput):
        remote_file(listing(1, b"x", **change))


def test_normal_tissue_and_files_of_several_cases_are_left_out(server, client):
    server.publish(1, sample="11A")
    server.publish(2, cases=[{"submitter_id": "TCGA-BH-A002", "samples": []}] * 2)
    server.publish(3, sample="01B")
    server.files.append(listing(3, b"first", sample="01A", file_id="00000000-0000-0000-0000-00000000ffff"))
    [file] = client.star_counts(PROJECT)
    assert (file.case, file.sample) == ("TCGA-BH-A003", "TCGA-BH-A003-01A")


def test_too_much_is_refused_before_the_first_file(server, client, tmp_path):
    server.publish(1)
    with pytest.raises(InvalidInput, match="allowed are 10"):
        fetch_project(client, PROJECT, tmp_path, max_bytes=10)
    assert not any(method == "GET" for method, _, _ in server.requests)


@pytest.mark.parametrize("project", ["../x", "TCGA", "TCGA-BRCA/..", "tcga-brca", "TCGA-" + "A" * 80])
def test_a_project_that_is_no_project_id_is_refused(client, project):
    with pytest.raises(InvalidInput, match="TCGA-BRCA"):
        client.cases(project)


@pytest.mark.parametrize(
    "url", ["http://api.example.org", "ftp://x", "https://user:pw@host", "https://", "https://h/?a=b"]
)
def test_only_https_or_this_machine_is_asked(url):
    with pytest.raises(InvalidInput, match="https"):
        GdcClient(url)


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451])
def test_one_file_that_the_server_does_not_give_stands_in_nobodys_way(server, client, tmp_path, status):
    for number in range(3):
        server.publish(number)
    server.withheld = {server.files[1]["file_id"]: status}
    for _ in range(2):
        done = fetch_project(client, PROJECT, tmp_path)
        assert (done.files, done.refused) == (2, (server.files[1]["file_name"],))
    [read] = read_gdc(tmp_path / PROJECT)
    assert len(read.abundance) == 2
    assert "1 files were refused by the server and are not there" in read.notes
    server.withheld = {}
    assert fetch_project(client, PROJECT, tmp_path).files == 3
    assert len(read_gdc(tmp_path / PROJECT)[0].abundance) == 3


def test_a_project_with_a_file_that_differs_from_its_md5_brings_the_others_and_says_so(server, tmp_path):
    from orchestrator.cli.data import app

    for number in range(2):
        server.publish(number)
    file_id = server.files[0]["file_id"]
    server.bodies[file_id] = server.bodies[file_id].replace(b"TP53", b"TP35", 1)
    result = CliRunner().invoke(app, ["fetch", str(tmp_path), "--project", PROJECT, "--url", server.url, "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["projects"][0]["refused"] == [server.files[0]["file_name"]]


def test_the_command_downloads_and_names_the_next_step(server, tmp_path):
    from orchestrator.cli.data import app

    server.publish(1)
    arguments = ["fetch", str(tmp_path / "gdc"), "--project", PROJECT, "--url", server.url, "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    [project] = json.loads(result.stdout)["projects"]
    assert (project["project"], project["cases"], project["files"]) == (PROJECT, 1, 1)
    assert "tessera convert" in result.stderr
    listed = json.loads((tmp_path / "gdc" / PROJECT / "files.json").read_text())
    assert next((tmp_path / "gdc").rglob("*.tsv")).read_bytes() == star_counts(1)
    assert listed[0]["sample"] == "TCGA-BH-A001-01A"
