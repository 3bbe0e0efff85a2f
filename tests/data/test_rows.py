"""Claims about reading, checking and splitting data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.common.errors import UsageError
from zolite.data.rows import load, load_for_eval

TEMPLATE = "{text}\nCategory: {label}"


def jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def label_rows(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"text": f"message {i}", "label": ("billing", "returns")[i % 2]} for i in range(start, start + count)]


def refusal(path: Path, template: str = TEMPLATE, **given: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(path, template, **given)
    assert caught.value.hint
    return caught.value


# ---- what is read


def test_a_folder_gives_its_splits(tmp_path: Path) -> None:
    """Each split comes from its own file, in file order, with the labels of train sorted."""
    jsonl(tmp_path / "train.jsonl", label_rows(6))
    jsonl(tmp_path / "dev.jsonl", label_rows(2))
    (tmp_path / "test.csv").write_text("text,label\nhello,returns\n")
    data = load(tmp_path, TEMPLATE, required=("train", "test"))
    assert (data.kind, data.labels) == ("label", ("billing", "returns"))
    assert data.files == {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.csv"}
    assert [row.line for row in data.splits["train"]] == [1, 2, 3, 4, 5, 6]
    assert data.splits["test"][0].columns == {"text": "hello", "label": "returns"}


def test_the_demo_loads() -> None:
    """The data set that zolite carries passes its own checks."""
    data = load(Path(__file__).parents[2] / "zolite/demo/data", TEMPLATE)
    assert data.kind == "label" and len(data.labels) >= 2 and set(data.splits) == {"train", "dev", "test"}


def test_numbers_and_booleans_become_text(tmp_path: Path) -> None:
    """JSON's 3 and true are the texts "3" and "true", and a label loses the space around it."""
    rows = [{"text": 3, "label": True}, {"text": 1.5, "label": " false "}]
    data = load(jsonl(tmp_path / "d.jsonl", rows), TEMPLATE)
    texts = sorted((r.columns["text"], r.columns["label"]) for split in data.splits.values() for r in split)
    assert texts == [("1.5", "false"), ("3", "true")]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "", "completion": "b"}, "completion"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages"),
        ({"premise": "a", "hypothesis": "b", "label": "c"}, "label"),
    ],
)
def test_the_columns_decide_the_kind(tmp_path: Path, row: dict[str, Any], kind: str) -> None:
    """Messages, prompt + completion and the template's columns are told apart by the first row."""
    other = row | ({"label": "d"} if kind == "label" else {})
    data = load(jsonl(tmp_path / "d.jsonl", [row, other]), "{premise}\n{hypothesis}\nLabel: {label}")
    assert data.kind == kind
    assert bool(data.labels) == (kind == "label")


def test_messages_keep_their_text_and_lose_their_nulls(tmp_path: Path) -> None:
    """A null under a key of a message is as good as no key."""
    row = {"messages": [{"role": "user", "content": "a", "name": None}, {"role": "assistant", "content": "b"}]}
    data = load(jsonl(tmp_path / "d.jsonl", [row, row]), TEMPLATE)
    expected = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    assert data.splits["train"][0].messages == expected


# ---- the fingerprint


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("ab\n,{}é\"'"), st.booleans()), min_size=2, max_size=8))
def test_the_fingerprint_is_of_content(tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, bool]]) -> None:
    """Neither the path nor the order of keys matters to the fingerprint, and the order and text of rows do."""
    folder = tmp_path_factory.mktemp("d")
    rows = [{"text": f"{i}{text}", "label": "xy"[i % 2]} for i, (text, _) in enumerate(drawn)]
    turned = [dict(reversed(row.items())) if flip else row for row, (_, flip) in zip(rows, drawn, strict=True)]
    one = load(jsonl(folder / "one.jsonl", rows), TEMPLATE).fingerprint
    assert one == load(jsonl(folder / "other.jsonl", turned), TEMPLATE).fingerprint
    changed = [rows[0] | {"text": rows[0]["text"] + "!"}, *rows[1:]]
    assert one != load(jsonl(folder / "changed.jsonl", changed), TEMPLATE).fingerprint
    (folder / "split").mkdir()
    jsonl(folder / "split/dev.jsonl", rows)
    ordered = load(jsonl(folder / "split/train.jsonl", rows).parent, TEMPLATE).fingerprint
    reverse = load(jsonl(folder / "split/train.jsonl", rows[::-1]).parent, TEMPLATE).fingerprint
    assert len(one) == 64 and ordered != reverse


