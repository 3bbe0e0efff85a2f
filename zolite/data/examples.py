"""What a row becomes for a model: token sequences to run, and which tokens are predicted from which places of them."""

from __future__ import annotations

import array
import copy
import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast, overload, runtime_checkable

from zolite.data.renderings import Renderings
from zolite.data.words import Words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

Tokens = tuple[int, ...]
PADDING = 0
"""The token that fills up sequences on the right: no decoder reads it, and from encoders it is hidden."""


@dataclass(frozen=True)
class Query:
    """The hidden state at `position` of sequences[sequence] predicts `token` of candidate answer `candidate`."""

    sequence: int
    position: int
    token: int
    candidate: int


@dataclass(frozen=True, eq=False)
class Following(Sequence[Query]):
    """The queries of a text: each of the tokens at `predicted`, ascending from 1, is asked for at the place before it.

    They are made when somebody wants to see them: a text has hundreds.
    """

    text: Tokens
    predicted: Sequence[int]

    def __len__(self) -> int:
        return len(self.predicted)

    @overload
    def __getitem__(self, index: int) -> Query: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Query, ...]: ...

    def __getitem__(self, index: int | slice) -> Query | tuple[Query, ...]:
        if isinstance(index, slice):
            return tuple(Query(0, i - 1, self.text[i], 0) for i in self.predicted[index])
        i = self.predicted[index]
        return Query(0, i - 1, self.text[i], 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and self[:] == tuple(other)

    def __hash__(self) -> int:
        return hash(self[:])


@dataclass(frozen=True)
class Example:
    """One row: the inputs to run, the tokens to score, which of the candidates is right (0 where there is one)."""

    sequences: tuple[Tokens, ...]
    queries: Sequence[Query]
    answer: int
    candidates: int
    metric: str = "loss"
    """what it is evaluated by, a row of training/evaluate.py: METRICS"""
    text: Tokens = ()
    """prompt, right answer and end as the model is to write them; of a row that was cut, up to the cut"""
    begins: int = 0
    """where in `text` the answer begins"""
    remark: str = ""
    """what should be known of how the row became tokens, in the same words for all rows of which it is true"""

    @functools.cached_property
    def arrays(self) -> Arrays:
        """Made once: a row comes back every epoch, and its batch is put together while the device waits."""
        import numpy as np  # not by those who only read rows: it takes longer than they do

        if isinstance(self.queries, Following) and self.candidates == 1:
            return _arrays_of(self.sequences[0], self.queries)
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


def _arrays_of(sequence: Tokens, queries: Following) -> Arrays:
    """The same of one text, without a look at each query."""
    import numpy as np

    places, count = np.array(queries.predicted, np.int32), len(queries)
    return Arrays(
        ids=np.array(sequence, np.int32),
        lengths=np.array([len(sequence)], np.int32),
        sequences=np.zeros(count, np.int32),
        positions=places - 1,
        tokens=np.array(queries.text, np.int32)[places],
        owners=np.arange(count, dtype=np.int32),
        counts=np.array([count], np.int32),
    )


def _array(values: Iterable[int]) -> NDArray[np.int32]:
    import numpy as np

    return np.fromiter(values, np.int32)


@dataclass(frozen=True)
class Fault:
    """Why a row cannot become an example."""

    text: str
    hint: str = ""
    context: int = 0
    """the smallest context that would do; 0 where none would"""


@dataclass(frozen=True)
class Made:
    """What a row became where it is more than one example: one for each answer that stands behind its own prompt."""

    examples: tuple[Example, ...]
    cut: bool = False
    """was the row's end cut off at the context?"""
    notes: tuple[str, ...] = ()
    """what a person should know of it, said once of all rows that have the same note, behind their number"""


@dataclass(frozen=True, slots=True)
class Packed:
    """A text of which all tokens from `begins` on are predicted, as the numbers that a store keeps."""

    tokens: bytes
    """int32"""
    begins: int
    cut: bool

    def made(self) -> Made:
        tokens = tuple(array.array("i", self.tokens))
        return Made((one_sequence(tokens, range(self.begins, len(tokens))),), self.cut)


Rendered = tuple[Example, bool] | Made | Packed | Fault  # bool: was the row's end cut off at the context?


def tokenized(tokenizer: PreTrainedTokenizerBase, texts: list[str], special: bool) -> list[Tokens]:
    """Token ids of each text; with `special`, those that the tokenizer puts in front of a text too, but no end."""
    if not texts:
        return []
    lead = frame(tokenizer)[0] if special else ()
    if words := words_of(tokenizer):
        return [(*lead, *words.tokens(text)) for text in texts]
    return [(*lead, *ids) for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]


def before(tokenizer: PreTrainedTokenizerBase, text: str, end: int) -> int:
    """How many of the tokens of a text, with nothing in front, begin before letter `end`."""
    if words := words_of(tokenizer):
        return words.before(text, end)
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return sum(start < end for start, _ in coded["offset_mapping"])


def quick(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with a memory: the same tokens and renderings, in less time where there are many texts."""
    if "words" in vars(tokenizer):
        return tokenizer
    made: Any = copy.copy(tokenizer)
    made.words = Words.of(tokenizer)
    made.apply_chat_template = Renderings(tokenizer)
    return cast("PreTrainedTokenizerBase", made)


def words_of(tokenizer: PreTrainedTokenizerBase) -> Words | None:
    return cast("Words | None", vars(tokenizer).get("words"))


def frame(tokenizer: PreTrainedTokenizerBase) -> tuple[Tokens, Tokens]:
    """The tokens that the tokenizer puts in front of any text, and those that it appends."""
    for text in ("a", "1", "."):  # one that has tokens
        plain = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        whole = tokenizer(text, verbose=False)["input_ids"]
        starts = (i for i in range(len(whole)) if plain and whole[i : i + len(plain)] == plain)
        if (start := next(starts, None)) is not None:
            return tuple(whole[:start]), tuple(whole[start + len(plain) :])
    return (), ()


def fills_masks(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Is it an encoder's? Decoders' have no mask token here (model/special_tokens.py)."""
    return getattr(tokenizer, "mask_token_id", None) is not None


def ended(answer: Tokens, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """An answer with the token that ends a text behind it, if it does not have it."""
    eos = tokenizer.eos_token_id
    return answer if eos is None or answer[-1] == eos else (*answer, eos)


def no_room(prompt: Tokens, answer: int, context: int) -> Fault | None:
    """What is wrong with a prompt before an answer of `answer` tokens."""
    if not prompt:
        return Fault("the prompt has no tokens to predict an answer from", "give these rows a prompt")
    if len(prompt) + answer <= context:
        return None
    text = f"prompt of {len(prompt)} tokens leaves no room for the answer at context {context}"
    return Fault(text, context=len(prompt) + answer)


def one_sequence(tokens: Tokens, predicted: Sequence[int]) -> Example:
    """An example of one answer: the tokens at the indices `predicted`, from 1, each from the place before it.

    Indices beyond the last token are left out, as they are of a row that was cut.
    """
    inside = _below(predicted, len(tokens))
    text = tokens[: inside[-1] + 1]
    return Example((text[:-1],), Following(text, inside), 0, 1, text=text, begins=inside[0])


def _below(predicted: Sequence[int], end: int) -> Sequence[int]:
    if isinstance(predicted, range):
        return range(predicted.start, min(predicted.stop, end))
    return tuple(i for i in predicted if i < end)


def answers_of(row: Example) -> list[Tokens]:
    """Each candidate's tokens."""
    answers: list[list[int]] = [[] for _ in range(row.candidates)]
    for query in row.queries:
        answers[query.candidate].append(query.token)
    return [tuple(answer) for answer in answers]


def can_be_said(row: Example) -> bool:
    """Has it candidates, and text with the right one? Where a kind gives no text, candidates are ranked."""
    return row.candidates > 1 and bool(row.text)


def spoken(row: Example) -> Example:
    """A row as one answer alone: every token of its right answer and its end is predicted, whatever the candidates."""
    return one_sequence(row.text, range(row.begins, len(row.text)))


# ---- many rows


@dataclass(frozen=True)
class Sizes:
    """How large examples are: arrays (n,) of int32."""

    sequences: NDArray[np.int32]
    longest: NDArray[np.int32]
    """tokens of an example's longest sequence"""
    places: NDArray[np.int32]
    """different positions that predict something"""
    queries: NDArray[np.int32]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens that a forward reads of each example when it is alone."""
        return self.sequences * self.longest


@runtime_checkable
class Measured(Protocol):
    """Examples that know their sizes, and need not be looked at one by one."""

    @property
    def sizes(self) -> Sizes: ...

    @property
    def said(self) -> Sizes:
        """Of them as one answer each (`spoken`)."""


def sizes_of(rows: Sequence[Example]) -> Sizes:
    """Of any examples."""
    if isinstance(rows, Measured | Spoken):
        return rows.sizes
    import numpy as np

    table = np.array([size_of(row) for row in rows], np.int32).reshape(-1, 4)
    return Sizes(*table.T)


def size_of(row: Example) -> tuple[int, int, int, int]:
    """One line of `Sizes`."""
    count = len(row.queries)
    places = count if isinstance(row.queries, Following) else len({(q.sequence, q.position) for q in row.queries})
    return len(row.sequences), max(map(len, row.sequences)), places, count


@dataclass(frozen=True)
class Spoken(Sequence[Example]):
    """Rows as one answer alone (`spoken`), each when it is asked for."""

    rows: Sequence[Example]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Spoken: ...

    def __getitem__(self, index: int | slice) -> Example | Spoken:
        return Spoken(self.rows[index]) if isinstance(index, slice) else spoken(self.rows[index])

    @functools.cached_property
    def sizes(self) -> Sizes:
        import numpy as np

        if isinstance(self.rows, Measured):
            return self.rows.said
        table = np.array([size_of(spoken(row)) for row in self.rows], np.int32).reshape(-1, 4)
        return Sizes(*table.T)
