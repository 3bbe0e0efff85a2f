"""Claims about every shape of rows, and about what each of them makes of a record."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zolite.common.errors import UsageError
from zolite.config.recipe import DataPart, Recipe
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.examples import Example, answers_of
from zolite.data.kinds.kind import Row
from zolite.data.kinds.registry import KINDS
from zolite.tools.prompt import Prompt
from zolite.training.evaluate import evaluate
from zolite.training.loop import train
from zolite.training.prepare import prepare

Folder = Callable[..., Path]
Make = Callable[..., Recipe]
TEMPLATE = DataPart.template


def written(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def loaded(path: Path, records: list[Any], **asked: Any) -> tuple[str, tuple[Row, ...]]:
    """(kind, all rows) of a file."""
    data = tables.load_for_eval(written(path / "rows.jsonl", records), asked.pop("template", TEMPLATE), (), **asked)
    (rows,) = data.splits.values()
    return data.kind, rows


def problems(path: Path, *records: Any, **asked: Any) -> str:
    with pytest.raises(UsageError) as caught:
        loaded(path, list(records), **asked)
    return caught.value.message


def examples_of(path: Path, records: list[Any], tokenizer: Any, context: int = 4096, **asked: Any) -> list[Example]:
    kind, rows = loaded(path, records, **asked)
    return list(encode(rows, kind, (), tokenizer, asked.get("template", TEMPLATE), context).examples)


# ---- laws over the table


@pytest.mark.parametrize("name", list(KINDS))
def test_what_is_trained_is_the_rows_text(name: str, folder: Folder, tokenizer: Any) -> None:
    """The trained pieces of a row are in the text of the trained tokens, the others in that of what is read."""
    data = tables.load(folder(name), TEMPLATE)
    coded = encode(data.splits["train"], name, data.labels, tokenizer, TEMPLATE, 4096)
    for i, example in zip(coded.origins, coded.examples, strict=True):
        pieces = list(KINDS[name].pieces(data.splits["train"][i], TEMPLATE))
        asked, trained = ("".join(piece.text for piece in pieces if piece.trained is side) for side in (False, True))
        answer = tokenizer.decode(list(answers_of(example)[example.answer]))
        if KINDS[name].prompt(TEMPLATE).chat:  # the template spells the rest
            assert all(line in answer for line in trained.split("\n"))
        else:
            assert trained in answer and asked in tokenizer.decode(list(example.sequences[0]))


@pytest.mark.parametrize("name", list(KINDS))
def test_the_order_of_keys_does_not_matter(name: str, folder: Folder) -> None:
    """A record with its columns the other way round is the same row, and says the same of its content."""
    where = folder(name)
    one = tables.load(where, TEMPLATE)
    for file in where.iterdir():
        records = [dict(reversed(json.loads(line).items())) for line in file.read_text().splitlines()]
        written(file, records)
    assert tables.load(where, TEMPLATE).fingerprint == one.fingerprint


SPELLED = [
    (name, column, spelling)
    for name, kind in KINDS.items()
    for column, spellings in kind.names.spellings.items()
    for spelling in spellings
    if isinstance(spelling, str)
]


@pytest.mark.parametrize(("name", "column", "spelling"), SPELLED)
def test_every_spelling_gives_the_same_rows(
    name: str, column: str, spelling: str, folder: Folder, tmp_path: Path
) -> None:
    """Another name of a column, in whatever case, is said, and makes the rows that its own name makes."""
    where = folder(name)
    file = where / "train.jsonl"
    one = tables.load_for_eval(file, TEMPLATE, ())
    records = [json.loads(line) for line in file.read_text().splitlines()]
    if column not in records[0]:
        pytest.skip("these rows do not have the column")
    odd = f" {spelling.upper()} "
    renamed = [{odd if key == column else key: value for key, value in record.items()} for record in records]
    other = tables.load_for_eval(written(tmp_path / "other.jsonl", renamed), TEMPLATE, ())
    assert (other.kind, other.fingerprint) == (name, one.fingerprint)
    assert any(f"{column} = {odd!r}" in note for note in other.notes)


@pytest.mark.parametrize("name", list(KINDS))
def test_columns_by_name_give_the_same_rows(name: str, folder: Folder) -> None:
    """Columns of any names are read by --columns as under their own."""
    file = folder(name) / "train.jsonl"
    one, kind = tables.load_for_eval(file, TEMPLATE, ()), KINDS[name]
    records = [json.loads(line) for line in file.read_text().splitlines()]
    known = (*kind.columns(TEMPLATE), *kind.names.optional)
    given = [key for key in records[0] if key in known]
    odd = {key: f'Spalte ({i}), {{{key[0]}}}: "ü"' for i, key in enumerate(given)}
    written(file, [{odd.get(key, key): value for key, value in record.items()} for record in records])
    columns = ",".join(f'{key}="{column.replace(chr(34), chr(92) + chr(34))}"' for key, column in odd.items())
    other = tables.load_for_eval(file, TEMPLATE, (), columns)
    assert (other.kind, other.fingerprint) == (name, one.fingerprint)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("label", "completion", "messages")])
def test_every_shape_is_trained(name: str, folder: Folder, recipe: Make) -> None:
    """Two steps and an evaluation by its metric."""
    from zolite.sessions import session as sessions

    changes = {"data__path": str(folder(name)), "train__steps": 2, "train__objective": "say", "adapter__space": "lora"}
    run = prepare(recipe(**changes, data__context=256))
    with sessions.create("shape", run.recipe, run.facts) as session:
        list(train(run, session))
        assert session.journal.last_step() == 2
    found = evaluate(run.engine, run.examples["dev"], "dev", 2)
    assert found.metric == KINDS[name].metric and found.value >= 0


def test_the_document_has_a_row_of_every_shape(tmp_path: Path) -> None:
    """In the order of its table, each read as what the table calls it."""
    text = (Path(__file__).parents[3] / "docs" / "rows.md").read_text(encoding="utf-8")
    shapes = [line.split("`")[1] for line in text.split("## Columns")[0].splitlines() if line.startswith("| `")]
    rows = text.partition("```json\n")[2].partition("```")[0].splitlines()
    assert set(shapes) == set(KINDS) and len(shapes) == len(rows)
    for shape, row in zip(shapes, rows, strict=True):
        other = json.loads(row) | ({"label": "other"} if shape == "label" else {})
        assert loaded(tmp_path, [json.loads(row), other])[0] == shape


# ---- conversations


TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


@pytest.mark.parametrize(
    "record",
    [
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]},
        {"conversations": TALK},
        {"conversations": json.dumps(TALK)},
        {"messages": json.dumps(TALK)},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, TALK[1]]},
        {"prompt": TALK[:1], "completion": TALK[1:]},
        {"instruction": "hi", "input": None, "output": "ho"},
        {"Instruction": "hi", "Response": "ho"},
        {"instruction": "", "input": "hi", "output": "ho"},
    ],
)
def test_conversations_of_every_shape_are_the_same(record: dict[str, Any], tmp_path: Path, tokenizer: Any) -> None:
    """ShareGPT, parts, JSON in a cell, TRL's pairs and Alpaca become what messages become."""
    one, other = (examples_of(tmp_path, [each] * 2, tokenizer) for each in ({"messages": TALK}, record))
    assert one == other


