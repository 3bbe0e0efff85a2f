"""Claims about `zolite data check`: what it says of rows is what training makes of them."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from zolite.cli.main import app
from zolite.common.errors import ZoliteError
from zolite.config.recipe import DataPart
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.in_place import INSIDE
from zolite.data.preview import BINS, binned, report

Folder = Callable[..., Path]
KINDS = ("label", "completion", "messages")


@pytest.mark.parametrize("kind", KINDS)
def test_it_counts_what_training_reads(kind: str, folder: Folder, tiny: Path, tokenizer: Any) -> None:
    """The longest row, the most asked for in one, and the rows of each split are those of the encoded rows."""
    where = folder(kind)
    found = report(where, DataPart.template, str(tiny), tokenizer)
    dataset = tables.load(where, DataPart.template)
    examples = [
        example
        for rows in dataset.splits.values()
        for example in encode(rows, dataset.kind, dataset.labels, tokenizer, DataPart.template, 10**6).examples
    ]
    assert found.kind == kind and found.rows == {split: len(rows) for split, rows in dataset.splits.items()}
    assert found.tokens == max(len(s) for e in examples for s in e.sequences) + 1
    assert found.positions == max(len({(q.sequence, q.position) for q in e.queries}) for e in examples)
    assert sum(each.rows for each in found.lengths) == len(examples)
    assert found.counted == str(tiny)


@pytest.mark.parametrize("kind", KINDS)
def test_first_rows(kind: str, folder: Folder, tiny: Path, tokenizer: Any) -> None:
    """The first rows are whole, and what is trained of them is the answer alone."""
    where = folder(kind)
    lines = [json.loads(line) for line in (where / "train.jsonl").read_text().splitlines()]
    for shown in (report(where, DataPart.template), report(where, DataPart.template, str(tiny), tokenizer)):
        for row in shown.first:
            trained = "".join(piece.text for piece in row.pieces if piece.trained)
            record = lines[row.line - 1]
            answers = {
                "label": [record.get("label")],
                "completion": [record.get("completion")],
                "messages": [m["content"] for m in record.get("messages", ()) if m["role"] == "assistant"],
            }[kind]
            assert all(str(answer).strip() in trained for answer in answers)
            assert "Say" not in trained and "Category" not in trained and "user" not in trained


def test_what_becomes_of_borders_is_told(tmp_path: Path, tiny: Path, tokenizer: Any) -> None:
    """Prompts that end within a token are told once, with the first of them, by the command too."""
    rows = [{"prompt": f"Say {i}:{' ' * (i % 2)}", "completion": "yes" if i % 2 else " yes"} for i in range(30)]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    held, note = report(path, DataPart.template, str(tiny), tokenizer).notes
    assert (
        held == "dev: 3 of 30 rows held out of train.jsonl"
        and note.startswith("train: in 13 of 27 rows, line ")
        and note.endswith(f" first, {INSIDE}")
    )
    assert f"· {note}" in CliRunner().invoke(app, ["data", "check", str(path), "--model", str(tiny)]).stdout
    assert report(path, DataPart.template).notes == (held,)


def test_problems_have_their_lines(folder: Folder) -> None:
    """Every problem comes with file and line, and nothing is counted."""
    where = folder()
    with (where / "train.jsonl").open("a") as file:
        file.write('nonsense\n{"text": "a"}\n')
    found = report(where, DataPart.template)
    assert len(found.problems) == 2 and all("train.jsonl: line 2" in problem for problem in found.problems)
    assert (found.tokens, found.first, found.lengths) == (0, (), ())


def test_a_model_that_is_not_there_is_no_fault_of_the_rows(folder: Folder) -> None:
    """Without a tokenizer it is an error, not a problem of the data."""
    result = CliRunner().invoke(app, ["data", "check", str(folder()), "--model", "./nowhere"])
    assert isinstance(result.exception, ZoliteError) and "nowhere" in result.exception.message


@pytest.mark.parametrize("longest", [1, 7, 8, 95, 96, 97, 5000])
def test_bins(longest: int) -> None:
    """Bins are of one width, a multiple of 8, hold every row once and end at the longest."""
    lengths = sorted({1, longest // 2 or 1, longest})
    bins = binned(lengths)
    width = bins[0].upto
    assert width % 8 == 0 and [each.upto for each in bins] == [width * (i + 1) for i in range(len(bins))]
    assert len(bins) <= BINS and sum(each.rows for each in bins) == len(lengths)
    assert bins[-1].rows >= 1 and bins[-1].upto >= longest


def test_the_command(folder: Folder) -> None:
    """`--json` is the report and the exit code says whether the rows can be used; else it is told in lines."""
    where = folder()
    done = CliRunner().invoke(app, ["data", "check", str(where), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads(json.dumps(asdict(report(where, DataPart.template))))
    assert "⟦ yes⟧" in CliRunner().invoke(app, ["data", "check", str(where)]).stdout
    (where / "train.jsonl").write_text("nonsense\n")
    assert CliRunner().invoke(app, ["data", "check", str(where), "--json"]).exit_code == 2
