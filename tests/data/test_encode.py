"""Claims about prompts, answers and which tokens are scored."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from zolite.common.errors import UsageError
from zolite.data.encode import Encoded, encode
from zolite.data.examples import Example
from zolite.data.kinds.kind import Row
from zolite.data.kinds.label import answer_of, prompt_of

TEMPLATE = "{text}\nCategory: {label}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def bytes_tokenizer(chat: str | None = CHATML, frame: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte, but " yes" and " no" are one token each; `frame` puts <s> before and the end after a text."""
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("Ġ", "y"), ("Ġy", "e"), ("Ġye", "s"), ("Ġ", "n"), ("Ġn", "o")]
    vocab |= {a + b: len(vocab) + i for i, (a, b) in enumerate(merges)}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
    if frame:
        special = [(token, inner.token_to_id(token)) for token in ("<s>", "<|im_end|>")]
        inner.post_processor = processors.TemplateProcessing("<s> $A <|im_end|>", special_tokens=special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>")
    tokenizer.chat_template = chat
    return tokenizer


TOKENIZER = bytes_tokenizer()
END = TOKENIZER.eos_token_id


def label_row(text: str, label: str, line: int = 1) -> Row:
    return Row(line, {"text": text, "label": label})


def chat_row(*turns: str, line: int = 1) -> Row:
    """Turns by user and assistant in alternation."""
    return Row(line, {}, tuple({"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)))


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def asked(example: Example, candidate: int) -> tuple[int, ...]:
    """The tokens of one candidate, in the order of their positions."""
    queries = [query for query in example.queries if query.candidate == candidate]
    assert [q.position for q in queries] == sorted({q.position for q in queries})
    return tuple(query.token for query in queries)


def one(encoded: Encoded) -> Example:
    assert len(encoded.examples) == 1
    return encoded.examples[0]


def refusal(rows: Sequence[Row], kind: str, labels: Sequence[str] = (), context: int = 64, **given: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        encode(rows, kind, labels, TOKENIZER, TEMPLATE, context, **given)
    assert caught.value.hint
    return caught.value


# ---- labels


@settings(deadline=None)
@given(st.text(max_size=20), st.lists(st.text("ab ", min_size=1, max_size=5), min_size=2, max_size=6, unique=True))
def test_queries_spell_the_labels(text: str, labels: list[str]) -> None:
    """Each candidate's queries are its answer's tokens, asked where a sequence has spelled what comes before."""
    example = one(encode([label_row(text, labels[1])], "label", labels, TOKENIZER, TEMPLATE, 512))
    prompt = ids(f"{text}\nCategory:")
    assert (example.answer, example.candidates) == (1, len(labels))
    for candidate, label in enumerate(labels):
        assert asked(example, candidate) == ids(f" {label}")
    for query in example.queries:
        sequence, answer = example.sequences[query.sequence], ids(f" {labels[query.candidate]}")
        done = query.position + 1 - len(prompt)
        assert sequence[: query.position + 1] == prompt + answer[:done]
        assert query.token == answer[done]


@settings(deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=5), min_size=2, max_size=8, unique=True))
def test_only_maximal_sequences_are_kept(labels: list[str]) -> None:
    """No sequence is the start of another, and none is longer than a label needs."""
    sequences = one(encode([label_row("t", labels[0])], "label", labels, TOKENIZER, TEMPLATE, 512)).sequences
    wanted = {ids("t\nCategory:") + ids(f" {label}")[:-1] for label in labels}
    assert set(sequences) <= wanted and len(set(sequences)) == len(sequences)
    assert all(sum(s[: len(w)] == w for s in sequences) >= 1 for w in wanted)
    assert not any(a != b and b[: len(a)] == a for a in sequences for b in sequences)


def test_labels_of_one_token_share_the_prompt() -> None:
    """Where every label is one token there is one sequence, the prompt, asked once per label at its end."""
    example = one(encode([label_row("ok?", "yes")], "label", ["no", "yes"], TOKENIZER, TEMPLATE, 64))
    prompt = ids("ok?\nCategory:")
    assert example.sequences == (prompt,)
    assert [(q.sequence, q.position, q.candidate) for q in example.queries] == [
        (0, len(prompt) - 1, 0),
        (0, len(prompt) - 1, 1),
    ]
    assert example.answer == 1


@settings(deadline=None)
@given(st.text("{}a!:0", max_size=12))
def test_braces_in_a_row_are_text(text: str) -> None:
    """What a row says is never read as a template."""
    assert prompt_of(label_row(text, "x"), "{{{text}}} is {label}") == "{" + text + "} is"


@pytest.mark.parametrize(
    ("template", "prompt", "answer"),
    [
        ("{text}\nCategory: {label}", "hi \nCategory:", " x"),
        ("{text}\nCategory:\n{label}\n", "hi \nCategory:", "\nx"),
        ("{text} {label}", "hi ", " x"),
        ("{text}{label}", "hi ", "x"),
        ("{text}:{{ \n{label}", "hi :{", " \nx"),
    ],
)
def test_whitespace_goes_to_the_label(template: str, prompt: str, answer: str) -> None:
    """Whitespace that the template has before the label belongs to the answer; the row's own stays in the prompt."""
    assert (prompt_of(label_row("hi ", "x"), template), answer_of("x", template)) == (prompt, answer)


def test_special_tokens_frame_the_prompt_alone() -> None:
    """A token that the tokenizer puts in front stays, an end that it appends goes, and answers have neither."""
    framed = bytes_tokenizer(frame=True)
    example = one(encode([label_row("a<|im_end|>", "yes")], "label", ["no", "yes"], framed, "{text} {label}", 64))
    assert example.sequences == ((framed.convert_tokens_to_ids("<s>"), *ids("a<|im_end|>")),)
    assert asked(example, 1) == ids(" yes")


def test_prompts_without_room_are_listed() -> None:
    """A prompt too long for the longest label is named with its numbers, and the hint's context would do."""
    rows = [label_row("a" * n, "yes", line) for line, n in ((3, 4), (5, 60), (12, 70))]
    labels = ["maybe", "yes"]
    error = refusal(rows, "label", labels, file="dev.jsonl")
    assert "2 of 3 rows" in error.message
    assert "dev.jsonl: line 12: prompt of 80 tokens leaves no room for the answer at context 64" in error.message
    assert "data.context=86" in error.hint
    assert len(encode(rows, "label", labels, TOKENIZER, TEMPLATE, 86).examples) == 3
    assert "data.context=86" in refusal(rows, "label", labels, 85).hint


def test_labels_that_look_alike_are_refused() -> None:
    """Candidates without tokens, or with the tokens of another, cannot be compared."""
    with pytest.raises(UsageError, match="label '' has no tokens"):
        encode([label_row("a", "yes")], "label", ["", "yes"], TOKENIZER, "{text}:{label}", 64)
    lower = bytes_tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(UsageError, match="labels 'Yes' and 'yes' have the same tokens"):
        encode([label_row("a", "yes")], "label", ["Yes", "yes"], lower, TEMPLATE, 64)


# ---- completions


@settings(deadline=None)
@given(st.text(min_size=1, max_size=10), st.text(min_size=1, max_size=40), st.integers(42, 90))
def test_a_completion_is_scored_to_its_end(prompt: str, completion: str, context: int) -> None:
    """Every token of the completion and its end is asked for from the position before, up to the context."""
    encoded = encode([Row(1, {"prompt": prompt, "completion": completion})], "completion", (), TOKENIZER, "", context)
    whole = ids(prompt) + ids(completion) + (END,)
    example = one(encoded)
    assert example.sequences == (whole[:context][:-1],)
    assert [(q.position, q.token) for q in example.queries] == [
        (i - 1, whole[i]) for i in range(len(ids(prompt)), min(len(whole), context))
    ]
    assert (example.answer, example.candidates, encoded.cut) == (0, 1, int(len(whole) > context))


def test_an_end_is_added_once() -> None:
    """A completion that spells its own end gets no second one."""
    rows = [Row(1, {"prompt": "a", "completion": "b<|im_end|>"})]
    assert asked(one(encode(rows, "completion", (), TOKENIZER, "", 64)), 0) == (*ids("b"), END)


def test_prompts_that_fill_the_context_are_listed() -> None:
    """A completion needs room for one token, and a prompt at least one of its own."""
    rows = [Row(2, {"prompt": "a" * 64, "completion": "b"}), Row(4, {"prompt": "", "completion": "b"})]
    error = refusal(rows, "completion")
    assert "line 2: prompt of 64 tokens leaves no room" in error.message and "data.context=65" in error.hint
    assert "line 4: the prompt has no tokens" in error.message


@pytest.mark.parametrize(
    ("kind", "row"), [("completion", Row(1, {"prompt": "a", "completion": "b"})), ("messages", chat_row("a", "b"))]
)
def test_an_exact_fit_is_not_cut(kind: str, row: Row) -> None:
    """The context counts every token, the last one that is only predicted included."""
    whole = one(encode([row], kind, (), TOKENIZER, "", 512))
    length = len(whole.sequences[0]) + 1
    assert encode([row], kind, (), TOKENIZER, "", length) == Encoded((whole,), 0)
    assert encode([row], kind, (), TOKENIZER, "", length - 1).cut == 1


# ---- conversations


words = st.text("ab é<", min_size=1, max_size=8)


@settings(deadline=None)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=3))
def test_only_the_assistant_is_scored(turns: list[tuple[str, str]]) -> None:
    """The tokens asked for spell the assistant's messages with their ends, each from the position before."""
    row = chat_row(*(text for turn in turns for text in turn))
    example = one(encode([row], "messages", (), TOKENIZER, "", 512))
    text = TOKENIZER.apply_chat_template(list(row.messages), tokenize=False)
    tokens = ids(str(text))
    assert example.sequences == (tokens[:-1],)
    assert all(tokens[query.position + 1] == query.token for query in example.queries)
    assert TOKENIZER.decode(asked(example, 0)) == "".join(f"{answer}<|im_end|>\n" for _, answer in turns)


def test_a_last_question_is_not_run() -> None:
    """Nothing after the last token asked for is in the sequence."""
    long, short = (one(encode([chat_row(*t)], "messages", (), TOKENIZER, "", 256)) for t in ("abc", "ab"))
    assert long == short


def test_long_conversations_are_cut() -> None:
    """A conversation longer than the context loses its end, and is counted."""
    encoded = encode([chat_row("a", "b" * 99), chat_row("a", "b")], "messages", (), TOKENIZER, "", 40)
    assert encoded.cut == 1
    assert len(encoded.examples[0].sequences[0]) == 39


def test_conversations_without_an_answer_left_are_listed() -> None:
    """Where the context ends before the assistant speaks, the row is refused with the context that would do."""
    rows = [chat_row("a" * 80, "b", line=7)]
    error = refusal(rows, "messages")
    need = int(error.hint.split("data.context=")[1].split()[0])
    assert "line 7" in error.message and f"{need - 1} tokens" in error.message
    assert len(one(encode(rows, "messages", (), TOKENIZER, "", need)).queries) == 1
    refusal(rows, "messages", context=need - 1)


def test_an_assistant_cannot_come_first() -> None:
    """An answer to nothing is refused."""
    row = Row(2, {}, ({"role": "assistant", "content": "hello"},))
    assert "line 2: the assistant's message comes first, and no prompt" in refusal([row], "messages").message


def test_conversations_need_a_chat_template() -> None:
    """A tokenizer without one is refused once, with the other format in the hint."""
    with pytest.raises(UsageError, match="no chat template") as caught:
        encode([chat_row("a", "b")] * 3, "messages", (), bytes_tokenizer(None), "", 64)
    assert "prompt + completion" in caught.value.hint


@pytest.mark.parametrize("kind", ["label", "completion", "messages"])
def test_nothing_gives_nothing(kind: str) -> None:
    """No rows encode to no examples."""
    assert encode([], kind, ("a", "b"), TOKENIZER, TEMPLATE, 64) == Encoded((), 0)


@pytest.mark.parametrize("kind", ["label", "completion", "messages"])
def test_tokens_beyond_the_embedding_table_are_listed(kind: str) -> None:
    """Before a model is loaded: with their rows, their names and the table; candidates and ends are counted too."""
    rows = {
        "label": [label_row("a", "no", 3), label_row("b<|im_end|>", "yes", 4)],
        "completion": [Row(n, {"prompt": "a", "completion": "b"}) for n in (3, 4)],
        "messages": [chat_row("a", "b", line=3), chat_row("a", "b", line=4)],
    }[kind]
    last = max(END, *ids("<|im_start|>"))
    assert len(encode(rows, kind, ("no", "yes"), TOKENIZER, TEMPLATE, 64, table=last + 1).examples) == 2
    with pytest.raises(UsageError) as caught:
        encode(rows, kind, ("no", "yes"), TOKENIZER, TEMPLATE, 64, "train.jsonl", last)
    assert f"line 4: token {last}, '<|im_end|>', is beyond the model's embedding table of {last} rows" in str(
        caught.value.message
    )
    assert "resize" in caught.value.hint


@pytest.mark.parametrize("kind", ["label", "completion", "messages"])
@pytest.mark.parametrize("positions", [40, 43])
def test_rows_beyond_learned_positions_are_listed(kind: str, positions: int) -> None:
    """Before a model is loaded: where they have more tokens, padded to a multiple of 8, than it has positions."""

    def row(length: int, line: int) -> Row:
        text = "a" * length
        if kind == "messages":
            return chat_row(text, "b", line=line)
        return label_row(text, "no", line) if kind == "label" else Row(line, {"prompt": text, "completion": "b"})

    def tokens(length: int) -> int:
        (example,) = encode([row(length, 1)], kind, ("no", "yes"), TOKENIZER, TEMPLATE, 10**6).examples
        return max(*map(len, example.sequences), len(example.text) - 1)  # the latter where the label is said

    fits = 40 - tokens(1) + 1
    assert tokens(fits) == 40
    rows = [row(fits, 1), row(fits + 1, 2), row(1, 3)]
    with pytest.raises(UsageError) as caught:
        encode(rows, kind, ("no", "yes"), TOKENIZER, TEMPLATE, 10**6, "train.jsonl", positions=positions)
    first, *others = caught.value.message.splitlines()
    assert first.startswith("1 of 3 rows") and len(others) == 1
    assert f"line 2: 42 tokens are beyond the model's {positions} positions" in others[0]
    assert "--set data.context=40" in caught.value.hint
    assert encode(rows, kind, ("no", "yes"), TOKENIZER, TEMPLATE, 10**6, positions=48)
