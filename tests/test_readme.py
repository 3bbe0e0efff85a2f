"""Claim: every command in the README and the other guides is one that zolite has, with options that it takes."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from zolite.cli import main

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/api.md", "docs/architecture.md", "docs/glossary.md", "docs/store.md")
CODE = re.compile(r"`([^`\n]+)`|^((?:uv run )?zolite .*)$", re.MULTILINE)
BEGINS = re.compile(r"^(uv run (--extra \S+ )?)?zolite(?= |$)")


def commands(text: str) -> Iterator[str]:
    """What follows `zolite` in each piece of code that begins with it; … stands for any word."""
    for match in CODE.finditer(text):
        code = (match.group(1) or match.group(2)).partition(" #")[0].strip()
        if BEGINS.match(code) and not code.startswith("zolite/"):
            yield BEGINS.sub("", code).strip().replace("…", "word")


FOUND = sorted({(name, command) for name in DOCUMENTS for command in commands((REPOSITORY / name).read_text("utf-8"))})


def parsed(command: str) -> None:
    """Raises where a command, or one of its options, is not there; runs nothing."""
    found, words = typer.main.get_command(main.app), shlex.split(command)
    while words and words[0] in getattr(found, "commands", {}):
        found = found.commands[words.pop(0)]  # type: ignore[attr-defined]
    if hasattr(found, "commands") and words and not words[0].startswith("-"):
        raise LookupError(f"no command {words[0]}")
    if words:
        found.make_context(found.name, words)


@pytest.mark.parametrize(("document", "command"), FOUND)
def test_commands_are_as_written(document: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "_serve", lambda wanted: None)  # which acts while it is parsed
    try:
        parsed(command)
    except typer.Exit as end:  # --help and --version, which act while they are parsed
        if end.exit_code:
            raise
    except typer.TyperException as error:  # `zolite resume` and `zolite train --set` are names in a sentence
        if not re.search("Missing|requires an argument", str(error)):
            raise


def test_the_guides_name_files_that_are_there() -> None:
    """docs/architecture.md sends nobody to a file that is not."""
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.])((?:zolite|tui|docs|tests|profiles|examples|benchmarks)/[\w./-]*\w)", text))
    invented = {"zolite/export/arrays.py", "tui/screens/NAME.py"}
    missing = {name for name in named - invented if not (REPOSITORY / name).exists()}
    assert len(named) > 30 and missing == set()


def test_more_than_a_few_commands_are_seen() -> None:
    assert len(FOUND) > 40 and ("README.md", "demo") in FOUND


def test_a_command_that_is_not_there_is_noticed() -> None:
    with pytest.raises(typer.TyperException, match="No such option: --stepps"):
        parsed("train MODEL --data rows --stepps 3")
    with pytest.raises(LookupError, match="no command explode"):
        parsed("sessions explode first")
