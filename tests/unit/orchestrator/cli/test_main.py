"""The command line: one clear line and the right exit code for bad input, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
import typst
from support.tables import write_tables
from typer.main import get_command

from datasites.data.synthetic import SyntheticShape, generate
from datasites.node.credentials.signed_pdf import sign_pdf
from orchestrator.cli import main
from orchestrator.demo import demo as _demo  # noqa: F401  a library of its tries a socket when it is imported
from privacy.identity import Identity, fingerprint


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``tessera ARGUMENTS`` in this process; return exit code, standard output and error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tessera", *map(str, arguments)])
        umask = os.umask(0o022)
        try:
            with pytest.raises(SystemExit) as ended:
                main.main()
        finally:
            os.umask(umask)  # the commands set their own
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def tables(tmp_path):
    """A small folder of cohort tables in the real form."""
    folder = tmp_path / "tables"
    write_tables(
        generate(
            seed=1, shape=SyntheticShape(genes=12, image_features=8, patients={"BRCA": 60, "LUSC": 60, "LIHC": 60})
        ),
        folder,
    )
    return folder


def one_line(err: str) -> str:
    text = " ".join(err.split())
    assert "Traceback" not in text
    assert text.count("error:") <= 1
    return text


def commands(group, *before):
    """Yield every command of a group with the words that name it."""
    for name, command in group.commands.items():
        yield (*before, name), command
        if hasattr(command, "commands"):
            yield from commands(command, *before, name)


def test_the_part_of_the_command_line_that_is_built_is_that_of_the_whole():
    whole = list(commands(get_command(main.app)))
    assert len(whole) > 80
    for words, command in whole:
        part = get_command(main.named_part(main.app, [*words, "--json"]))
        found = dict(commands(part))
        assert [p.opts for p in found[words].params] == [p.opts for p in command.params], words
        assert found[words].help == command.help
        if not hasattr(command, "commands"):
            assert len([known for known, one in found.items() if not hasattr(one, "commands")]) == 1
    for words in ([], ["--help"], ["nothing"]):
        assert main.named_part(main.app, words) is None
    every = {name for words, _ in whole if words[0] == "datasite" for name in words[1:]}
    for words in (["datasite"], ["datasite", "--help"], ["datasite", "runn"]):
        shown = dict(commands(get_command(main.named_part(main.app, words))))
        assert {name for words in shown for name in words[1:]} == every


BAD_NAMES = ["bad name!", "-a", "a/b", "x" * 81, "stüdy"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("command", ["propose", "study run", "analytics counts --name"])
def test_a_bad_study_name_is_refused_before_anything_is_asked(run, tmp_path, command, name):
    words = [*command.split(), "--home", tmp_path / "none"]
    code, _, err = run(*words[:-3], f"--name={name}", *words[-2:]) if "--name" in words else run(*words, "--", name)
    assert (code, "expected a study's name" in one_line(err)) == (2, True), err


def test_every_command_that_is_printed_with_somebodys_path_can_be_pasted():
    """A path or name that goes into a printed command is quoted, whatever is in it."""
    root = Path(main.__file__).parents[2]
    sources = [path for package in ("datasites", "orchestrator", "tessera") for path in (root / package).rglob("*.py")]
    lines = [(path.name, line) for path in sources for line in path.read_text().splitlines()]
    unquoted = [
        f"{name}: {part}"
        for name, line in lines
        for part in re.findall(r"\{([^}]*)", line.partition("tessera ")[2].partition("`")[0])
        if re.fullmatch(r"(self\.|str\()?[a-z_.]*(home|path|folder|out|tables)(\[0\])?", part)
    ]
    assert unquoted == []


def test_ingest_writes_one_dataset_per_institution(run, tables, tmp_path):
    code, out, _ = run("datasite", "ingest", tables, "--out", tmp_path / "out", "--json")
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert len(result["sites"]) == 9
    assert (tmp_path / "out" / "sites" / result["sites"][0]["name"] / "schema.json").exists()


@pytest.fixture
def cold(monkeypatch):
    """No process that imports for roles is started: nothing gets as far as a role."""
    monkeypatch.setattr("orchestrator.demo.processes.warm_start", nullcontext)


@pytest.mark.usefixtures("cold")
def test_an_unknown_federation_is_refused(run, tables, tmp_path):
    code, _, err = run("demo", "--data", tables, "--federation", "quadri-modal", "--out", tmp_path / "demo")
    assert code == 2
    assert "unknown federation 'quadri-modal': expected one of tri-modal" in one_line(err)
    assert not (tmp_path / "demo").exists() or not any((tmp_path / "demo").iterdir())


def test_an_empty_folder_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = run("datasite", "ingest", tmp_path / "empty", "--out", tmp_path / "out")
    assert code == 2
    assert "expected" in one_line(err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.rename(columns={"case_id": "patient"}), "case_id"),
        (lambda t: pd.concat([t, t.head(2)]), "every case once"),
        (lambda t: t.assign(**{t.columns[1]: t[t.columns[1]].astype(object).where(t.index != 3, "high")}), "number"),
    ],
    ids=["no case_id", "duplicate cases", "a non-numeric gene"],
)
def test_a_malformed_gene_table_is_refused(run, tables, tmp_path, change, message):
    path = next((tables / "BRCA").glob("mrna.*"))
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    changed = change(table)
    path.unlink()
    changed.to_csv(tables / "BRCA" / "mrna.csv", index=False)
    code, _, err = run("datasite", "ingest", tables, "--out", tmp_path / "out")
    assert code == 2
    assert message in one_line(err)
    assert "TCGA-" not in err and "SYN-" not in err  # no patient id
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("cold")
@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--rounds", "0"),
        ("demo", "--sites", "2"),
        ("demo", "--noise", "loud"),
        ("demo", "--epsilon", "-1"),
        ("demo", "--task", "IX"),
        ("dance",),
        ("datasite", "run"),
    ],
)
def test_bad_options_are_usage_errors(run, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    one_line(err)
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("cold")
def test_an_output_folder_with_something_in_it_is_refused(run, tmp_path):
    (tmp_path / "precious").write_text("data")
    code, _, err = run("demo", "--out", tmp_path)
    assert code == 2
    assert "empty or new folder" in one_line(err)
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_a_folder_that_is_no_home_is_refused(run, tmp_path):
    code, _, err = run("datasite", "run", "--home", tmp_path)
    assert code == 2
    assert "expected a Tessera home" in one_line(err)


def test_init_shows_the_public_key_and_its_fingerprint(run, tmp_path):
    code, out, _ = run("keyholder", "init", "--home", tmp_path / "k", "--orchestrator-url", "http://127.0.0.1:1")
    shown = json.loads(out)
    assert code == 0
    assert len(shown["public_key"]) == 64
    assert len(shown["fingerprint"].split("-")) == 8


def test_verify_finds_nothing_in_an_empty_folder_and_says_so(run, tmp_path):
    code, out, _ = run("verify", tmp_path, "--json")
    assert code == 1
    assert json.loads(out)["ok"] is False


def test_verify_checks_the_signature_of_a_reports_pdf(run, tmp_path):
    identity = Identity.from_seed(b"a" * 32)
    document = typst.compile(b'#set document(title: "Report")\n= A report')
    path = tmp_path / "report.pdf"
    path.write_bytes(sign_pdf(document, identity, name="alba", institution="Hospital Alba", reason="Report 1"))
    code, out, _ = run("verify", path, "--json", "--fingerprint", fingerprint(identity.public_key))
    shown = json.loads(out.splitlines()[-1])
    assert (code, shown["ok"], shown["signature"]["institution"]) == (0, True, "Hospital Alba")
    code, _, err = run("verify", path, "--fingerprint", "0000-" * 7 + "0000")
    assert code == 1 and "not with the one you expected" in one_line(err)
    changed = bytearray(path.read_bytes())
    changed[len(document) // 2] ^= 1
    path.write_bytes(changed)
    code, _, err = run("verify", path)
    assert code == 1 and "ask its author for it again" in one_line(err)
    path.write_bytes(document)
    code, _, err = run("verify", path)
    assert code == 1 and "without a signature" in one_line(err)


@pytest.mark.parametrize("role", ["datasite", "keyholder"])
def test_a_gap_that_is_not_there_cannot_be_imported(run, tmp_path, role):
    home = tmp_path / "home"
    options = ["--institution", "Somebody"] if role == "keyholder" else ["--name", "a", "--institution", "A"]
    assert run(role, "init", "--home", home, "--orchestrator-url", "http://127.0.0.1:9", *options)[0] == 0
    code, _, err = run(role, "import-gap", "--home", home, "--by", "A. Person", "--reason", "the disk failed")
    assert code == 2
    assert "no gap to import" in one_line(err)


def test_a_user_without_an_account_and_home_can_run_commands(run, tmp_path, monkeypatch):
    def nobody(*_):
        raise KeyError("uid not found")

    monkeypatch.setenv("HOME", "before")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    code, out, _ = run("keyholder", "init", "--home", tmp_path / "k", "--orchestrator-url", "http://127.0.0.1:1")
    assert code == 0 and json.loads(out)["role"] == "keyholder"
    assert os.environ["HOME"] == "/nonexistent"


def test_a_mistake_of_our_own_is_one_line_and_says_where(run, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a record: 42")

    monkeypatch.setattr(main, "named_part", lambda *_: None)
    monkeypatch.setattr(main, "app", broken)
    code, _, err = run("doctor")
    assert code == 1 and "ZeroDivisionError in test_main.py" in one_line(err) and "42" not in err
    monkeypatch.setattr(main, "app", lambda **_: open("/does/not/exist"))  # noqa: PTH123, SIM115
    code, _, err = run("doctor")
    assert code == 1 and "no such file or directory (/does/not/exist)" in one_line(err)
