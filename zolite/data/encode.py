"""Rows as token sequences, and which tokens of them are asked for.

label        one query per token of every label: the candidates are compared by what their tokens score together
completion   one query per token of the completion and its end
messages     one query per token of the assistant's messages, as the model's chat template spells them
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zolite.common.errors import UsageError, listed
from zolite.data.rows import Row, pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Query:
    """The hidden state at `position` of sequences[sequence] predicts `token` of candidate answer `candidate`."""

    sequence: int
    position: int
    token: int
    candidate: int


@dataclass(frozen=True)
class Example:
    """One row: the inputs to run, the tokens to score, which of the candidates is right (0 where there is one)."""

    sequences: tuple[_Tokens, ...]
    queries: tuple[Query, ...]
    answer: int
    candidates: int

    @functools.cached_property
    def arrays(self) -> Arrays:
        """Made once: a row comes back every epoch, and its batch is put together while the device waits."""
        queries = sorted(self.queries, key=lambda q: q.candidate)
        places = sorted({(q.sequence, q.position) for q in queries})
        owner = {place: i for i, place in enumerate(places)}
        return Arrays(
            ids=_array(itertools.chain(*self.sequences)),
            lengths=_array(map(len, self.sequences)),
            sequences=_array(sequence for sequence, _ in places),
            positions=_array(position for _, position in places),
            tokens=_array(q.token for q in queries),
            owners=_array(owner[q.sequence, q.position] for q in queries),
            counts=np.bincount(_array(q.candidate for q in queries), minlength=self.candidates).astype(np.int32),
        )


@dataclass(frozen=True)
class Arrays:
    """An example's numbers, int32: s sequences, p different places that predict something, q queries."""

    ids: NDArray[np.int32]  # (all tokens,): the sequences, one behind the other
    lengths: NDArray[np.int32]  # (s,)
    sequences: NDArray[np.int32]  # (p,): the sequence of each place, ascending
    positions: NDArray[np.int32]  # (p,): and where in it
    tokens: NDArray[np.int32]  # (q,), the candidates one behind the other
    owners: NDArray[np.int32]  # (q,): the place that predicts each
    counts: NDArray[np.int32]  # (candidates,): tokens of each


def _array(values: Iterable[int]) -> NDArray[np.int32]:
    return np.fromiter(values, np.int32)


@dataclass(frozen=True)
class Encoded:
    examples: tuple[Example, ...]
    cut: int
    """rows whose end was cut off at the context"""


@dataclass(frozen=True)
class _Fault:
    text: str
    hint: str = ""
    context: int = 0
    """the smallest context that would do; 0 where none would"""


_Result = tuple[Example, bool] | _Fault  # bool: was its end cut off


def encode(
    rows: Sequence[Row],
    kind: str,
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    context: int,
    file: str = "",
) -> Encoded:
    """The rows in order, each of at most `context` tokens with its answer.

    Raises UsageError with every row that cannot be encoded, or where the tokenizer cannot serve the kind.
    """
    if not rows:
        return Encoded((), 0)
    if kind == "label":
        results = _labelled(rows, labels, tokenizer, template, context)
    elif kind == "completion":
        results = _completions(rows, tokenizer, context)
    else:
        results = _conversations(rows, tokenizer, context)
    return _collect(rows, results, context, file)


def prompt_of(row: Row, template: str) -> str:
    """The template filled in up to {label}, without the whitespace before it, which belongs to the answer."""
    *before, (last, _) = pieces(template)
    return "".join(text + row.columns[name] for text, name in before) + last.rstrip()


def answer_of(label: str, template: str) -> str:
    """The label as it follows the prompt: with the whitespace that the template has before it."""
    last = pieces(template)[-1][0]
    return last[len(last.rstrip()) :] + label


def _collect(rows: Sequence[Row], results: Iterator[_Result], context: int, file: str) -> Encoded:
    done: list[tuple[Example, bool]] = []
    faults: list[tuple[int, _Fault]] = []
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, _Fault):
            faults.append((row.line, result))
        else:
            done.append(result)
    if faults:
        where = f"{file}: " if file else ""
        lines = listed([f"{where}line {line}: {fault.text}" for line, fault in faults])
        raise UsageError(f"{len(faults)} of {len(rows)} rows cannot be used:\n{lines}", _remedy([f for _, f in faults]))
    return Encoded(tuple(example for example, _ in done), sum(cut for _, cut in done))


def _remedy(faults: Sequence[_Fault]) -> str:
    need = max(fault.context for fault in faults)
    room = [f"--set data.context={need} would do, or shorten these rows"] if need else []
    return "; ".join(room + list(dict.fromkeys(fault.hint for fault in faults if fault.hint)))


# ---- label


def _labelled(
    rows: Sequence[Row], labels: Sequence[str], tokenizer: PreTrainedTokenizerBase, template: str, context: int
) -> Iterator[_Result]:
    answers = tokenized(tokenizer, [answer_of(label, template) for label in labels], special=False)
    _check_answers(labels, answers)
    inputs, home = _maximal([answer[:-1] for answer in answers])
    asked = [(home[c], j, token, c) for c, answer in enumerate(answers) for j, token in enumerate(answer)]
    longest = max(map(len, answers))
    prompts = tokenized(tokenizer, [prompt_of(row, template) for row in rows], special=True)
    for row, prompt in zip(rows, prompts, strict=True):
        if fault := _no_room(prompt, longest, context):
            yield fault
            continue
        last = len(prompt) - 1
        queries = tuple(Query(sequence, last + j, token, c) for sequence, j, token, c in asked)
        answer = labels.index(row.columns["label"])
        yield Example(tuple(prompt + tail for tail in inputs), queries, answer, len(labels)), False