def test_parts_that_are_no_text_are_refused_by_name(tmp_path: Path) -> None:
    """With the number of the message, and its line."""
    content = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    said = problems(tmp_path, {"messages": [{"role": "user", "content": content}, TALK[1]]})
    assert "line 1: message 1: 'content' has a part of type 'image_url'" in said


def test_roles_of_sharegpt(tmp_path: Path) -> None:
    """A system column comes first; calls and results are messages; an unknown role is named."""
    call = json.dumps({"name": "look", "arguments": {"at": "sky"}})
    talk = [("human", "hi"), ("function_call", call), ("observation", "blue"), ("gpt", "ho")]
    record = {"system": "Be kind.", "conversations": [{"from": f, "value": v} for f, v in talk]}
    _, rows = loaded(tmp_path, [record])
    assert [m["role"] for m in rows[0].messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert rows[0].messages[2]["tool_calls"][0]["function"] == {"name": "look", "arguments": {"at": "sky"}}
    assert "'from' is 'robot'" in problems(tmp_path, {"conversations": [{"from": "robot", "value": "x"}]})


def test_instructions_without_a_chat_template_are_alpacas_text(tmp_path: Path, tokenizer: Any) -> None:
    """A model without one learns the words of Alpaca; its prompt has them around what a person types."""
    import copy

    bare = copy.copy(tokenizer)
    bare.chat_template = None
    record = {"instruction": "Translate.", "input": "Haus", "output": "house"}
    (example, _) = examples_of(tmp_path, [record] * 2, bare)
    text = tokenizer.decode(list(example.text))
    assert "### Instruction:\nTranslate.\n\nHaus\n\n### Response:\nhouse" in text
    prompt = Prompt(KINDS["alpaca"], TEMPLATE, chat_template=False)
    assert not prompt.chat and prompt.text({"prompt": "Translate.\n\nHaus"}) + "house" in text
    assert Prompt(KINDS["alpaca"], TEMPLATE).chat


# ---- prompts and questions


def test_answers_of_squad(tmp_path: Path) -> None:
    """The first is trained, the others are right too, each once."""
    answers = {"text": ["in May", "May", "in May"], "answer_start": [3, 6, 3]}
    record = {"context": "It was in May.", "question": "When?", "answers": answers, "title": "t"}
    kind, rows = loaded(tmp_path, [record])
    assert (kind, rows[0].columns["answer"], rows[0].references) == ("question-context", "in May", ("May",))
    text = "".join(piece.text for piece in KINDS[kind].pieces(rows[0], TEMPLATE))
    assert text == "Context: It was in May.\nQuestion: When?\nAnswer: in May"
    assert "'answer' is an object without an answer" in problems(tmp_path, record | {"answers": {"text": []}})


def test_an_answer_beside_a_label_is_not_clear(tmp_path: Path) -> None:
    """It may be a wrong one: which is meant has to be said."""
    record = {"question": "Which?", "answer": "that", "label": 0}
    assert "fits no shape" in problems(tmp_path, record)
    assert loaded(tmp_path, [record], columns="question=question,answer=answer")[0] == "question"
    other = record | {"label": 1, "question": "Who?"}
    assert loaded(tmp_path, [record, other], template="{question} {answer}? {label}")[0] == "label"


def test_a_template_makes_a_prompt_of_any_columns(tmp_path: Path) -> None:
    """With the answer found by its name, by --columns, or where the template names it."""
    record = {"Titel (kurz)": "Bad", "a:b": "rain", "output": "sun"}
    for template, columns in (
        ("{Titel (kurz)} {a:b}\nA: {output}", ""),
        ("{Titel (kurz)} {a:b}\nA: {completion}", "completion=output"),
    ):
        kind, (row,) = loaded(tmp_path, [record], template=template, columns=columns)
        texts = [(piece.text, piece.trained) for piece in KINDS[kind].pieces(row, template)]
        assert texts == [("Bad rain\nA:", False), (" sun", True)]
    kind, (row,) = loaded(tmp_path, [record], template="{a:b}\n")
    assert [piece.text for piece in KINDS[kind].pieces(row, "{a:b}\n")] == ["rain\n", "sun"]


def test_words_stand_for_values(tmp_path: Path) -> None:
    """A verbalizer gives labels words, and other columns too."""
    records = [{"sentence": "fine", "label": 1}, {"sentence": "bad", "label": 0}]
    data = tables.load_for_eval(
        written(tmp_path / "s.jsonl", records), "{sentence} It was {label}", (), verbalizer="0=terrible,1=great"
    )
    assert data.labels == ("great", "terrible")
    copa = {"premise": "It rained", "question": "effect", "choice1": "we left", "choice2": "we sang", "label": 0}
    template, words = "{premise} {question} {answer}", "question:cause=because,question:effect=so"
    kind, (row, _) = loaded(tmp_path, [copa, copa], template=template, verbalizer=words)
    assert "".join(piece.text for piece in KINDS[kind].pieces(row, template)) == "It rained so we left"
    with pytest.raises(UsageError, match="words for column 'colour'"):
        loaded(tmp_path, [copa], verbalizer="colour:1=red")


# ---- choices


QUESTION = {"question": "Which?", "choices": ["red", "green", "blue"]}


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({"answer": 0}, "red"),
        ({"answer": "2"}, "blue"),
        ({"answer": "B"}, "green"),
        ({"answer": "(c)"}, "blue"),
        ({"answer": "green"}, "green"),
        ({"choices": {"text": ["red", "green"], "label": ["1", "2"]}, "answerKey": "2"}, "green"),
        ({"choices": [{"label": "A", "text": "red"}, {"label": "B", "text": "green"}], "answerKey": "B"}, "green"),
        ({"choices": ["3", "4"], "answer": "3"}, "3"),
    ],
)
def test_the_answer_is_a_letter_a_number_or_a_text(changes: dict[str, Any], right: str, tmp_path: Path) -> None:
    """A text comes before a letter, and both before a number."""
    zero = QUESTION | {"answer": 0}
    assert (
        loaded(tmp_path, [QUESTION | changes, zero if "answer" in changes else QUESTION | changes])[1][0].columns[
            "answer"
        ]
        == right
    )


