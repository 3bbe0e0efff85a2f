"""Claims about files that fit no shape of rows: what is said leads on."""

import csv
import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from zolite.cli.main import app
from zolite.common.errors import UsageError
from zolite.config.recipe import DataPart
from zolite.data.no_shape import NoShapeError
from zolite.data.rows import load

LABELS = ("Billing", "Returns", "Other")


def refusal(path: Path, columns: list[str], rows: list[list[str]]) -> NoShapeError:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    with pytest.raises(NoShapeError) as caught:
        load(path, DataPart.template)
    return caught.value


def ticket(i: int) -> str:
    return f"a message about parcel {i} that has not arrived"


names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)


@settings(deadline=None, max_examples=10)
@given(names, names, st.booleans())
def test_the_command_reads_the_file(
    tmp_path_factory: pytest.TempPathFactory, text: str, label: str, turned: bool
) -> None:
    """Copied as it stands, it reads a file whatever its columns are called."""
    folder = tmp_path_factory.mktemp("an odd 'folder'")
    columns, rows = [f"{label} (1)", f"{text} (2)"], [[LABELS[i % 3], ticket(i)] for i in range(30)]
    if turned:
        columns, rows = columns[::-1], [row[::-1] for row in rows]
    error = refusal(folder / "t.csv", columns, rows)
    program, *arguments = shlex.split(error.hint)
    assert program == "zolite"
    done = CliRunner().invoke(app, [*arguments, "--json"])
    found = json.loads(done.stdout)
    assert (found["kind"], set(found["labels"])) == ("label", set(LABELS)), done.output


def test_columns_are_shown_with_a_value_each(tmp_path: Path) -> None:
    """In one line, shortened, without what a terminal would take for orders."""
    rows = [["", "Billing", "\x1b[31mred\a\ntext " + "x" * 200], ["7", "Returns", ticket(1)]]
    error = refusal(tmp_path / "t.csv", ["No.", "Dept", "Body"], rows)
    assert "'No.': 7" in error.message and "'Dept': Billing" in error.message
    (shown,) = [line for line in error.message.splitlines() if "'Body'" in line]
    assert shown.strip().startswith("'Body': [31mred text xxx") and shown.endswith(" …") and len(shown) < 90
    assert (
        list(error.examples) == ["No.", "Dept", "Body"]
        and "the nearest shapes need label: text + label" in error.message
    )


def test_several_texts_make_a_template(tmp_path: Path) -> None:
    """Two sentences and a label are a template of both."""
    rows = [[ticket(i), ticket(i + 1), LABELS[i % 3]] for i in range(12)]
    error = refusal(tmp_path / "t.csv", ["premise", "hypothesis", "verdict"], rows)
    assert error.guess == {"template": "{premise}\\n{hypothesis}\\nAnswer: {label}", "columns": "label=verdict"}


def test_texts_without_a_label_are_prompts_or_text(tmp_path: Path) -> None:
    """Two of them are a prompt and its completion, one is plain text."""
    two = refusal(tmp_path / "t.csv", ["Frage", "Antwort"], [[ticket(i), ticket(i + 9)] for i in range(9)])
    assert two.guess == {"columns": "prompt=Frage,completion=Antwort"}
    one = refusal(tmp_path / "t.csv", ["Eintrag"], [[ticket(i)] for i in range(9)])
    assert one.guess == {"columns": "text=Eintrag"}


def test_a_file_without_columns_has_no_guess(tmp_path: Path) -> None:
    """The hint says where shapes are shown."""
    file = tmp_path / "t.jsonl"
    file.write_text("{}\n{}\n")
    with pytest.raises(UsageError) as caught:
        load(file, DataPart.template)
    assert "docs/rows.md" in caught.value.hint
