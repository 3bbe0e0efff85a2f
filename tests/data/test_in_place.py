"""Claims about the tokens of answers behind their prompts, for every family of tokenizers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import example as case
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from zolite.data.encode import encode
from zolite.data.examples import Example, Tokens, frame
from zolite.data.in_place import INSIDE, MOVED, in_place
from zolite.data.kinds.kind import Row
from zolite.data.kinds.label import answer_of, prompt_of

Families = Callable[[str], PreTrainedTokenizerFast]
APPENDED = {"bytes, another end": 1, "bytes, both ends": 1, "t5": 1, "unigram first": 1, "xlnet": 2, "bert": 1}
FAMILIES = (
    "gpt 2", "gpt 2, space first", "llama 3", "llama 2", "mistral, metaspace first", "metaspace always", "gemma",
    "phi 3", *APPENDED,
)  # fmt: skip
PIECES = (
    "yes", "no", "maybe", "Say it:", "it is", "foo", "bar", "parcel", "not_entailment", "20", "24", " ", "  ", "\n",
    "\n\n", ".", ":", "?", " is", " it", " the river", " a long way", " down, seven", "é", "你好", "Category:",
    "'s", "\t",
)  # fmt: skip

texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
answers = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)


@dataclass(frozen=True)
class Tool:
    """A user's own, which tokenizes texts as they are typed."""

    tokenizer: Any
    appended: int
    """tokens that the tokenizer puts behind every text, without which a tool sends it"""

    def sent(self, text: str) -> Tokens:
        ids = self.tokenizer(text)["input_ids"]
        return tuple(ids[: len(ids) - self.appended])

    def said(self, tokens: Tokens) -> str:
        return str(self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    def expects(self, prompt: str, answer: str, start: Tokens, rest: Tokens) -> bool:
        """The prompt as it is sent, then the answer: the whole text's tokens where they begin with the prompt's."""
        whole = self.sent(prompt + answer)
        if whole[: len(start)] == start:
            return start == self.sent(prompt) and start + rest == whole
        return start == self.sent(prompt) and self.said(start + rest) == self.said(whole)


@pytest.fixture(params=FAMILIES)
def tool(request: pytest.FixtureRequest, families: Families) -> Tool:
    return Tool(families(request.param), APPENDED.get(request.param, 0))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=texts, answer=answers)
@case(prompt="Say it:", answer=" yes")
@case(prompt="Say it:\n", answer="yes")
@case(prompt="Say it: ", answer="yes")
@case(prompt="Say it:", answer="\nyes")
@case(prompt="The river is a long way down, seven of foo", answer="bar")
@case(prompt="", answer="yes")
def test_trained_tokens_are_the_prompt_as_sent_and_then_the_answer(tool: Tool, prompt: str, answer: str) -> None:
    """Wherever the border between them falls; what follows the prompt decodes to the answer's text."""
    (placed,) = in_place(tool.tokenizer, [prompt], [[answer]])
    if placed.remark == MOVED:  # only where a text as a whole loses what its parts have
        assert placed.prompt + placed.answers[0] == tool.sent(prompt + answer)
        assert placed.prompt == tool.sent(prompt)[: len(placed.prompt)]
    else:
        assert tool.expects(prompt, answer, placed.prompt, placed.answers[0])


@pytest.mark.parametrize("template", ["{text} {label}", "{text}{label}", "{text}\nCategory:\n{label}"])
def test_every_label_is_tokenized_behind_its_own_prompt(tool: Tool, template: str) -> None:
    """Prompts that end in words, marks, spaces and new lines, among them some that end within a token."""
    labels = ("maybe", "maybe not", "no", "yes")
    ends = ("it is", "it is ", "it is\n", "Say it:", "foo", "a long way down, seven of 20", "你好")
    rows = [Row(i, {"text": f"Where is my parcel? {end}", "label": "no"}) for i, end in enumerate(ends)]
    for row, each in zip(rows, encode(rows, "label", labels, tool.tokenizer, template, 256).examples, strict=True):
        prompt = prompt_of(row, template)
        start = tool.sent(prompt)
        assert all(sequence[: len(start)] == start for sequence in each.sequences)
        for candidate, label in enumerate(labels):
            rest = tuple(query.token for query in each.queries if query.candidate == candidate)
            assert tool.expects(prompt, answer_of(label, template), start, rest)