@pytest.mark.parametrize(
    ("record", "right"),
    [
        ({"A": "red", "B": "green", "C": "blue", "answer": "B"}, "green"),
        ({"choice1": "red", "choice2": "green", "label": "choice2"}, "green"),
        ({"option1": "red", "option2": "green", "answer": "2"}, "green"),
        ({"ending0": "red", "ending1": "green", "ending2": "blue", "ending3": "grey", "label": "0"}, "red"),
        ({"sol1": "red", "sol2": "green", "label": 0}, "red"),
        ({"A": "red", "B": "green", "C": "", "answer": "A"}, "red"),
    ],
)
def test_choices_in_columns(record: dict[str, Any], right: str, tmp_path: Path) -> None:
    """As files of many tasks have them; a cell that is blank is no choice."""
    kind, rows = loaded(tmp_path, [{"question": "Which?", **record}])
    assert kind == "choice" and rows[0].columns["answer"] == right


def test_from_where_answers_are_counted(tmp_path: Path) -> None:
    """As the rows show it, once for the file; where they do not, it is asked for."""
    first, last, middle = (QUESTION | {"answer": number} for number in (0, 3, 1))
    assert [row.columns["answer"] for row in loaded(tmp_path, [middle, last])[1]] == ["red", "blue"]
    assert [row.columns["answer"] for row in loaded(tmp_path, [middle, first])[1]] == ["green", "red"]
    assert "from 0 or from 1" in problems(tmp_path, middle)
    for start, right in ((0, "green"), (1, "red")):
        columns = f"answer_from_{start}=answer"
        assert loaded(tmp_path, [middle], columns=columns)[1][0].columns["answer"] == right
    assert "line 2: answer 3 is none of 3 choices, which are counted from 0" in problems(tmp_path, first, last)


