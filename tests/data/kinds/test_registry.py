"""Claims about shapes of rows: a new one is one object, and everything that zolite does with rows does it with that."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from zolite.config.recipe import DataPart, Recipe
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.examples import Example, Query, Rendered, tokenized
from zolite.data.kinds import label
from zolite.data.kinds.kind import Kind, Names, Piece, Prompt, Row
from zolite.data.kinds.registry import KINDS
from zolite.data.lengths import estimate
from zolite.data.preview import report
from zolite.data.readers.reader import Record
from zolite.export.export import export
from zolite.sessions import session as sessions
from zolite.tools.chat import Answer, open_
from zolite.training.evaluate import METRICS
from zolite.training.loop import train
from zolite.training.prepare import prepare
from zolite.training.score import score

Folder = Callable[..., Path]
Make = Callable[..., Recipe]


class Quiz:
    """A question with two answers of its own, of which one is right: `right` is a or b."""

    name = "quiz"
    title = "questions with two answers: it learns to choose one"
    label_column = ""
    metric = "accuracy"
    names = Names()

    def columns(self, template: str) -> tuple[str, ...]:
        return "question", "a", "b", "right"

    def faults(self, record: Record, columns: Sequence[str]) -> list[str]:
        return [] if record["right"] in ("a", "b") else [f"column 'right' is {record['right']!r}, not a or b"]

    def row(self, line: int, record: Record, columns: Sequence[str]) -> Row:
        return Row(line, {name: str(record[name]) for name in columns})

    def render(
        self, rows: Sequence[Row], labels: Sequence[str], tokenizer: Any, template: str, context: int
    ) -> Iterator[Rendered]:
        for row in rows:
            (question,) = tokenized(tokenizer, [row.columns["question"]], special=True)
            answers = tokenized(tokenizer, [f" {row.columns[name]}" for name in "ab"], special=False)
            queries = [
                Query(c, len(question) - 1 + i, token, c)
                for c, answer in enumerate(answers)
                for i, token in enumerate(answer)
            ]
            right, sequences = "ab".index(row.columns["right"]), tuple(question + answer[:-1] for answer in answers)
            yield Example(sequences, tuple(queries), right, 2, self.metric), False

    def pieces(self, row: Row, template: str) -> Iterator[Piece]:
        yield Piece(row.columns["question"], False)
        yield Piece(f" {row.columns[row.columns['right']]}", True)

    def predicted(self, row: Row, count: Callable[[str], int]) -> int:
        return sum(count(row.columns[name]) for name in "ab")

    def prompt(self, template: str) -> Prompt:
        return Prompt(after="?")


class Review(label.Label):
    """Rows with labels in other columns: what differs is how a record becomes a row."""

    name = "review"
    title = "reviews with points: it learns to choose the points"

    def columns(self, template: str) -> tuple[str, ...]:
        return "review", "points"

    def row(self, line: int, record: Record, columns: Sequence[str]) -> Row:
        return Row(line, {"text": record["review"], "label": str(record["points"])})


QUIZ = [
    {"question": f"Which river, {i}?", "a": "the blue one", "b": "no", "right": "ab"[i % 3 == 0], "more": i}
    for i in range(24)
]
REVIEWS = [{"review": f"warm harbour {i}", "points": 1 + i % 2} for i in range(24)]


@pytest.fixture(params=[(Quiz(), QUIZ), (Review(), REVIEWS)], ids=["quiz", "review"])
def outside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Kind, Path]:
    """(a kind that is not in the package, a folder of its rows)."""
    kind, records = request.param
    monkeypatch.setitem(KINDS, kind.name, kind)
    folder = tmp_path / "rows"
    folder.mkdir()
    for split, some in {"train": records, "validation": records[:8], "test": records[:6]}.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in some))
    return kind, folder


def test_a_shape_from_outside_is_read(outside: tuple[Kind, Path], tiny: Path, tokenizer: Any) -> None:
    """It is recognised, shown by letters and by a tokenizer, and its lengths are estimated."""
    kind, folder = outside
    dataset = tables.load(folder, DataPart.template)
    assert dataset.kind == kind.name and dataset.files["dev"] == "validation.jsonl"
    assert dataset.labels == (("1", "2") if kind.label_column else ())
    for found in (report(folder, DataPart.template), report(folder, DataPart.template, str(tiny), tokenizer)):
        assert (found.kind, found.title, found.metric, found.problems) == (kind.name, kind.title, kind.metric, ())
        trained = ["".join(piece.text for piece in row.pieces if piece.trained) for row in found.first]
        assert trained == ([" 1", " 2", " 1", " 2", " 1"] if kind.label_column else [
            " no", " the blue one", " the blue one", " no", " the blue one",
        ])  # fmt: skip
    rows = estimate(folder, DataPart.template, tiny, 100)
    assert rows.labels == len(dataset.labels) and 0 < rows.positions <= rows.tokens <= 100


def test_a_shape_from_outside_is_checked(outside: tuple[Kind, Path]) -> None:
    """Its own faults, rows of other kinds and missing columns come with their lines; with what else is expected."""
    kind, folder = outside
    good = json.loads((folder / "train.jsonl").read_text().splitlines()[0])
    first, *_, last = kind.columns(DataPart.template)
    lacking = {column: value for column, value in good.items() if column != first}
    records = [good, good | {last: None}, {"prompt": "p", "completion": "c"}, lacking]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, records)))
    unsound, other, missing = report(folder, DataPart.template).problems
    assert unsound.startswith(f"train.jsonl: line 2: column '{last}' is ")
    assert other == f"train.jsonl: line 3: a completion row among {kind.name} rows"
    assert missing.startswith(f"train.jsonl: line 4: no column '{first}' (it has: ")
    (folder / "train.jsonl").write_text(json.dumps({f"{name}_of_it": 1 for name in kind.columns(DataPart.template)}))
    found = report(folder, DataPart.template)
    assert "fits no shape of rows" in found.problems[0] and found.hint.startswith("zolite data check ")


def test_a_shape_from_outside_is_trained_and_exported(
    outside: tuple[Kind, Path], recipe: Make, tmp_path: Path, tiny: Path
) -> None:
    """Two steps, its metric on dev and test, an export that reads back with its prompt, and an answer in a chat."""
    kind, folder = outside
    run = prepare(recipe(data__path=str(folder), train__steps=2, train__eval_every=1, train__objective="say"))
    with sessions.create("outside", run.recipe, run.facts) as session:
        list(train(run, session))
        assert session.journal.last_step() == 2
        assert {e.metric for e in session.journal.evaluations()} == {kind.metric}
        export(session, tmp_path / "out", "merged", verify=True)
    evaluated = score("outside", folder, {"model.device": "cpu"})
    assert (evaluated.metric, evaluated.rows) == (kind.metric, 6) and 0 <= evaluated.value <= 1
    modelfile, card = ((tmp_path / "out" / name).read_text() for name in ("Modelfile", "README.md"))
    asked = "\nCategory:" if kind.label_column else "?"
    assert f"{{{{ .Content }}}}{asked}{{{{ end }}}}" in modelfile
    assert ("REVIEW\nCategory:\n" if kind.label_column else "QUESTION\n") in card
    with open_("outside") as talk:
        *_, answer = talk.reply("a long way down", 3, shares=True)
        assert isinstance(answer, Answer) and answer.tokens > 0
        assert set(answer.shares.get("tuned", ())) == ({"1", "2"} if kind.label_column else set())


# ---- laws over the table


@pytest.mark.parametrize("name", list(KINDS))
def test_kinds_are_what_they_say(name: str, folder: Folder, tokenizer: Any) -> None:
    """A kind is found under its name, recognised by its columns, and its examples carry its metric."""
    kind, where = KINDS[name], folder(name)
    dataset = tables.load(where, DataPart.template)
    assert (kind.name, dataset.kind) == (name, name) and kind.metric in METRICS
    assert bool(dataset.labels) == bool(kind.label_column)
    examples = encode(dataset.splits["dev"], name, dataset.labels, tokenizer, DataPart.template, 128).examples
    assert {example.metric for example in examples} == {kind.metric}


@pytest.mark.parametrize("name", list(KINDS))
def test_an_estimate_holds_the_longest_row(name: str, folder: Folder, tokenizer: Any, tiny: Path) -> None:
    """With a model's tokenizer.json at hand, no row is longer than the estimate, at most three times as long."""
    where = folder(name)
    exact = report(where, DataPart.template, str(tiny), tokenizer)
    rows = estimate(where, DataPart.template, tiny, 10**6)
    assert exact.tokens <= rows.tokens <= 3 * exact.tokens
    assert rows.positions >= exact.positions // 2


def test_reports_are_json(folder: Folder) -> None:
    """What the app reads of a report is in the JSON that the command prints."""
    for name, kind in KINDS.items():
        document = json.loads(json.dumps(asdict(report(folder(name), DataPart.template))))
        assert (document["kind"], document["title"], document["metric"]) == (name, kind.title, kind.metric)