def test_an_example_has_its_whole_text(tool: Tool) -> None:
    """Prompt, answer and end; the answer begins behind the prompt, and its tokens are what is asked for."""
    rows = [Row(1, {"prompt": "Is it here? Say it:", "completion": " maybe not\nyes"})]
    (each,) = encode(rows, "completion", (), tool.tokenizer, "", 256).examples
    end = () if tool.tokenizer.eos_token_id is None else (tool.tokenizer.eos_token_id,)
    assert each.text == tool.sent("Is it here? Say it: maybe not\nyes") + end
    assert each.text[: each.begins] == tool.sent("Is it here? Say it:")
    assert tuple(query.token for query in each.queries) == each.text[each.begins :]


def test_what_tokenizers_put_around_a_text_is_told_apart(families: Families) -> None:
    """An end need not be the tokenizer's eos, nor one token."""
    framed = {name: frame(families(name)) for name in ("gpt 2", "llama 2", "bytes, another end", "xlnet", "bert")}
    assert {name: tuple(map(len, each)) for name, each in framed.items()} == {
        "gpt 2": (0, 0), "llama 2": (1, 0), "bytes, another end": (0, 1), "xlnet": (0, 2), "bert": (1, 1),
    }  # fmt: skip


def completions(tokenizer: Any, *rows: tuple[str, str]) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    made = [Row(i, {"prompt": p, "completion": c}) for i, (p, c) in enumerate(rows, 1)]
    encoded = encode(made, "completion", (), tokenizer, "", 256)
    return encoded.examples, encoded.notes


def test_prompts_that_end_within_a_token_are_said_once(families: Families) -> None:
    """With how many there are and the first of them; others say nothing."""
    rows = [("Say it:", " yes"), ("Say it: ", "yes"), ("Say it: ", "no"), ("Say it:", " no")]
    examples, notes = completions(families("gpt 2"), *rows)
    assert [each.remark for each in examples] == ["", INSIDE, INSIDE, ""]
    assert notes == (f"in 2 of 4 rows, line 2 first, {INSIDE}",)
    assert completions(families("gpt 2"), rows[0])[1] == ()


def words(*known: str) -> PreTrainedTokenizerFast:
    """Whole words and nothing else."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(("[UNK]", *known))}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="[UNK]")


def test_a_border_that_nothing_goes_on_from_is_moved() -> None:
    """No token of whole words says "bar" within a word, so the word as a whole is the answer's."""
    tokenizer = words("a", "foo", "foobar", "foobaz")
    ((example,), (note,)) = completions(tokenizer, ("a foo", "bar"))
    assert tokenizer.convert_ids_to_tokens(list(example.text)) == ["a", "foobar", "[UNK]"]
    assert example.begins == 1 and note == f"in 1 of 1 rows, line 1 first, {MOVED}"
    (labelled,) = encode(
        [Row(1, {"text": "a foo", "label": "baz"})], "label", ("bar", "baz"), tokenizer, "{text}{label}", 9
    ).examples
    assert labelled.sequences == ((1,),) and [query.token for query in labelled.queries] == [3, 4]


def test_rows_are_tokenized_by_their_last_words(families: Families, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels cost a few words a row, not a text; the same words are tokenized once."""
    tokenizer, seen = families("llama 2"), []
    call = type(tokenizer).__call__

    def counted(self: Any, text: str | Sequence[str], **options: Any) -> Any:
        seen.extend([text] if isinstance(text, str) else text)
        return call(self, text, **options)

    monkeypatch.setattr(type(tokenizer), "__call__", counted)
    prompts = [f"{'The river is here. ' * (5 + i)}Is it a long way down? Category:" for i in range(40)]
    list(in_place(tokenizer, prompts, [[" yes", " no", " maybe"]] * 40))
    assert sum(len(text) > 100 for text in seen) == 40
    assert len(seen) < 40 + 20