def test_the_fingerprint_of_messages_ignores_the_order_of_keys(tmp_path: Path) -> None:
    """Role before content says what content before role says."""
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    turned = {"messages": [dict(reversed(message.items())) for message in row["messages"]]}
    one, other = (jsonl(tmp_path / f"{i}.jsonl", rows) for i, rows in enumerate(([row] * 2, [turned] * 2)))
    assert load(one, TEMPLATE).fingerprint == load(other, TEMPLATE).fingerprint


def test_the_fingerprint_is_the_same_for_every_format(tmp_path: Path) -> None:
    """A CSV file and a JSONL file that say the same have one fingerprint."""
    jsonl(tmp_path / "a.jsonl", [{"text": "p", "label": "1"}, {"text": "q", "label": "2"}])
    (tmp_path / "b.csv").write_text("label,text\n1,p\n2,q\n")
    assert load(tmp_path / "a.jsonl", TEMPLATE).fingerprint == load(tmp_path / "b.csv", TEMPLATE).fingerprint


# ---- what is refused


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", b"", "d.jsonl: line 1: the file has no rows"),
        ("d.csv", b"text,label\n", "d.csv: line 1: the file has no rows"),
        ("d.jsonl", b'{"text": "a", "label": "x"}\n{"text": "\xff"}', "line 2: byte 38 of the file is not UTF-8"),
        ("d.jsonl", b'\xef\xbb\xbf{"text": "\xff"}', "line 1: byte 13 of the file is not UTF-8"),
        ("d.jsonl", b'{"text": "a", "label": "x"}\n[1]\n', "line 2: not a JSON object but a list"),
        ("d.jsonl", b'{"text": "a", "label": "x"}\n{"text": \n', "line 2: not JSON"),
        ("d.jsonl", b'{"text": "\\ud800", "label": "x"}\n', "line 1: not usable JSON"),
        ("d.jsonl", b"{}\n", "line 1: fits no shape of rows (it has no columns)"),
        ("d.jsonl", b'{"text": "a", "label": "x"}\n{}\n', "line 2: no column 'text' and 'label' (it has no columns)"),
        ("d.csv", b"text,label\na,x\nb\n", "line 3: 1 cells where the header has 2"),
        ("d.csv", b'text,label\na,x\n"b,y\n', "line 3: not CSV from here on"),
        ("d.csv", b"text,text,label\na,b,x\n", "line 1: the header has text more than once"),
        ("d.csv", b"messages\nhello\n", "line 2: column 'messages' is text, not a list"),
        ("d.jsonl", b'{"text": "a", "label": "x"}\n{"text": NaN, "label": "y"}\n', "line 2: column 'text' is null"),
        ("d.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b", "label": " "}\n', "line 2: column 'label' is blank"),
        (
            "d.jsonl",
            b'{"text": "a", "label": ["x", "y"]}\n',
            "column 'label' is 2 labels (x, y): a row has one",
        ),
        ("d.jsonl", b'{"text": "a", "label": "x"}\n' * 3, "d.jsonl: 1 label (x) in 3 rows; at least 2 are needed"),
        ("d.jsonl", b'{"prompt": "a", "completion": " "}\n', "line 1: column 'completion' is blank"),
        ("d.jsonl", b'{"prompt": ["a"], "completion": "b"}\n', "line 1: column 'prompt' is a list, not text"),
        ("d.jsonl", b'{"prompt": "a", "completion": "b"}\n', "d.jsonl: 1 row; at least 2 are needed"),
        ("d.jsonl", b'{"messages": []}\n', "line 1: none of 0 messages is an assistant's"),
        ("d.jsonl", b'{"messages": [{"role": 1, "content": "a"}]}\n', "message 1: 'role' is a number, not text"),
        ("d.jsonl", b'{"messages": [{"role": "user"}]}\n', "message 1: 'content' is null, not text"),
        ("d.jsonl", b'{"messages": ["a"]}\n', "message 1: text, not an object"),
        ("d.parquet", b"PAR1", "d.parquet: line 1: not Parquet, or damaged"),
        ("d.xlsx", b"PK", "d.xlsx: it is a spreadsheet: save the sheet as CSV"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """Every way in which one file can be wrong is named with its line."""
    (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path / name).message


def test_missing_columns_are_named(tmp_path: Path) -> None:
    """A row without a column says which, and which it has; a row of another kind says which kind."""
    rows = [*label_rows(2), {"txt": "a", "text": "b", "label_id": 1}, {"prompt": "a", "completion": "b"}]
    message = refusal(jsonl(tmp_path / "d.jsonl", rows)).message
    assert "line 3: no column 'label' (it has: txt, text, label_id)" in message
    assert "line 4: a completion row among label rows" in message


def test_unknown_columns_lead_to_a_command(tmp_path: Path) -> None:
    """Where no shape fits, the columns are named with a value each, and what the nearest shapes need."""
    error = refusal(jsonl(tmp_path / "d.jsonl", [{"Befund": "a\tb", "label": "b"}] * 2))
    assert "it has: Befund, label)" in error.message and "'Befund': a b" in error.message
    assert "label: text + label" in error.message
    assert error.hint.startswith(f"zolite data check {tmp_path / 'd.jsonl'} --columns text=Befund")


def test_all_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    """Up to 20 problems are listed, each with its file, and the rest are counted."""
    jsonl(tmp_path / "train.jsonl", [*label_rows(4), {"text": ""}])
    jsonl(tmp_path / "dev.jsonl", [{"text": None, "label": "billing"}] * 30)
    (tmp_path / "test.csv").write_bytes(b"\xff")
    message = refusal(tmp_path).message
    assert "train.jsonl: line 5: no column 'label'" in message
    assert "dev.jsonl: line 19: column 'text' is null" in message
    assert message.count("\n") == 21 and "… and 12 more" in message


def test_labels_unknown_to_train_are_listed(tmp_path: Path) -> None:
    """A label of dev or test that train lacks is named with its file and line."""
    jsonl(tmp_path / "train.jsonl", label_rows(4))
    jsonl(tmp_path / "dev.jsonl", [*label_rows(1), {"text": "a", "label": "other"}])
    jsonl(tmp_path / "test.jsonl", [{"text": "a", "label": "strange"}])
    message = refusal(tmp_path).message
    assert "dev.jsonl: line 2: label 'other' is not among the labels of train.jsonl" in message
    assert "test.jsonl: line 1: label 'strange'" in message


def test_a_faulty_train_accuses_no_other_file(tmp_path: Path) -> None:
    """While rows of train are faulty, labels of dev are not called unknown: a faulty row may have them."""
    jsonl(tmp_path / "train.jsonl", [*label_rows(4), {"text": "", "label": "other"}])
    jsonl(tmp_path / "dev.jsonl", [{"text": "a", "label": "other"}])
    assert refusal(tmp_path).message.count("\n") == 1


# ---- evaluation


def test_evaluation_takes_test_then_dev_then_train(tmp_path: Path) -> None:
    """The first of test, dev and train that a folder has is evaluated whole, and a file whole."""
    for count, name in ((10, "train"), (3, "dev"), (2, "test")):
        jsonl(tmp_path / f"{name}.jsonl", label_rows(count))
    for name, count in (("test", 2), ("dev", 3), ("train", 10)):
        data = load_for_eval(tmp_path, TEMPLATE, ("billing", "returns"))
        assert (data.kind, data.labels) == ("label", ("billing", "returns"))
        assert data.files == {name: f"{name}.jsonl"} and len(data.splits[name]) == count
        alone = load_for_eval(tmp_path / f"{name}.jsonl", TEMPLATE, ())
        assert alone.splits["train"] == data.splits[name] and alone.labels == data.labels
        (tmp_path / f"{name}.jsonl").unlink()
    with pytest.raises(UsageError, match="has no file of rows"):
        load_for_eval(tmp_path, TEMPLATE, ())


def test_evaluation_refuses_other_labels(tmp_path: Path) -> None:
    """Labels that the model was not trained on are listed with their lines."""
    path = jsonl(tmp_path / "d.jsonl", label_rows(4))
    with pytest.raises(UsageError, match=r"line 2: label 'returns' is not among the model's labels \(billing\)"):
        load_for_eval(path, TEMPLATE, ("billing",))
