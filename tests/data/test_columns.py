"""Claims about which columns of a file are what."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.common.errors import UsageError
from zolite.config.fields import pair, pairs
from zolite.config.recipe import DataPart
from zolite.data.columns import Asked, Shape, recognised

TEMPLATE = DataPart.template


def shape_of(record: dict[str, Any], columns: str = "", template: str = TEMPLATE, more: Any = ()) -> Shape | None:
    return recognised([record, *more], Asked.of(template, columns))


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("text label", "label"),
        ("Text LABEL", "label"),
        ("review sentiment", "label"),
        ("text label_text label", "label"),
        ("prompt completion", "completion"),
        ("prompt response", "completion"),
        ("input output", "completion"),
        ("instruction input output", "alpaca"),
        ("instruction response", "alpaca"),
        ("instruction context response category", "alpaca"),
        ("instruction input output text", "alpaca"),
        ("*conversations", "sharegpt"),
        ("*messages tools", "messages"),
        ("*messages prompt prompt_id", "messages"),
        ("*prompt *completion", "completion-messages"),
        ("question answer", "question"),
        ("question answer id", "question"),
        ("context question answers id title", "question-context"),
        ("passage question answer", "question-context"),
        ("question choices answer subject", "choice"),
        ("question choices answerKey id", "choice"),
        ("question_stem choices answerKey", "choice"),
        ("article question options answer", "choice-context"),
        ("premise question choice1 choice2 label idx", "choice-context"),
        ("ctx_a ctx_b ctx endings label activity_label", "choice"),
        ("goal sol1 sol2 label", "choice"),
        ("sentence option1 option2 answer", "choice"),
        ("question A B C D answer", "choice"),
        ("prompt chosen rejected", "preference"),
        ("chosen rejected", "preference"),
        ("prompt *chosen *rejected *messages", "preference-messages"),
        ("text", "text"),
        ("text url timestamp", "text"),
        ("text category", "label"),
        ("text Department", ""),
        ("question answer label", ""),
        ("premise hypothesis label", "label"),
        ("premise hypothesis verdict", ""),
        ("question sentence label", "label"),
        ("question passage label", ""),
        ("title description label", "label"),
        ("stars review_body", "label"),
        ("document summary id", "completion"),
        ("document summary score", ""),
        ("document label", "label"),
        ("source target", "completion"),
        ("source target label", ""),
        ("de en", "completion"),
        ("id en", ""),
        ("en de fr", ""),
        ("user assistant", "alpaca"),
        ("user assistant rating", ""),
        ("", ""),
    ],
)
def test_a_kind_by_the_names_of_columns(names: str, kind: str) -> None:
    """Data sets that people have, by the columns that they come with."""
    numbered = {"label": 0} if "sol1" in names or "choice1" in names or "endings" in names else {}
    record = {name.lstrip("*"): [{"role": "user"}] if name[0] == "*" else "a" for name in names.split()}
    record |= {name: ["a", "b"] for name in ("choices", "options", "endings") if name in record} | numbered
    found = shape_of(record)
    assert (found.kind.name if found else "") == kind


def test_what_is_said() -> None:
    """Which columns were taken for what; nothing where every column has its own name."""
    found = shape_of({" Review ": "a", "Category": "b"})
    assert found and found.said == ("label rows: text = ' Review ', label = 'Category'",)
    found = shape_of({"text": "a", "label": "b"})
    assert found and found.said == ()
    found = shape_of({"instruction": "a", "output": "b"}, more=[{"instruction": "a", "input": "c", "output": "b"}])
    assert found and "instruction, output, input → a question and its answer" in found.said[0]


def test_what_is_asked_for_comes_first() -> None:
    """Over columns that have the name, in templates too; several columns are one with + between."""
    record = {"text": "a", "label": "b", "Body": "c", "x": "d", "y": "e"}
    found = shape_of(record, "text=Body")
    assert found and found.record(record) == {"text": "c", "label": "b"}
    found = shape_of(record, "who=Body", "{who} {x} {label}")
    assert found and found.record(record) == {"who": "c", "x": "d", "label": "b"}
    found = shape_of(record, "question=text,choices=x+y,answer=label")
    assert found and found.record(record)["choices"] == {"x": "d", "y": "e"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("text=Boddy", "the file has no column 'Boddy' (did you mean 'Body'?)"),
        ("txt=Body", "no shape of rows reads a column 'txt' (did you mean 'text'?)"),
        ("text=body+Extra", "the file has no column 'Extra'"),
        ("text", "'text' is not NAME=VALUE"),
    ],
)
def test_what_cannot_be(columns: str, message: str) -> None:
    """A column that is not there is named with the nearest one, and the hint has all of them."""
    with pytest.raises(UsageError) as caught:
        shape_of({"Body": "a", "label": "b"}, columns)
    assert message in caught.value.message and caught.value.hint


@given(st.lists(st.tuples(st.text(min_size=1), st.text())))
def test_pairs_are_read_as_they_are_written(given_: list[tuple[str, str]]) -> None:
    """Whatever the names: commas, quotes, backslashes, spaces at the ends."""
    assert pairs(",".join(pair(name, value) for name, value in given_)) == tuple(given_)


def test_a_shell_takes_quotes_away() -> None:
    """What is left of label="Category (final)" is read the same."""
    expected = (("label", "Category (final)"), ("text", "Body"))
    assert pairs('label="Category (final)",text=Body') == pairs("label=Category (final), text=Body") == expected
