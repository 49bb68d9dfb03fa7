"""What our documents tell people to type exists: commands, options, targets, files; the cheap ones are run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FOLDERS = "datasites|orchestrator|privacy|models|tests|benchmarks|docs|docker"
OUTSIDE = ("../",)  # data beside the repository


def lines(page: Path) -> list[str]:
    """Every fenced or indented line (continued ones joined) and every span of code in the text."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    prose = re.sub(r"```\w*\n.*?```", "", text, flags=re.DOTALL)
    indented = [line for line in prose.splitlines() if line.startswith("    ")]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    return [line.strip() for block in blocks for line in block.splitlines()] + [s.strip() for s in indented] + spans


def commands(page: Path, word: str) -> Iterator[list[str]]:
    """The arguments of every line that begins with ``word``, without comment and redirection."""
    for line in lines(page):
        line = re.sub(r"^docker compose run --rm \w+ ", "tessera ", line)
        line = re.sub(r"^([A-Z_]+=\S+ |\.venv/bin/)+", "", line)
        if line.startswith(f"{word} "):
            words = re.split(r"\s[>|;]\s|\s#|\s&&\s", line.replace("[", "").replace("]", ""))[0]
            yield shlex.split(words)[1:]


def everything(word: str) -> list[tuple[str, list[str]]]:
    return [(page.relative_to(ROOT).as_posix(), found) for page in PAGES for found in commands(page, word)]


def children(command: Any) -> dict[str, Any]:
    return getattr(command, "commands", {})


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """Walk down to the command that ``words`` name; return it and what is left for it."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while children(command) and rest and not rest[0].startswith("-"):
        assert rest[0] in children(command), f"there is no {rest[0]!r} among {sorted(children(command))}"
        command = children(command)[rest.pop(0)]
    return command, rest


def check(words: list[str]) -> None:
    command, rest = resolve(words)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = [word.split("=")[0] for word in rest if word.startswith("-")]
    assert not children(command) or not rest or set(rest) <= {"--help"}
    for option in given:
        assert option == "--help" or option in known, f"{option} is no option of {command.name}"
    wanted = [p for p in command.params if p.param_type_name == "argument" and p.required]
    if given and not rest[0].startswith("-"):  # somebody is to type this line, not only to know its name
        assert len(wanted) <= len([w for w in rest if not w.startswith("-")])
    if len(rest) > len(given) and rest[0].startswith("-") and wanted:
        values = sum(not getattr(p, "is_flag", False) for p in command.params for o in given if o in p.opts)
        assert len(rest) - len(given) - values >= len(wanted), f"{wanted[0].name} is missing"


def shown(value: str | list[str]) -> str:
    return value if isinstance(value, str) else " ".join(value)[:70]


@pytest.mark.parametrize(("page", "words"), everything("tessera"), ids=shown)
def test_every_command_and_option_exists(page: str, words: list[str]) -> None:
    check([word for word in words if word != "..."])


def test_a_wrong_command_option_or_a_missing_argument_would_be_found() -> None:
    for words in (["bake"], ["datasite", "bake"], ["demo", "--fast"], ["datasite", "ingest", "--out", "DIR"]):
        with pytest.raises(AssertionError):
            check(words)
    assert len(everything("tessera")) > 40 and len(everything("make")) >= 4


@pytest.mark.parametrize(("page", "words"), everything("make"), ids=shown)
def test_every_target_exists_and_would_run(page: str, words: list[str]) -> None:
    done = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize(("page", "words"), everything("python"), ids=shown)
def test_every_script_exists_with_its_options(page: str, words: list[str]) -> None:
    if words[0] == "-m":
        assert find_spec(words[1]) is not None
        return
    if words[0].startswith("-"):
        return
    source = (ROOT / words[0]).read_text()
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert f'"{option}"' in source, f"{option} is no option of {words[0]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./-]+\.(?:py|md|toml|json|yaml))\b", page.read_text())
    missing = [n for n in set(named) if not (ROOT / n).exists() and not (ROOT / "tests" / n).exists()]
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    missing += [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_every_command_shows_its_help() -> None:
    def below(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, child in children(command).items():
            yield from below(child, (*path, name))

    for path in below(typer.main.get_command(app), ()):
        result = CliRunner().invoke(app, [*path, "--help"])
        assert result.exit_code == 0 and "Usage" in result.output, path


def test_the_parties_of_the_deployment_guide_make_their_folders_and_one_roster(tmp_path, monkeypatch) -> None:
    """Types the guide's lines as they stand, each party with a folder of its own."""
    monkeypatch.chdir(tmp_path)
    guide = [line for line in lines(ROOT / "docs" / "deploy.md") if re.match(r"tessera (\w+ init|roster) .*--", line)]
    inits, roster = [g for g in guide if " init " in g and " > " in g], next(g for g in guide if " roster " in f" {g}")
    for number, line in enumerate(inits):
        typed, _, target = line.partition(" > ")
        typed = typed.replace("/var/lib/tessera/", f"{tmp_path / str(number)}/")
        result = CliRunner().invoke(app, shlex.split(typed)[1:])
        assert result.exit_code == 0, result.output
        Path(target.strip()).write_text(result.stdout)
    party = json.loads(Path("hospital-a.json").read_text())
    for name in ("hospital-b", "hospital-c", "helper-b"):  # the guide makes one of each; the others do the same
        first = f"{name.partition('-')[0]}-a"
        line = next(line for line in inits if line.endswith(f"{first}.json"))
        made = line.partition(" > ")[0].replace(first, name).replace("Hospital A", name)
        made = made.replace("/var/lib/tessera/", f"{tmp_path / name}/")
        Path(f"{name}.json").write_text(CliRunner().invoke(app, shlex.split(made)[1:]).stdout)
    command = roster.replace("/var/lib/tessera/", f"{tmp_path / '0'}/")
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    written = (tmp_path / "0" / "home" / "roster.json").read_text()
    assert party["public_key"] in written
    checked = CliRunner().invoke(app, ["verify", str(tmp_path / "0" / "home")])
    assert checked.exit_code in (0, 1) and "Traceback" not in checked.output
