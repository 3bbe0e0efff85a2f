"""Files as people have them, made from a seed: every format, shape and trap, each with the rows that it means.

python tests/data/corpus.py     writes the table of docs/data.md: what zolite makes of each of them
"""

import csv
import gzip
import io
import json
import os
import random
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from zolite.common.errors import UsageError
from zolite.config.recipe import DataPart
from zolite.data import rows as tables

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs" / "data.md"
BEGIN, END = "<!-- the table is made by tests/data/corpus.py -->\n", "<!-- end of the table -->\n"
SEED, ROWS = 7, 12
WORDS = (
    "parcel",
    "café",
    "naïve",
    "5 €",
    'said "hello"',
    "it's",
    "fine;",
    "a, b",
    "déjà vu",
    "|",
    "over",
    "and",
    "late",
)
MANY_LETTERS = 150  # of what is said

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """What somebody gives to --data, what it holds, and the rows that it means; none where it is refused."""

    path: str
    what: str
    files: dict[str, bytes]
    rows: dict[str, Records] = field(default_factory=dict)
    """split to records, as a plain JSONL file of each would have them"""
    columns: str = ""
    template: str = DataPart.template

    def write(self, folder: Path) -> None:
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)

    def write_twin(self, folder: Path) -> None:
        """Its rows as plain JSONL; one file of them alone as a file."""
        folder.mkdir()
        for split, rows in self.rows.items():
            (folder / f"{split}.jsonl").write_bytes(jsonl(rows))

    def load(self, path: str) -> tables.Dataset:
        return tables.load(path, self.template, columns=self.columns)


# ---- shapes


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(3, 9)))


def labelled(rng: random.Random) -> Records:
    return [{"text": sentence(rng), "label": ("billing", "returns")[i % 2]} for i in range(ROWS)]


def _of(make: Callable[[random.Random, int], dict[str, Any]]) -> Callable[[random.Random], Records]:
    return lambda rng: [make(rng, i) for i in range(ROWS)]


def _choice(answer: Callable[[int], Any]) -> Callable[[random.Random], Records]:
    def made(rng: random.Random, i: int) -> dict[str, Any]:
        choices = [f"{sentence(rng)} {letter}" for letter in "wxyz"]
        return {"question": sentence(rng) + "?", "choices": choices, "answer": answer(i % 4)}

    return _of(made)


FLAT: dict[str, Callable[[random.Random], Records]] = {
    "text and label": labelled,
    "prompt and completion": _of(lambda rng, i: {"prompt": sentence(rng), "completion": sentence(rng)}),
    "Alpaca": _of(
        lambda rng, i: {"instruction": sentence(rng), "input": sentence(rng) if i % 2 else "", "output": sentence(rng)}
    ),
    "question and answer": _of(lambda rng, i: {"question": sentence(rng) + "?", "answer": sentence(rng)}),
    "question, answer and context": _of(
        lambda rng, i: {"context": sentence(rng), "question": sentence(rng) + "?", "answer": sentence(rng)}
    ),
    "preference pairs": _of(
        lambda rng, i: {"prompt": sentence(rng), "chosen": sentence(rng), "rejected": sentence(rng)}
    ),
    "documents": _of(lambda rng, i: {"text": " ".join(sentence(rng) for _ in range(5))}),
}
NESTED: dict[str, Callable[[random.Random], Records]] = {
    "ShareGPT": _of(
        lambda rng, i: {
            "conversations": [{"from": "human", "value": sentence(rng)}, {"from": "gpt", "value": sentence(rng)}]
        }
    ),
    "messages": _of(
        lambda rng, i: {
            "messages": [{"role": "user", "content": sentence(rng)}, {"role": "assistant", "content": sentence(rng)}]
        }
    ),
    "choices, answer by index": _choice(lambda i: i),
    "choices, answer by letter": _choice(lambda i: "ABCD"[i]),
}


# ---- formats


def jsonl(rows: Records) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def columns_of(rows: Records) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def delimited(rows: Records, delimiter: str = ",", codec: str = "utf-8", **options: Any) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=delimiter, **options)
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return sink.getvalue().encode(codec)