def test_choices_that_cannot_be_compared(tmp_path: Path) -> None:
    """One alone, a blank one, the same twice, an answer that is none of them: all of them, by line."""
    wrong = [
        QUESTION | {"choices": ["red"], "answer": "red"},
        QUESTION | {"choices": ["red", " "], "answer": "red"},
        QUESTION | {"choices": ["red", "red"], "answer": "red"},
        QUESTION | {"answer": "yellow"},
    ]
    said = problems(tmp_path, *wrong)
    assert "line 1: 1 choices" in said and "line 2: choice 2 is blank" in said
    assert "line 3: choice 'red' is there 2 times" in said and "line 4: answer 'yellow' is none of 3" in said


def test_rows_with_different_numbers_of_choices_score_as_alone(tmp_path: Path, recipe: Make, folder: Folder) -> None:
    """A batch has the scores that each row has by itself, and no score for a choice that a row does not have."""
    import torch

    run = prepare(recipe(data__path=str(folder("choice")), train__steps=1, adapter__space="lora"))
    rows = run.examples["train"][:5]
    assert len({row.candidates for row in rows}) > 1
    together = run.engine.scores(rows)
    for row, scores in zip(rows, together, strict=True):
        assert torch.allclose(run.engine.scores([row])[0], scores[: row.candidates], atol=1e-5)
        assert bool((scores[row.candidates :] == -torch.inf).all())
    joint = replace(run.engine, joint=True).scores(rows)
    assert not bool(joint.isnan().any())


