"""Claims about tokens that are kept from run to run: they are what would be made now, or they are made now."""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from zolite.common.errors import UsageError, ZoliteError
from zolite.data import encode as encoding
from zolite.data import rows as tables
from zolite.data import table as row_tables
from zolite.data import token_cache
from zolite.data.chat_template import Chat, filled
from zolite.data.encode import Coded, encode, encode_all
from zolite.data.examples import Example
from zolite.data.problems import FaultyRowsError
from zolite.data.rows import Dataset
from zolite.data.token_store import TokenStore

TEMPLATE = "{text}\nCategory: {label}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "label": lambda i: {"text": f"message {i}", "label": ("yes", "no", "it is ")[i % 3]},
    "completion": lambda i: {"prompt": f"question {i}:", "completion": f" answer {i * i}"},
    "messages": lambda i: {
        "messages": [{"role": ("user", "assistant")[j % 2], "content": f"{i} and {j}"} for j in range(2 + 2 * (i % 2))]
    },
}


def bytes_tokenizer(chat: str = CHATML, merged: tuple[str, ...] = ("y", "e", "s")) -> PreTrainedTokenizerFast:
    """One token a byte, and one for the merged letters."""
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("".join(merged[:i]), merged[i]) for i in range(1, len(merged))]
    vocab |= {a + b: len(vocab) + i for i, (a, b) in enumerate(merges)}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>")
    tokenizer.chat_template = chat
    return tokenizer


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The smallest data counts as large."""
    monkeypatch.setenv("ZOLITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(row_tables, "IN_MEMORY", 0)
    monkeypatch.setattr(encoding, "CHUNK", 4)
    return tmp_path / "cache" / "tokens"


def dataset(folder: Path, kind: str = "completion", count: int = 30) -> Dataset:
    file = folder / f"{kind}.jsonl"
    file.write_text("".join(json.dumps(ROWS[kind](i)) + "\n" for i in range(count)), encoding="utf-8")
    data = tables.load(file, TEMPLATE)
    assert not any(rows.in_memory for rows in data.splits.values() if rows[0])  # a look writes what waits
    return data


def coded(data: Dataset, tokenizer: Any = None, template: str = TEMPLATE, context: int = 64, *limits: int) -> Coded:
    return encode_all(data, tokenizer or bytes_tokenizer(), template, context, *limits)


def entries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.exists() else []


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The file of every split that is tokenized from here on."""
    found: list[str] = []

    def counted(rows: Any, kind: str, labels: Any, coder: Any, template: str, context: int, file: str, *limits: int,
                writer: Any) -> Any:  # fmt: skip
        found.append(file)
        return encode(rows, kind, labels, coder, template, context, file, *limits, writer=writer)

    monkeypatch.setattr(encoding, "encode", counted)
    return found


@pytest.mark.parametrize("kind", ROWS)
def test_what_is_kept_is_what_would_be_made(tmp_path: Path, cache: Path, made: list[str], kind: str) -> None:
    """Of every kind: examples, rows that were cut, notes and fingerprint, the first time and the second."""
    data, tokenizer = dataset(tmp_path, kind), bytes_tokenizer()
    first = coded(data, tokenizer, context=48)
    assert len(made) == 2 and len(entries(cache)) == 1
    again = coded(dataset(tmp_path, kind), bytes_tokenizer(), context=48)
    assert len(made) == 2
    assert (first.cut, first.notes, first.fingerprint) == (again.cut, again.notes, again.fingerprint)
    for split, rows in data.splits.items():
        plain = encode(tuple(rows), kind, data.labels, tokenizer, TEMPLATE, 48)
        assert first.examples[split] == plain.examples == again.examples[split]
    assert encoding.fingerprint(again.examples) == first.fingerprint


