"""Claim: conversations of one answer have the tokens of their rendering where nothing is rendered. The twin is a
tokenizer without a memory."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.data.test_renderings import KNOWN, TOKENIZERS, messages
from tests.data.test_words import SPECIAL, SPLIT
from zolite.data.answered import answered_of
from zolite.data.chat_template import Chat, filled
from zolite.data.encode import encode
from zolite.data.examples import Made, Packed, quick
from zolite.data.kinds.kind import Row
from zolite.data.turns import examples_of

NOW = Chat(now=datetime(2020, 2, 3))
SPLITTERS = [*SPLIT]
# What joins to a token across the border of a message, or to a special one; and what templates strip or ask for.
contents = st.lists(
    st.sampled_from(
        [*SPECIAL, "<", "|>", "a", "b", "hello world", "it's  33", " ", "\n", "\n\n", "é", "日本", "ё x", "."]
    )
    | st.text(max_size=3),
    max_size=6,
).map("".join)
talks = st.lists(st.lists(contents, min_size=2, max_size=4), min_size=1, max_size=4)


def speaking(name: str) -> Any:
    """A tokenizer with that template; its words are split in one of the ways that are known."""
    splitter = SPLITTERS[sorted(TOKENIZERS).index(name) % len(SPLITTERS)]
    inner = SPLIT[splitter].backend_tokenizer
    made = type(SPLIT[splitter])(tokenizer_object=inner, bos_token="<|im_start|>", eos_token="<|im_end|>")
    made.chat_template = TOKENIZERS[name].chat_template
    return filled(made, NOW)


def conversations(texts: list[list[str]]) -> list[Row]:
    """With and without a system's text before them."""
    talked = [tuple(messages(each)) for each in texts]
    system = {"role": "system", "content": texts[0][0]}
    return [Row(i, {}, each) for i, each in enumerate([*talked, *((system, *each) for each in talked)])]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=6)
@example(texts=[["a", "\n\nb"], ["\n", "\nab"], ["", "a  b"]], context=80)  # new lines join to one token
@given(texts=talks, context=st.integers(2, 80))
def test_tokens_are_those_of_the_rendering(name: str, texts: list[list[str]], context: int) -> None:
    tokenizer = speaking(name)
    remembering = quick(tokenizer)
    answered = answered_of(remembering)
    assert answered
    for row in conversations(texts) * 2:
        if (found := answered.example(row.messages, context)) is not None:
            assert found.made() == examples_of(row, tokenizer, context)
        examples_of(row, remembering, context)  # learns what the template does


@pytest.mark.parametrize("name", KNOWN)
def test_known_templates_are_not_run_for_each_row(name: str) -> None:
    """Behind the first conversation; one with a letter of special tokens, or of two answers, is rendered."""
    tokenizer = quick(speaking(name))
    answered = answered_of(tokenizer)
    assert answered
    examples_of(Row(1, {}, tuple(messages(["one", "two"]))), tokenizer, 4096)
    found = answered.example(messages(["a question?", "an answer"]), 4096)
    assert isinstance(found, Packed) and isinstance(found.made(), Made)
    assert answered.example(messages(["a < b?", "no"]), 4096) is None
    assert answered.example(messages(["a", "b", "c", "d"]), 4096) is None


def test_limits_are_those_of_other_rows() -> None:
    """A text that is cut counts, and a token or a place that the model has no embedding for is a fault."""
    tokenizer = speaking("ChatML")
    rows = [Row(i, {}, tuple(messages([f"question {i}", "hello world " * i]))) for i in range(1, 9)]
    every = [examples_of(row, tokenizer, 40) for row in rows]
    coded = encode(rows, "messages", (), tokenizer, "", 40)
    assert [each.examples[0] for each in every if isinstance(each, Made)] == list(coded.examples)
    assert coded.cut == sum(each.cut for each in every if isinstance(each, Made)) > 0
    for limits in ({"table": 300}, {"positions": 16}):
        with pytest.raises(Exception, match="8 of 8 rows cannot be used"):
            encode(rows, "messages", (), tokenizer, "", 40, **limits)
