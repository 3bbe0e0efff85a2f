"""Claims about `zolite data check --fix`: what it leaves out and joins is what it says, and the copy can be used."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from zolite.cli.main import app
from zolite.common.errors import UsageError
from zolite.config.recipe import DataPart
from zolite.data import preview
from zolite.data.repairs import repair
from zolite.data.rows import load


def jsonl(path: Path, rows: Sequence[Any]) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def row(i: int, label: str, **more: Any) -> dict[str, Any]:
    return {"text": f"message {i} says {['ox', 'river', 'blue', 'warm'][i % 4]}", "label": label, **more}


def test_one_file(tmp_path: Path) -> None:
    """Faulty, blank and repeated rows go, labels get one spelling, every other column stays, and all of it is said."""
    sound = [row(i, "spam" if i % 2 else "ham", id=i) for i in range(12)]
    odd = [row(20, "spam\u200b"), row(21, "Spam"), row(22, "\u200b"), row(23, "  "), "nonsense", {"text": "a"}]
    path = jsonl(tmp_path / "d.jsonl", [*sound, *odd, sound[3]])
    assert preview.report(path, DataPart.template).problems
    out = tmp_path / "out.jsonl"
    done = repair(DataPart(str(path)), out)
    expected = [*sound, row(20, "spam"), row(21, "spam")]
    assert read(out) == expected and done.files == {str(out): 14}
    said = "\n".join(done.done)
    assert "3 rows that are faulty or blank left out: d.jsonl: line 16, d.jsonl: line 17, d.jsonl: line 18" in said
    assert "1 row that equal an earlier one left out: d.jsonl: line 19" in said and "whose label cannot be seen" in said
    assert "'Spam' (1 row) as 'spam'" in said and "'spam\\u200b' (1 row) as 'spam'" in said
    found = preview.report(out, DataPart.template)
    assert found.sound and not found.warnings and set(found.labels) == {"ham", "spam"}


def test_a_folder(tmp_path: Path) -> None:
    """Train loses what dev or test has too, dev loses labels that train has not, and keeps those that look alike."""
    folder = tmp_path / "d"
    folder.mkdir()
    train = [row(i, "ab"[i % 2]) for i in range(10)]
    jsonl(folder / "train.jsonl", train)
    (folder / "dev.csv").write_text("text,label\nOne more.,A\nMESSAGE 3 says warm!,b\nand another,c\n")
    jsonl(folder / "test.jsonl", [row(30, "a")])
    out = tmp_path / "out"
    done = repair(DataPart(str(folder)), out)
    assert read(out / "train.jsonl") == [each for i, each in enumerate(train) if i != 3]
    assert [each["label"] for each in read(out / "dev.jsonl")] == ["a", "b"] and len(read(out / "test.jsonl")) == 1
    said = "\n".join(done.done)
    assert "1 row of train that dev or test has too left out: train.jsonl: line 4" in said
    assert "with a label that train does not have left out: dev.csv: line 4" in said
    assert load(out, DataPart.template).labels == ("a", "b")
    assert not preview.report(out, DataPart.template).warnings


def test_nothing_to_repair(tmp_path: Path) -> None:
    """Sound rows are written as they are, and nothing is said to be done."""
    rows = [row(i, "ab"[i % 2], more=[i, None]) for i in range(8)]
    done = repair(DataPart(str(jsonl(tmp_path / "d.jsonl", rows))), tmp_path / "out.jsonl")
    assert done.done == () and read(tmp_path / "out.jsonl") == rows


def test_a_spreadsheet_stays_one(tmp_path: Path) -> None:
    """A .csv keeps its columns, their order and cells of several lines."""
    (tmp_path / "d.csv").write_text('label,id,text\na,1,"two\nlines, and ""quotes"""\nb,2,x\n\na,3\nb,4,y\n')
    repair(DataPart(str(tmp_path / "d.csv")), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.reader(file))
    assert cells == [["label", "id", "text"], ["a", "1", 'two\nlines, and "quotes"'], ["b", "2", "x"], ["b", "4", "y"]]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    """What exists is not replaced, and a name that does not fit the number of files is refused; nothing is left."""
    path = jsonl(tmp_path / "d.jsonl", [row(i, "ab"[i % 2], nested=[1]) for i in range(8)])
    for out, what in (
        (path, "exists already"),
        (tmp_path / "no/out.jsonl", "no folder"),
        (tmp_path / "out", "in one file"),
    ):
        with pytest.raises(UsageError, match=what):
            repair(DataPart(str(path)), out)
    with pytest.raises(UsageError, match="holds no list"):
        repair(DataPart(str(path)), tmp_path / "out.csv")
    (tmp_path / "two").mkdir()
    for split in ("train", "dev"):
        jsonl(tmp_path / f"two/{split}.jsonl", [row(i, "ab"[i % 2]) for i in range(8)])
    with pytest.raises(UsageError, match="in 2 files"):
        repair(DataPart(str(tmp_path / "two")), tmp_path / "out.jsonl")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["d.jsonl", "two"]


def test_the_command(tmp_path: Path) -> None:
    """It says what was written and done, and its copy passes the check that the first one did not."""
    path = jsonl(tmp_path / "d.jsonl", [*(row(i, "ab"[i % 2]) for i in range(8)), "nonsense"])
    out = tmp_path / "out.jsonl"
    assert CliRunner().invoke(app, ["data", "check", str(path), "--json"]).exit_code == 2
    done = CliRunner().invoke(app, ["data", "check", str(path), "--fix", str(out)])
    assert done.exit_code == 0 and f"written: {out}, 8 rows" in done.stdout and "faulty or blank" in done.stdout
    assert CliRunner().invoke(app, ["data", "check", str(out), "--json"]).exit_code == 0