def parquet(rows: Records) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def arrow(rows: Records) -> bytes:
    sink, table = pa.BufferOutputStream(), pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def feathered(rows: Records) -> bytes:
    sink = io.BytesIO()
    feather.write_feather(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def document(rows: Any, indent: int | None = None) -> bytes:
    return json.dumps(rows, indent=indent, ensure_ascii=False).encode()


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


# How rows of any shape are written, and how those are whose values are texts.
ANY: dict[str, tuple[str, Callable[[Records], bytes]]] = {
    ".jsonl": ("JSON Lines", jsonl),
    ".json": ("JSON, an array", lambda rows: document(rows, 2)),
    ".parquet": ("Parquet", parquet),
}
TEXTS: dict[str, tuple[str, Callable[[Records], bytes]]] = {
    ".csv": ("CSV", delimited),
    ".tsv": ("TSV", lambda rows: delimited(rows, "\t")),
}
# Text and label alone, in all that programs make of them.
SPELLED: dict[str, tuple[str, Callable[[Records], bytes]]] = {
    "rows.ndjson": ("JSON Lines", jsonl),
    "crlf.jsonl": ("JSON Lines, Windows line ends, blank lines", lambda rows: jsonl(rows).replace(b"\n", b"\r\n\r\n")),
    "utf16.jsonl": (
        "JSON Lines, UTF-16, as PowerShell's > writes it",
        lambda rows: jsonl(rows).decode().encode("utf-16"),
    ),
    "rows.jsonl.gz": ("JSON Lines, gzip", lambda rows: gz(jsonl(rows))),
    "rows.jsonl.zst": ("JSON Lines, zstd", lambda rows: zstd(jsonl(rows))),
    "oneline.json": ("JSON, an array in one line", document),
    "data.json": ("JSON, an array inside of an object", lambda rows: document({"version": "1", "data": rows}, 1)),
    "columns.json": ("JSON, an object of arrays", lambda rows: document(columns_of(rows))),
    "pandas.json": (
        "JSON, as pandas' to_json() writes it",
        lambda rows: document({k: {str(i): v for i, v in enumerate(c)} for k, c in columns_of(rows).items()}),
    ),
    "bykey.json": ("JSON, an object by key", lambda rows: document({f"row-{i}": row for i, row in enumerate(rows)})),
    "lines.json": ("JSON Lines called .json", jsonl),
    "rows.json.gz": ("JSON, gzip", lambda rows: gz(document(rows))),
    "bom.csv": ("CSV, UTF-8 with a byte order mark", lambda rows: delimited(rows, codec="utf-8-sig")),
    "excel.csv": ("CSV, cp1252 with semicolons", lambda rows: delimited(rows, ";", "cp1252")),
    "latin1.csv": (
        "CSV, latin-1",
        lambda rows: delimited([{**row, "text": row["text"].replace("€", "EUR")} for row in rows], codec="latin-1"),
    ),
    "utf16le.csv": ("CSV, UTF-16 LE", lambda rows: delimited(rows, codec="utf-16")),
    "utf16be.csv": ("CSV, UTF-16 BE without a mark", lambda rows: delimited(rows, codec="utf-16-be")),
    "bars.csv": ("CSV with bars", lambda rows: delimited(rows, "|")),
    "tabs.csv": ("TSV called .csv", lambda rows: delimited(rows, "\t")),
    "quoted.csv": ("CSV, every cell quoted", lambda rows: delimited(rows, quoting=csv.QUOTE_ALL)),
    "escaped.csv": (
        'CSV, quotes as \\"',
        lambda rows: delimited(rows, quoting=csv.QUOTE_ALL, doublequote=False, escapechar="\\"),
    ),
    "sep.csv": ("CSV that begins with sep=;", lambda rows: b"sep=;\r\n" + delimited(rows, ";")),
    "plain.tsv": (
        "TSV without quoting",
        lambda rows: "".join("\t".join(cells) + "\n" for cells in [rows[0], *map(dict.values, rows)]).encode(),
    ),
    "rows.csv.gz": ("CSV, gzip", lambda rows: gz(delimited(rows))),
    "rows.tsv.zst": ("TSV, zstd", lambda rows: zstd(delimited(rows, "\t"))),
    "rows.arrow": ("Arrow, a stream", arrow),
    "rows.feather": ("Feather", feathered),
    "rows.parquet.gz": ("Parquet, gzip", lambda rows: gz(parquet(rows))),
}


def accepted() -> Iterator[Case]:
    rng = random.Random(SEED)
    for shape, make in {**FLAT, **NESTED}.items():
        for suffix, (format_, write) in {**ANY, **(TEXTS if shape in FLAT else {})}.items():
            rows = make(rng)
            stem = shape.replace(",", "").replace(" ", "-").lower()
            yield Case(f"{stem}{suffix}", f"{shape}: {format_}", {f"{stem}{suffix}": write(rows)}, {"train": rows})
    for name, (format_, write) in SPELLED.items():
        rows = labelled(rng)
        if name == "latin1.csv":
            rows = [{**row, "text": row["text"].replace("€", "EUR")} for row in rows]
        yield Case(name, format_, {name: write(rows)}, {"train": rows})
    yield from of_texts(rng)
    yield from laid_out(rng)
    yield from odd(rng)
    yield from exported(rng)
    yield from published(rng)


def of_texts(rng: random.Random) -> Iterator[Case]:
    """Plain text, a file a document."""
    texts = ["\n".join(sentence(rng) for _ in range(9)) + "\n" for _ in range(3)]
    rows = [{"text": text} for text in texts]
    names = ("a.txt", "b.txt", "c.txt")
    for folder, encoded, what in (
        ("books", str.encode, "a folder of .txt"),
        ("old-books", lambda text: text.encode("cp1252"), "a folder of .txt in cp1252"),
        ("windows-books", lambda text: text.replace("\n", "\r\n").encode(), "a folder of .txt with Windows line ends"),
        ("packed-books", lambda text: gz(text.encode()), "a folder of .txt.gz"),
    ):
        end = ".gz" if folder == "packed-books" else ""
        files = {f"{folder}/{name}{end}": encoded(text) for name, text in zip(names, texts, strict=True)}
        yield Case(folder, what, files, {"train": rows})
    notes = {f"notes/{name.replace('.txt', '.md')}": text.encode() for name, text in zip(names, texts, strict=True)}
    yield Case("notes", "a folder of .md beside README.md", {**notes, "notes/README.md": b"# About"}, {"train": rows})


def laid_out(rng: random.Random) -> Iterator[Case]:
    """Folders and several files."""
    a, b, c = labelled(rng), labelled(rng), labelled(rng)
    whole = {"train": a, "dev": b, "test": c}
    names = {"train": "train", "dev": "validation", "test": "test"}
    hub = {f"hub/data/{names[k]}-00000-of-00001.parquet": parquet(v) for k, v in whole.items()}
    yield Case("hub", "the hub's repository", {**hub, "hub/README.md": b"---\n---\n", "hub/.gitattributes": b""}, whole)
    shards = {f"shards/train-0000{i}-of-00002.parquet": parquet(v) for i, v in enumerate((a, b))}
    yield Case("shards", "two shards of train", shards, {"train": a + b})
    saved = {f"saved/{names[k]}/data-00000-of-00001.arrow": arrow(v) for k, v in whole.items()}
    yield Case("saved", "what `datasets` saves", {**saved, "saved/dataset_dict.json": b'{"splits": []}'}, whole)
    mixed = {
        "mixed/train.json": document(a),
        "mixed/valid.tsv": delimited(b, "\t"),
        "mixed/test.csv.gz": gz(delimited(c)),
    }
    yield Case("mixed", "train, valid and test in three formats", mixed, whole)
    yield Case("one", "a folder with one export", {"one/export (3).csv": delimited(a)}, {"train": a})
    named = {f"named/sst2_{k}.csv": delimited(v) for k, v in whole.items() if k != "dev"}
    yield Case("named", "sst2_train.csv and sst2_test.csv", named, {"train": a, "test": c})
    parts = {f"parts/part-{i}.jsonl": jsonl(v) for i, v in ((2, a), (10, b))}
    yield Case("parts", "a folder of parts", parts, {"train": a + b})
    yield Case("parts/part-*.jsonl", "a pattern", parts, {"train": a + b})
    pair = {"east.csv": delimited(a), "west.json": document(b)}
    yield Case("east.csv,west.json", "two names with a comma", pair, {"train": a + b})
    yield Case("tr.csv,my_test.csv", "a file and a test file", {"tr.csv": delimited(a), "my_test.csv": delimited(c)}, {
        "train": a, "test": c
    })  # fmt: skip


def odd(rng: random.Random) -> Iterator[Case]:
    """Files that need a word from a person, or look as if they did."""
    rows = labelled(rng)
    sheet = [{"Ticket no.": f"T-{i}", "Body": r["text"], "Category (final)": r["label"]} for i, r in enumerate(rows)]
    given = 'label="Category (final)",text=Body'
    plain = {"train": sheet}
    yield Case(
        "sheet.csv", "a spreadsheet with odd headers", {"sheet.csv": delimited(sheet, ";", "cp1252")}, plain, given
    )
    long = [{**row, "text": row["text"] + " and on" * 30_000} for row in rows[:2]]
    yield Case("long.csv", "cells of 200,000 letters", {"long.csv": delimited(long)}, {"train": long})
    lines = [{**row, "text": row["text"].replace(" ", "\n")} for row in rows]
    yield Case("lines.csv", "cells of several lines", {"lines.csv": delimited(lines)}, {"train": lines})
    spaced = ", ".join(rows[0]) + "\n" + "".join(f'"{r["text"].replace(chr(34), "")}", {r["label"]}\n' for r in rows)
    bare = [{**row, "text": row["text"].replace('"', "")} for row in rows]
    yield Case("spaced.csv", "a space behind each comma", {"spaced.csv": spaced.encode()}, {"train": bare})
    numbers = [{"text": row["text"], "label": i % 3} for i, row in enumerate(rows)]
    about = {"info": {"features": {"label": {"names": ["bad", "fair", "good"], "_type": "ClassLabel"}}}}
    table = pa.Table.from_pylist(numbers).replace_schema_metadata({"huggingface": json.dumps(about)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    names = [{**row, "label": ("bad", "fair", "good")[row["label"]]} for row in numbers]
    yield Case("classes.parquet", "labels as numbers with their names", {"classes.parquet": bytes(sink.getvalue())}, {
        "train": names
    })  # fmt: skip


def exported(rng: random.Random) -> Iterator[Case]:
    """As programs write them."""
    rows, texts = labelled(rng), [sentence(rng) for _ in range(2 * ROWS)]
    talks = [
        {"messages": [_said("user", q), _said("assistant", a)]} for q, a in zip(texts[::2], texts[1::2], strict=True)
    ]
    google = delimited([{**row, "": ""} for row in rows])
    yield _one("google.csv", "Google Sheets, with an empty column", google, rows)
    index = [{"": i, **row} for i, row in enumerate(rows)]
    yield _one("index.csv", "what pandas' to_csv() writes, with its index", delimited(index), rows)
    tasks = [
        {"id": i, "data": {"text": r["text"]}, "predictions": [], "annotations": [
            {"id": i, "result": [{"type": "choices", "from_name": "kind", "value": {"choices": [r["label"]]}}]}
        ]}
        for i, r in enumerate(rows)
    ]  # fmt: skip
    yield _one("label-studio.json", "Label Studio, JSON", document(tasks), rows)
    short = [{"id": i, "text": r["text"], "sentiment": r["label"], "lead_time": 1.5} for i, r in enumerate(rows)]
    yield _one("label-studio-min.json", "Label Studio, JSON-MIN", document(short), rows)
    doccano = [{"id": i, "text": r["text"], "label": [r["label"]], "Comments": []} for i, r in enumerate(rows)]
    yield _one("doccano.jsonl", "Doccano, a label a row in a list", jsonl(doccano), rows)
    fast = "".join(f"__label__{r['label']} {r['text']}\n" for r in rows)
    yield _one("fasttext.txt", "fastText", fast.encode(), rows)
    yield _one("openai.jsonl", "OpenAI's files for fine-tuning", jsonl(talks), talks)
    yield _one(
        "conversations.json", "ChatGPT's export", document([_chatgpt(each["messages"]) for each in talks]), talks
    )
    chat = "".join(f"12/03/24, 10:{i:02} - {('Ann', 'Bob')[i % 2]}: {text}\n" for i, text in enumerate(texts))
    yield _one("WhatsApp Chat with Ann.txt", "a chat of WhatsApp: one document", chat.encode(), [{"text": chat}])
    mail = {f"mail/{r['label']}/{i:02}.txt": r["text"].encode() for i, r in enumerate(rows)}
    by_label = sorted(rows, key=lambda r: str(r["label"]))
    yield Case("mail", "a folder of .txt for each label", mail, {"train": by_label})
    both = ((split, i, r) for split in ("train", "test") for i, r in enumerate(rows))
    imdb = {f"aclImdb/{split}/{r['label']}/{i}_7.txt": r["text"].encode() for split, i, r in both}
    imdb |= {"aclImdb/README": b"", "aclImdb/train/urls_pos.txt": b"http", "aclImdb/train/unsup/0_0.txt": b"a film"}
    yield Case("aclImdb", "IMDB's folders of train and test", imdb, {"train": by_label, "test": by_label})


def _one(name: str, what: str, data: bytes, rows: Records) -> Case:
    return Case(name, what, {name: data}, {"train": rows})


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _chatgpt(messages: Records) -> dict[str, Any]:
    """With an empty message of the system's before, and an answer that was not kept beside the last one."""
    every = [_said("system", ""), *messages, _said("assistant", "another answer")]
    nodes = {
        str(i): {
            "id": str(i),
            "parent": str(min(i, len(messages)) - 1) if i else None,
            "message": {"author": {"role": m["role"]}, "content": {"content_type": "text", "parts": [m["content"]]}},
        }
        for i, m in enumerate(every)
    }
    return {"title": "a chat", "create_time": 1.5, "mapping": nodes, "current_node": str(len(messages))}


def published(rng: random.Random) -> Iterator[Case]:
    """As data sets are published."""
    asked = FLAT["question, answer and context"](rng)
    own = [
        {"title": "a", "paragraphs": [{"context": r["context"], "qas": [
            {"id": "1", "question": r["question"], "answers": [{"text": r["answer"], "answer_start": 0}]}
        ]}]}
        for r in asked
    ]  # fmt: skip
    yield _one("squad.json", "SQuAD's own JSON", document({"version": "1.1", "data": own}), asked)
    hub = [
        {"id": "1", "context": r["context"], "question": r["question"], "answers": {"text": [r["answer"]]}}
        for r in asked
    ]
    yield _one("squad.parquet", "SQuAD on the hub, nested columns", parquet(hub), asked)
    rows = FLAT["Alpaca"](rng)
    dolly = [
        {"instruction": r["instruction"], "context": r["input"], "response": r["output"], "category": "qa"}
        for r in rows
    ]
    yield _one("dolly.jsonl", "Dolly", jsonl(dolly), rows)
    talks = NESTED["messages"](rng)
    trees = [
        {"message_tree_id": "a", "prompt": {"role": "prompter", "text": q["content"], "replies": [
            {"role": "assistant", "text": "a worse answer", "rank": 1, "replies": []},
            {"role": "assistant", "text": a["content"], "rank": 0, "replies": []},
        ]}}
        for q, a in (talk["messages"] for talk in talks)
    ]  # fmt: skip
    yield _one("oasst.jsonl", "OpenAssistant's trees, the best replies", jsonl(trees), talks)
    lists = [{"id": str(i), "data": [m["content"] for m in talk["messages"]]} for i, talk in enumerate(talks)]
    yield _one("ultrachat.jsonl", "UltraChat, turns in a list", jsonl(lists), talks)
    filtered = [{"prompt": talk["messages"][0]["content"], "prompt_id": "a", **talk} for talk in talks]
    yield _one("ultrachat-200k.jsonl", "UltraChat 200k", jsonl(filtered), talks)
    yield from of_choices(NESTED["choices, answer by index"](rng))
    yield from side_by_side(rng)


def side_by_side(rng: random.Random) -> Iterator[Case]:
    """Columns that say what they are beside one another, under the names that are common."""
    rows = [{"first": sentence(rng), "second": sentence(rng), "label": i % 4 + 1} for i in range(ROWS)]
    lines = [{"text": f"{r['first']}\n{r['second']}", "label": r["label"]} for r in rows]
    for name, what, label, first, second in (
        ("ag_news.csv", "AG News", "label", "title", "description"),
        ("ag_news_kaggle.csv", "AG News on Kaggle", "Class Index", "Title", "Description"),
        ("pairs.csv", "two sentences and a label", "label", "sentence1", "sentence2"),
        ("nli.csv", "premise, hypothesis and a label", "label", "premise", "hypothesis"),
        ("duplicates.csv", "two questions and whether they are one", "is_duplicate", "question1", "question2"),
        ("qnli.csv", "a question, a sentence and a label", "label", "question", "sentence"),
        ("headlines.csv", "news with a category", "category", "headline", "short_description"),
    ):
        data = delimited([{label: r["label"], first: r["first"], second: r["second"], "idx": 1} for r in rows])
        yield _one(name, what, data, lines)
    sms = [{"text": r["first"], "label": ("ham", "spam")[i % 2]} for i, r in enumerate(rows)]
    five = delimited([{"a": r["label"], "b": r["text"], "c": "", "d": "", "e": ""} for r in sms]).decode()
    spelled = "v1,v2,,,\r\n" + five.partition("\n")[2]
    yield _one("sms-spam.csv", "Kaggle's spam.csv, of cp1252", spelled.encode("cp1252"), sms)
    stars = [{"review_id": "a", "stars": r["label"], "review_body": r["first"], "language": "en"} for r in rows]
    yield _one("reviews.csv", "reviews with stars", delimited(stars), [
        {"text": r["first"], "label": r["label"]} for r in rows
    ])  # fmt: skip
    pairs = [{"prompt": r["first"], "completion": r["second"]} for r in rows]
    for name, what, first, second in (
        ("xsum.jsonl", "XSum", "document", "summary"),
        ("cnn.jsonl", "CNN and Daily Mail", "article", "highlights"),
        ("samsum.jsonl", "dialogues and their summaries", "dialogue", "summary"),
        ("source.jsonl", "source and target", "source", "target"),
        ("input.jsonl", "input and output", "input", "output"),
        ("query.jsonl", "query and response", "query", "response"),
        ("languages.jsonl", "columns called by languages", "de", "en-US"),
    ):
        data = jsonl([{"id": i, first: r["first"], second: r["second"]} for i, r in enumerate(rows)])
        yield _one(name, what, data, pairs)
    both = [{"id": "1", "translation": {"de": r["first"], "en": r["second"]}} for r in rows]
    yield _one("translation.jsonl", "translations on the hub", jsonl(both), pairs)
    asked = [{"instruction": r["first"], "output": r["second"]} for r in rows]
    for name, first, second in (("response.csv", "instruction", "response"), ("user.csv", "User", "Assistant")):
        data = delimited([{first: r["first"], second: r["second"]} for r in rows])
        yield _one(name, f"{first} and {second}", data, asked)


def of_choices(rows: Records) -> Iterator[Case]:
    """The tests that models are compared by."""
    swag = [
        {"ind": i, "ctx": r["question"], "endings": r["choices"], "label": str(r["answer"])} for i, r in enumerate(rows)
    ]
    yield _one("hellaswag.jsonl", "HellaSwag", jsonl(swag), rows)
    letters = ["A", "B", "C", "D"]
    listed = [{"text": r["choices"], "label": letters} for r in rows]
    arc = [
        {"question": r["question"], "choices": choices, "answerKey": letters[r["answer"]]}
        for r, choices in zip(rows, listed, strict=True)
    ]
    yield _one("arc.parquet", "ARC on the hub", parquet(arc), rows)
    own = [
        {"answerKey": letters[r["answer"]], "question": {"stem": r["question"], "choices": [
            {"text": text, "label": letter} for text, letter in zip(r["choices"], letters, strict=True)
        ]}}
        for r in rows
    ]  # fmt: skip
    yield _one("arc.jsonl", "ARC's own JSON", jsonl(own), rows)
    two = [{**r, "choices": r["choices"][:2], "answer": r["answer"] % 2} for r in rows]
    piqa = [
        {"goal": r["question"], "sol1": r["choices"][0], "sol2": r["choices"][1], "label": r["answer"]} for r in two
    ]
    yield _one("piqa.jsonl", "PIQA", jsonl(piqa), two)
    yield _one("mmlu.jsonl", "MMLU", jsonl([{**r, "subject": "law"} for r in rows]), rows)


# ---- what is refused


def refused() -> Iterator[Case]:
    rows = labelled(random.Random(SEED))
    good = delimited(rows)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1288490188\n"
    bomb = b"text,label\n" + b"a,b\n" * (2**24 + 2**18)
    for name, what, data in (
        ("book.xlsx", "an Excel workbook", b"PK\x03\x04"),
        ("book.ods", "a LibreOffice sheet", b"PK\x03\x04"),
        ("rows.zip", "an archive", b"PK\x03\x04"),
        ("renamed.csv", "an Excel workbook called .csv", b"PK\x03\x04\x14\0"),
        ("login.csv", "a web page called .csv", b"<!DOCTYPE html><html><title>Sign in</title></html>"),
        ("lfs.parquet", "a Git LFS pointer", pointer),
        ("cut.parquet", "half a Parquet file", parquet(rows)[:400]),
        ("empty.csv", "nothing", b""),
        ("header.csv", "a header alone", b"text,label\n"),
        ("twice.csv", "a header that names a column twice", b"text,label,text\na,b,c\n"),
        ("ragged.csv", "rows of other lengths", good + b"one,two,three\nfour\n"),
        ("unclosed.csv", "a quote that is not closed", good + b'"and so on,billing\n' + good),
        ("broken.csv", "a byte that is not UTF-8 in UTF-8", good + b"caf\xe9,billing\n" + good),
        ("cyrillic.csv", "cp1251", "текст,метка\nпосылка пришла,доставка\n".encode("cp1251")),
        ("nul.csv", "a NUL byte", good + b"a\0b,billing\n"),
        ("wide.csv", "300,000 columns", ",".join(f"c{i}" for i in range(300_000)).encode()),
        ("deep.json", "100,000 brackets", b"[" * 100_000),
        ("cut.json", "half a JSON array", document(rows, 0)[:-40]),
        ("two.json", "two arrays in one object", document({"train": rows, "test": rows})),
        ("uneven.json", "columns of other lengths", document({"text": ["a", "b"], "label": ["x"]})),
        ("cut.jsonl.gz", "half a gzip file", gz(jsonl(rows))[:-60]),
        ("bomb.csv.gz", "65 MiB in 66 kB", gz(bomb)),
        ("multi.jsonl", "Doccano, several labels a row", jsonl([{"text": "a", "label": ["b", "c"]}])),
        (
            "tweets.csv",
            "a CSV without a header",
            b'"0","1467","Mon Apr 06","user","a tweet"\n"4","1468","Mon","u","b"\n',
        ),
        ("spam.csv", "Kaggle's spam.csv, two rows of it", b"v1,v2,,,\nham,see you,,,\nspam,win now,,,\n"),
        ("three.jsonl", "three languages", jsonl([{"translation": {"en": "a", "de": "b", "fr": "c"}}])),
        ("summaries.csv", "summaries beside marks", b"document,summary,score\na long one,short,3\nanother,brief,4\n"),
        ("list.jsonl", "lines that are no objects", b'["text", "label"]\n["a", "b"]\n'),
    ):
        yield Case(name, what, {name: data})
    yield Case(
        "gap", "shards of which one is missing", {f"gap/train-0000{i}-of-00003.parquet": parquet(rows) for i in (0, 2)}
    )
    yield Case("both", "the same split twice", {"both/train.csv": good, "both/train.jsonl": jsonl(rows)})
    yield Case("nowhere.csv", "nothing by that name", {})


def cases() -> list[Case]:
    return [*accepted(), *refused()]


# ---- the table


def told(case: Case) -> tuple[str, str, str, str, str]:
    """A line of the table; in the folder that the case was written to."""
    given = f"`{case.path}`" + (f" `--columns {shlex.quote(case.columns)}`" if case.columns else "")
    try:
        found = case.load(case.path)
    except UsageError as error:
        lines = [line.strip() for line in error.message.removeprefix("the data has problems:").strip().splitlines()]
        return given, case.what, "refused", "", short("; ".join(lines))
    counts = ", ".join(f"{split} {len(rows)}" for split, rows in found.splits.items())
    return given, case.what, found.kind, counts, short("; ".join(found.notes))


def short(text: str) -> str:
    return text if len(text) <= MANY_LETTERS else text[:MANY_LETTERS].rstrip() + " …"


def table(some: Sequence[Case]) -> str:
    lines = ["| `--data` | what it is | rows | how many | what is said |", "| --- | --- | --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for case in some:
            case.write(Path())
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in told(case)) + " |")
    return "\n".join(lines) + "\n"


def renewed(text: str) -> str:
    """docs/data.md with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + table(cases()) + "\n" + END + after


if __name__ == "__main__":
    os.environ.setdefault("ZOLITE_HOME", tempfile.mkdtemp())
    DOCUMENT.write_text(renewed(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
