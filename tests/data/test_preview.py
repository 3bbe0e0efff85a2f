"""Claims about `zolite data check`: what it says of rows is what training makes of them."""

import io
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from zolite.cli import data
from zolite.cli.main import app
from zolite.common import progress
from zolite.common.errors import ZoliteError
from zolite.common.events import Working
from zolite.config.recipe import DataPart
from zolite.data import preview
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.in_place import INSIDE
from zolite.data.preview import BINS, Coder, Report, binned, report
from zolite.data.readers import registry

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


# ---- what is likely wrong


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def completions(*lengths: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{i} " + "x" * length, "completion": "yes"} for i, length in enumerate(lengths)]


def of(path: Path, tokenizer: Any, context: int = 512, **limits: Any) -> Report:
    return preview.of(DataPart(str(path), context=context), Coder("m", tokenizer, **limits))


def test_all_problems_are_counted(tmp_path: Path) -> None:
    """The first twenty are in the report, with the number of all of them."""
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' * 3 + "nonsense\n" * 47)
    found = report(path, DataPart.template)
    assert (found.sound, len(found.problems), found.faults, found.schema) == (False, 20, 47, 2)
    assert str(found.error).endswith("… and 27 more") and "--fix OUT" in found.hint
    done = CliRunner().invoke(app, ["data", "check", str(path)])
    assert isinstance(done.exception, ZoliteError) and "… and 27 more" in done.exception.message


@pytest.mark.parametrize("kind", ["completion", "label"])
def test_the_context(tmp_path: Path, tokenizer: Any, kind: str) -> None:
    """What is cut, and what train refuses, is what training makes of the rows at that context."""
    rows = completions(*range(0, 60, 3))
    if kind == "label":
        rows = [{"text": row["prompt"], "label": ("yes", "no")[i % 2]} for i, row in enumerate(rows)]
    path, context = written(tmp_path / "d.jsonl", rows), 40
    found = of(path, tokenizer, context)
    dataset = tables.load(path, DataPart.template)
    refused, cut = 0, 0
    for split in dataset.splits.values():
        for row in split:
            try:
                cut += encode([row], kind, dataset.labels, tokenizer, DataPart.template, context).cut
            except ZoliteError:
                refused += 1
    assert refused > 0 and (found.masked, found.cut - found.masked) == (refused, cut)
    assert any(f"{refused} rows without an answer in the context of 40 tokens" in text for text in found.warnings)
    assert not of(path, tokenizer, 512).warnings


def test_the_longest_rows_and_the_majority(tmp_path: Path, tokenizer: Any) -> None:
    """The longest come first with their lines, labels with most rows first, and the share of the commonest."""
    rows = [{"text": "x" * (i * 7 % 41) + str(i), "label": "ab"[i % 4 == 0]} for i in range(40)]
    for split in ("train", "dev"):
        written(tmp_path / f"{split}.jsonl", rows[: 40 if split == "train" else 2])
    found = of(tmp_path, tokenizer)
    longest = max(range(40), key=lambda i: len(rows[i]["text"])) + 1
    assert found.longest[0].line == longest and found.longest[0].tokens == found.tokens
    assert [each.tokens for each in found.longest] == sorted((e.tokens for e in found.longest), reverse=True)
    assert list(found.labels.items()) == [("a", 30), ("b", 10)] and found.majority == 0.75


@pytest.mark.parametrize("learned", [True, False])
def test_rows_beyond_the_positions_of_a_model(tmp_path: Path, tokenizer: Any, learned: bool) -> None:
    """Are a problem where positions are learned and the context lets them through, and else a warning."""
    path = written(tmp_path / "d.jsonl", completions(*[3] * 20, 200))
    found = of(path, tokenizer, positions=64, learned=learned)
    if learned:
        assert found.faults == 1 and "line 21: " in found.problems[0] and "64 positions" in found.problems[0]
        found = of(path, tokenizer, context=64, positions=64, learned=True)
    assert found.sound
    assert any(text.startswith("1 row of more tokens than the 64 that m was made for") for text in found.warnings)


def test_a_token_beyond_the_table_far_behind(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is found in rows too whose tokens are not counted."""
    monkeypatch.setattr(preview, "MOST", 5)
    rows = completions(*[2] * 33)
    rows[17]["prompt"] += "<|im_end|>"
    path = written(tmp_path / "train.jsonl", rows)
    written(tmp_path / "dev.jsonl", completions(1, 2))
    found = of(path.parent, tokenizer)
    assert found.sampled < 35 and found.sound
    last = tokenizer.convert_tokens_to_ids("<|im_end|>")
    monkeypatch.setattr(tokenizer, "eos_token_id", 3, raising=False)
    found = of(path.parent, tokenizer, table=last)
    assert not found.sound and any("line 18: token" in problem for problem in found.problems)


def test_what_is_there_twice_is_told(tmp_path: Path) -> None:
    """Copies, leaks and labels that look alike are warnings, and the rows can be used all the same."""
    rows = [{"text": f"text {i} of its own kind {i}", "label": ("yes", "no", "No")[i % 3]} for i in range(30)]
    written(tmp_path / "train.jsonl", [*rows, rows[0]])
    written(tmp_path / "dev.jsonl", [rows[4], {"text": "another one", "label": "no"}])
    found = report(tmp_path, DataPart.template)
    assert found.sound and found.leakage is not None
    assert found.leakage.copies == 1 and [leak.same for leak in found.leakage.leaks] == [1]
    said = "\n".join(found.warnings)
    assert "look alike" in said and "leakage: 1 of 2 dev rows" in said and "1 row of train the same" in said
    shown = CliRunner().invoke(app, ["data", "check", str(tmp_path)]).stdout
    assert shown.startswith("✓ these rows can be used") and all(f"▲ {text}" in shown for text in found.warnings)


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any width the verdict is the first line and the labels come before details."""
    rows = [{"text": f"{'word ' * 50}{i}", "label": f"a label of some length {i % 9}"} for i in range(40)]
    found = report(written(tmp_path / "a-file-with-a-long-name.jsonl", rows), DataPart.template)
    console = Console(width=width, force_terminal=True, color_system=None, file=io.StringIO())
    monkeypatch.setattr(data, "Terminal", lambda: console)
    data.show(data.described(found))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(cell_len, lines)) <= width and lines[0].startswith("✓ these rows can be used")
    at = {word: next(i for i, line in enumerate(lines) if word in line) for word in ("labels ", "Tokens a row")}
    assert 0 < at["labels "] < at["Tokens a row"]


def test_control_characters_of_a_file_stay_in_it(tmp_path: Path) -> None:
    """What would move the cursor or colour the terminal is shown as its escape."""
    rows = [{"text": f"\x1b[31mred {i}\x07\x9b2J", "label": f"{'ab'[i % 2]}\x1b]0;x\x07"} for i in range(9)]
    path = written(tmp_path / "d.jsonl", rows)
    shown = CliRunner().invoke(app, ["data", "check", str(path)]).stdout
    assert not {"\x1b", "\x07", "\x9b"} & set(shown) and "\\x1b[31mred" in shown


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_how_far_it_is_is_told(tmp_path: Path, tokenizer: Any, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows read, of about so many by the bytes of the first; then rows looked through, compared and tokenized."""
    monkeypatch.setattr(registry, "LARGE", 2**12)
    rows = [{"prompt": f"what is {i}? " + "and so on " * (i % 7), "completion": f" it is {i}"} for i in range(400)]
    file = tmp_path / f"rows{suffix}"
    table = pa.Table.from_pylist(rows)
    if suffix == ".parquet":
        pq.write_table(table, file)
    elif suffix in (".csv", ".tsv"):
        between = {".csv": ",", ".tsv": "\t"}[suffix]
        pa_csv.write_csv(table, file, pa_csv.WriteOptions(delimiter=between))
    else:
        lines = [json.dumps(row) for row in rows]
        file.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{', '.join(lines)}]")
    events: list[Working] = []
    seconds = itertools.count()
    with progress.told(events.append, clock=lambda: float(next(seconds))):
        of(file, tokenizer)
    last = {event.phase: event for event in events}
    assert {"reading rows", "looking through rows", "comparing rows", "tokenizing rows"} <= last.keys()
    assert last["reading rows"].done == 400 and abs(last["reading rows"].total - 400) < 60
    assert last["comparing rows"].done == last["comparing rows"].total
    assert all(event.done <= event.total for event in events)