def test_notes_name_lines_of_the_file_that_is_read(tmp_path: Path, made: list[str]) -> None:
    """The same rows in another file may stand in other lines."""
    tokenizer = bytes_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(" \n", "\n")  # a border within a token
    lines = [json.dumps({"prompt": f"question {i}: ", "completion": f"\nanswer {i}"}) + "\n" for i in range(30)]
    notes = []
    for name, gap in (("one", ""), ("other", "\n\n\n")):
        file = tmp_path / f"{name}.jsonl"
        file.write_text(gap + "".join(lines))
        data = tables.load(file, TEMPLATE)
        notes.append(coded(data, tokenizer).notes)
        assert f"line {data.splits['train'][0].line} first" in notes[-1][0]
    assert len(made) == 2 and notes[0] != notes[1]


def test_entries_are_removed_when_they_are_not_wanted(tmp_path: Path, cache: Path) -> None:
    """What another process is writing stays."""
    assert token_cache.clear() == (0, 0)
    coded(dataset(tmp_path))
    (cache / ".partial-now").mkdir()
    count, freed = token_cache.clear()
    assert count == 1 and freed > 0
    assert [each.name for each in cache.iterdir()] == [".partial-now"]


def test_few_rows_leave_nothing_behind(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_tables, "IN_MEMORY", 2**20)
    file = tmp_path / "few.jsonl"
    file.write_text("".join(json.dumps(ROWS["completion"](i)) + "\n" for i in range(30)))
    coded(tables.load(file, TEMPLATE))
    assert not cache.parent.exists()