def _check_answers(labels: Sequence[str], answers: Sequence[_Tokens]) -> None:
    first = {answer: label for label, answer in reversed(list(zip(labels, answers, strict=True)))}
    problems = [f"label {label!r} has no tokens" for label, answer in zip(labels, answers, strict=True) if not answer]
    problems += [
        f"labels {first[answer]!r} and {label!r} have the same tokens"
        for label, answer in zip(labels, answers, strict=True)
        if answer and first[answer] != label
    ]
    if problems:
        raise UsageError(f"this tokenizer cannot tell the labels apart:\n{listed(problems)}", "rename these labels")


def _maximal(inputs: Sequence[_Tokens]) -> tuple[list[_Tokens], list[int]]:
    """(the inputs that no other one extends, for each input the index of one that starts with it)."""
    ordered = sorted(set(inputs))  # whatever extends an input comes directly after it
    kept = [a for a, b in zip(ordered, [*ordered[1:], None], strict=True) if b is None or b[: len(a)] != a]
    return kept, [next(i for i, whole in enumerate(kept) if whole[: len(a)] == a) for a in inputs]


# ---- completion


def _completions(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, context: int) -> Iterator[_Result]:
    prompts = tokenized(tokenizer, [row.columns["prompt"] for row in rows], special=True)
    answers = tokenized(tokenizer, [row.columns["completion"] for row in rows], special=False)
    for prompt, answer in zip(prompts, answers, strict=True):
        if not answer:
            yield _Fault("the completion has no tokens", "correct these completions")
        elif fault := _no_room(prompt, 1, context):
            yield fault
        else:
            whole = prompt + _ended(answer, tokenizer)
            yield _scored(whole[:context], range(len(prompt), len(whole))), len(whole) > context


def _ended(answer: _Tokens, tokenizer: PreTrainedTokenizerBase) -> _Tokens:
    eos = tokenizer.eos_token_id
    return answer if eos is None or answer[-1] == eos else (*answer, eos)


def _scored(tokens: _Tokens, asked: Sequence[int]) -> Example:
    """One sequence; the tokens at the indices `asked` (from 1) are each predicted from the position before."""
    inside = [i for i in asked if i < len(tokens)]
    return Example((tokens[: inside[-1]],), tuple(Query(0, i - 1, tokens[i], 0) for i in inside), 0, 1)


# ---- messages


def _conversations(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, context: int) -> Iterator[_Result]:
    other = "use rows of prompt + completion, or another model"
    if not tokenizer.chat_template:
        raise UsageError("the data is conversations, but the model has no chat template", other)
    if not tokenizer.is_fast:
        raise UsageError("the model's tokenizer does not say which text a token stands for", other)
    return (_conversation(row.messages, tokenizer, context) for row in rows)


def _conversation(messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, context: int) -> _Result:
    try:
        text, spans = _rendered(messages, tokenizer)
    except Exception as error:  # noqa: BLE001 - the template is a program from elsewhere: it may raise anything
        return _Fault(f"the chat template does not suit it: {error}", "correct these rows or use prompt + completion")
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens: _Tokens = tuple(coded["input_ids"])
    offsets = enumerate(coded["offset_mapping"])
    asked = [i for i, (at, _) in offsets if i and any(start <= at < end for start, end in spans)]
    if not asked:
        return _Fault("the assistant's messages have no tokens", "correct these rows")
    if asked[0] >= context:
        text = f"{asked[0]} tokens before the assistant's first leave it no room at context {context}"
        return _Fault(text, context=asked[0] + 1)
    return _scored(tokens[:context], asked), len(tokens) > context


def _rendered(
    messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase
) -> tuple[str, list[tuple[int, int]]]:
    """(the conversation as text, where the assistant's messages start and end); ValueError where they cannot be found.

    A message is what its rendering adds to the rendering, with the generation prompt, of those before it.
    """

    def render(count: int, prompt: bool = False) -> str:
        turns = [dict(message) for message in messages[:count]]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))

    whole = render(len(messages))
    spans = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            if i == 0:
                raise ValueError("the assistant's message comes first")
            before, after = render(i, prompt=True), render(i + 1)
            if not after.startswith(before) or not whole.startswith(after):
                raise ValueError(f"message {i + 1} is rendered differently by itself and with what stands around it")
            spans.append((len(before), len(after)))
    return whole, spans


# ---- tokens


def tokenized(tokenizer: PreTrainedTokenizerBase, texts: list[str], special: bool) -> list[_Tokens]:
    """Token ids of each text; with `special`, those that the tokenizer puts in front of a text too."""
    coded = tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]
    # An end that the tokenizer appends would stand between prompt and answer; one that the text spells stays.
    end = 1 if special and tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id] else 0
    return [tuple(ids[: len(ids) - end]) for ids in coded]


def _no_room(prompt: _Tokens, answer: int, context: int) -> _Fault | None:
    """What is wrong with a prompt before an answer of `answer` tokens."""
    if not prompt:
        return _Fault("the prompt has no tokens to predict an answer from", "give these rows a prompt")
    if len(prompt) + answer <= context:
        return None
    text = f"prompt of {len(prompt)} tokens leaves no room for the answer at context {context}"
    return _Fault(text, context=len(prompt) + answer)