# ---- preferences


def test_pairs_are_two_candidates(tmp_path: Path, tokenizer: Any) -> None:
    """The chosen one is right; as texts behind the prompt as it stands, as messages as they are rendered."""
    texts = examples_of(tmp_path, [{"prompt": "Say:", "chosen": " yes", "rejected": " no"}] * 2, tokenizer)[0]
    assert (texts.candidates, texts.answer, texts.text) == (2, 0, ())
    end = "<|im_end|>"
    assert [tokenizer.decode(list(answer)) for answer in answers_of(texts)] == [f" yes{end}", f" no{end}"]
    sides = {"chosen": TALK, "rejected": [TALK[0], {"role": "assistant", "content": "no"}]}
    one, two, three = (
        examples_of(tmp_path, [record] * 2, tokenizer)[0]
        for record in (
            sides,
            sides | {"prompt": "hi"},
            {"prompt": TALK[:1], "chosen": TALK[1:], "rejected": sides["rejected"][1:]},
        )
    )
    assert one == two == three and one.candidates == 2
    (plain, *_) = examples_of(tmp_path, [{"messages": TALK}] * 2, tokenizer)
    assert answers_of(one)[0] == answers_of(plain)[0]


def test_a_prompt_that_both_answers_have(tmp_path: Path) -> None:
    """Where no column is the prompt, it is what both begin with, up to the last turn or to a word."""
    talk = "\n\nHuman: hi\n\nAssistant:"
    _, (row,) = loaded(tmp_path, [{"chosen": f"{talk} I am well", "rejected": f"{talk} I do not know"}])
    assert row.columns == {"prompt": talk, "chosen": " I am well", "rejected": " I do not know"}
    _, (row,) = loaded(tmp_path, [{"chosen": "The sky is blue", "rejected": "The sky is black"}])
    assert row.columns == {"prompt": "The sky is", "chosen": " blue", "rejected": " black"}


def test_faulty_pairs(tmp_path: Path) -> None:
    """The same twice, other types, conversations that part early: each by its line."""
    assert "are the same" in problems(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "b"})
    assert "not two texts" in problems(tmp_path, {"prompt": "a", "chosen": 3, "rejected": "b"})
    other = [{"role": "user", "content": "ho"}, TALK[1]]
    assert "not one conversation" in problems(tmp_path, {"chosen": TALK, "rejected": other})


# ---- plain text


def test_documents_become_windows(tmp_path: Path, tokenizer: Any) -> None:
    """Every token of a document is trained once, in windows of the context, and no window has two documents."""
    texts = ["a long way down " * 20, "short"]
    context = 32
    examples = examples_of(tmp_path, [{"text": text} for text in texts], tokenizer, context)
    assert max(len(example.sequences[0]) + 1 for example in examples) == context
    trained = [token for example in examples for token in answers_of(example)[0]]
    whole = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in texts]
    assert trained == [token for tokens in whole for token in tokens]
    assert examples[0].sequences[0][0] == tokenizer.bos_token_id


def test_text_beside_other_columns_is_not_clear(tmp_path: Path) -> None:
    """What says something of a document may stand beside it; anything else may be a label."""
    text = {"text": "a long way"}
    assert loaded(tmp_path, [text | {"url": "x", "id": 1}])[0] == "text"
    assert "fits no shape" in problems(tmp_path, text | {"Department": "b"})
    assert loaded(tmp_path, [text | {"Department": "b"}], columns="text=text")[0] == "text"