CHANGES: dict[str, Callable[[Path], Coded]] = {
    "a row": lambda folder: coded(dataset(folder, count=31)),
    "context": lambda folder: coded(dataset(folder), context=65),
    "template": lambda folder: coded(dataset(folder), template="{text}: {label}"),
    "table": lambda folder: coded(dataset(folder), None, TEMPLATE, 64, 1000),
    "positions": lambda folder: coded(dataset(folder), None, TEMPLATE, 64, 0, 1000),
    "tokenizer": lambda folder: coded(dataset(folder), bytes_tokenizer(merged=("n", "o"))),
    "kind": lambda folder: coded(dataset(folder, "messages")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_makes_other_tokens(tmp_path: Path, cache: Path, what: str) -> None:
    coded(dataset(tmp_path))
    CHANGES[what](tmp_path)
    assert len(entries(cache)) == 2


def test_a_change_of_the_chat_template_counts_where_it_is_read(tmp_path: Path, cache: Path) -> None:
    """Its text, its arguments and the time that it tells; of other kinds none of these."""
    dated = CHATML + "{# {{ strftime_now('%Y') }} thinking #}"
    asked: list[tuple[str, dict[str, bool], int]] = [(CHATML, {}, 2020), (CHATML, {}, 2021)]
    asked += [(dated, {}, 2020), (dated, {}, 2021), (dated, {"thinking": True}, 2020)]
    chats = [filled(bytes_tokenizer(text), Chat(args, datetime(year, 1, 1))) for text, args, year in asked]
    for tokenizer in chats:
        coded(dataset(tmp_path, "messages"), tokenizer)
    assert len(entries(cache)) == 4
    for tokenizer in chats:
        coded(dataset(tmp_path, "completion"), tokenizer)
    assert len(entries(cache)) == 5


def test_a_change_of_the_code_makes_other_tokens(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coded(dataset(tmp_path))
    monkeypatch.setattr(token_cache, "_code", lambda: "another version of zolite")
    coded(dataset(tmp_path))
    assert len(entries(cache)) == 2


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a byte": lambda folder: (folder / "train.tokens").write_bytes(b"\1" + (folder / "train.tokens").read_bytes()[1:]),
    "cut short": lambda folder: os.truncate(folder / "dev.figures", 10),
    "a file gone": lambda folder: (folder / "train.forms").unlink(),
    "no account": lambda folder: (folder / "about.json").unlink(),
    "no JSON": lambda folder: (folder / "about.json").write_text("[{"),
    "another JSON": lambda folder: (folder / "about.json").write_text("[]"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_is_made_again(tmp_path: Path, cache: Path, made: list[str], what: str) -> None:
    data = dataset(tmp_path)
    first = coded(data)
    expected = {split: list(rows) for split, rows in first.examples.items()}
    DAMAGES[what](entries(cache)[0])
    del first
    for _ in range(2):
        found = coded(data)
        assert {split: list(rows) for split, rows in found.examples.items()} == expected
    assert len(made) == 4 and len(entries(cache)) == 1


def test_a_maker_that_is_killed_leaves_no_entry(tmp_path: Path, cache: Path) -> None:
    """In the middle of its rows; the next one begins anew, and what was left is removed after a day."""
    data = dataset(tmp_path)
    script = f"""
        import os, runpy
        from pathlib import Path
        from zolite.data import encode, rows, table, token_store
        bytes_tokenizer = runpy.run_path({__file__!r})["bytes_tokenizer"]
        table.IN_MEMORY, token_store.WRITTEN = 0, 10
        data = rows.load(Path({str(tmp_path / "completion.jsonl")!r}), {TEMPLATE!r})
        add = token_store.Writer.add
        def killed(self, example, row):
            add(self, example, row)
            if row == 20:
                os.kill(os.getpid(), 9)
        token_store.Writer.add = killed
        encode.encode_all(data, bytes_tokenizer(), {TEMPLATE!r}, 64)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    (left,) = entries(cache)
    assert left.name.startswith(".partial-")
    coded(data)
    assert len(entries(cache)) == 2
    day = time.time() - token_cache.ABANDONED - 1
    os.utime(left, (day, day))
    coded(data, context=65)
    assert left not in entries(cache) and len(entries(cache)) == 2


def test_makers_at_the_same_time_do_not_collide(tmp_path: Path, cache: Path) -> None:
    data = [dataset(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(coded, data))
    assert len({each.fingerprint for each in found}) == 1 and len(entries(cache)) == 1
    assert all(encoding.fingerprint(each.examples) == each.fingerprint for each in found)


def test_the_entries_used_longest_ago_make_room(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a run has open stays readable for it."""
    data = dataset(tmp_path)
    opened = coded(data, context=60)
    (oldest,) = entries(cache)
    for i, context in enumerate((61, 62)):
        for each in entries(cache):
            os.utime(each / "about.json", (1000 + i, (each / "about.json").stat().st_mtime - 1000))
        coded(data, context=context)
    kept = set(entries(cache)) - {oldest}
    coded(data, context=61)  # is used again
    size = sum(file.stat().st_size for file in oldest.iterdir())
    monkeypatch.setattr(token_cache, "MOST_BYTES", 2 * size + size // 2)
    coded(data, context=64)
    assert oldest not in entries(cache) and kept < set(entries(cache)) and len(entries(cache)) == 3
    assert list(opened.examples["train"]) == list(coded(data, context=60).examples["train"])


def test_rows_that_cannot_be_used_leave_nothing(tmp_path: Path, cache: Path) -> None:
    """The error names all of them, in every split, and no entry is begun."""
    data = dataset(tmp_path)
    with pytest.raises(UsageError) as caught:
        coded(data, context=8)
    assert isinstance(caught.value, FaultyRowsError) and not entries(cache)
    assert len(caught.value.problems) == sum(map(len, data.splits.values()))


def test_a_full_disk_is_named(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    data = dataset(tmp_path)
    monkeypatch.setattr(token_cache.os, "rename", full)
    coded(data)  # only the name is missing: this run goes on
    monkeypatch.setattr(token_cache.files, "write_new", full)
    with pytest.raises(ZoliteError, match="tokens cannot be kept in the cache"):
        coded(data)
    assert not entries(cache)


def test_examples_of_an_entry_are_examples(tmp_path: Path) -> None:
    """A store is asked for what it has by whoever trains, and changed copies are made of them."""
    store = coded(dataset(tmp_path)).examples["train"]
    assert isinstance(store, TokenStore) and isinstance(store[0], Example)
    assert replace(store[0], remark="a").remark == "a"
