"""Examples as arrays of numbers, in memory or mapped from files: a sequence that makes each when it is asked for.

    writer = Writer(None)                 or Writer(folder, "train"), for files in that folder
    writer.add(example, row)              `row`: the number of the row that it is of
    store = writer.done()
    store[7], store.sizes, store.origins, store.numbers()

An example is its tokens and a form. Of a text that is to be said, the form is which of its tokens are predicted; of
candidates, all that stands behind their common prompt, with places from its end. Forms are kept once: the rows of a
data set with labels have as many as there are labels.

    tokens   int32 (all tokens,)   an example's text, or the prompt of its candidates
    forms    int32 (all forms,)    see `_form`
    starts   int64 (n + 1, 2)      where in them an example begins
    figures  int32 (n, 7)          FIGURES of each example
"""

from __future__ import annotations

import array
import functools
import itertools
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from zolite.common.progress import counted
from zolite.data.examples import Example, Following, Packed, Query, Sizes, Tokens, size_of
from zolite.data.words import BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIGURES = ("begins", "text", "origin", "sequences", "longest", "places", "queries")
"""text: its tokens, 0 where there is none; origin: the row's number; the rest as in `Sizes`."""

ARRAYS = {"tokens": ("i", "int32", ()), "forms": ("i", "int32", ()), "starts": ("q", "int64", (2,)),
          "figures": ("i", "int32", (len(FIGURES),))}  # fmt: skip
"""name to its code in `array`, its type and the shape of one of its lines"""

WRITTEN = 2**18  # numbers that wait before they are written
REMEMBERED = 4096  # forms that are compared with a new one; and examples that are kept once they were made
PART = 4096  # examples whose numbers are put together at once

TEXT, CANDIDATES = 0, 1


class Writer:
    """Puts examples one behind the other. With a folder, into files NAME.tokens, NAME.forms …"""

    def __init__(self, folder: Path | None, name: str = "") -> None:
        self.where = {part: folder / f"{name}.{part}" if folder else None for part in ARRAYS}
        self.parts = {part: array.array(code) for part, (code, _, _) in ARRAYS.items()}
        self.files: dict[str, Any] = {part: open(path, "wb") for part, path in self.where.items() if path}  # noqa: SIM115
        self.tokens = self.forms = 0  # of them so far
        self.known: dict[tuple[int, ...], int] = {}  # form to where it stands
        self.words: dict[str, int] = {"": 0}  # metrics and remarks by number

    def add(self, example: Example, origin: int) -> None:
        tokens, form = _tokens_and_form(example, self._number)
        self.parts["starts"].extend((self.tokens, self._place(form)))
        self.parts["figures"].extend((example.begins, len(example.text), origin, *size_of(example)))
        self.parts["tokens"].extend(tokens)
        self.tokens += len(tokens)
        self._write_some()

    def add_packed(self, text: Packed, origin: int) -> None:
        """As `add` of the example that it would be."""
        count = len(text.tokens) // BYTES
        predicted = count - text.begins
        form = (TEXT, self._number(Example.metric), self._number(Example.remark), 0)
        self.parts["starts"].extend((self.tokens, self._place(form)))
        self.parts["figures"].extend((text.begins, count, origin, 1, count - 1, predicted, predicted))
        self.parts["tokens"].frombytes(text.tokens)
        self.tokens += count
        self._write_some()

    def done(self) -> TokenStore:
        self.parts["starts"].extend((self.tokens, self.forms))
        if not self.files:
            return TokenStore({part: _shaped(part, values) for part, values in self.parts.items()}, tuple(self.words))
        self._write()
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        return opened({part: path for part, path in self.where.items() if path}, tuple(self.words))

    def _number(self, word: str) -> int:
        return self.words.setdefault(word, len(self.words))

    def _place(self, form: tuple[int, ...]) -> int:
        place = self.known.get(form)
        if place is None:
            place = self.forms
            if len(self.known) < REMEMBERED:
                self.known[form] = place
            self.parts["forms"].extend(form)
            self.forms += len(form)
        return place

    def _write_some(self) -> None:
        if self.files and len(self.parts["tokens"]) > WRITTEN:
            self._write()

    def _write(self) -> None:
        for part, file in self.files.items():
            self.parts[part].tofile(file)
            del self.parts[part][:]


def opened(files: dict[str, Path], words: Sequence[str]) -> TokenStore:
    """What a writer left. OSError and ValueError where it is not all there."""
    maps = {part: _map(path) for part, path in files.items()}
    return TokenStore({part: _shaped(part, data) for part, data in maps.items()}, tuple(words), tuple(maps.values()))


def _map(path: Path) -> mmap.mmap | bytes:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""


def _shaped(part: str, data: Any) -> NDArray[Any]:
    import numpy as np

    _, kind, line = ARRAYS[part]
    return np.frombuffer(data, kind).reshape(-1, *line)


class TokenStore(Sequence[Example]):
    """Examples that lie in arrays. The last few thousand that were asked for are kept as they are."""

    def __init__(self, arrays: dict[str, NDArray[Any]], words: tuple[str, ...], maps: Sequence[Any] = ()) -> None:
        self.arrays = arrays
        self.maps = maps  # of the files that the arrays are in
        self.words = words
        self._starts, self._figures = arrays["starts"], arrays["figures"]
        if len(self._starts) != len(self._figures) + 1:
            raise ValueError(f"{len(self._figures)} examples with {len(self._starts)} starts")
        self._shape = functools.lru_cache(REMEMBERED)(self._read_form)
        self._at = functools.lru_cache(REMEMBERED)(self._made)

    def __len__(self) -> int:
        return len(self._figures)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Example, ...]: ...

    def __getitem__(self, index: int | slice) -> Example | tuple[Example, ...]:
        if isinstance(index, slice):
            return tuple(self._at(i) for i in range(len(self))[index])
        return self._at(range(len(self))[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))  # noqa: B905

    __hash__ = None  # type: ignore[assignment]

    @property
    def sizes(self) -> Sizes:
        return Sizes(*self._figures[:, -4:].T)

    @property
    def said(self) -> Sizes:
        """Of the examples as texts alone (`examples.spoken`)."""
        begins, text = self._figures[:, 0], self._figures[:, 1]
        return Sizes(begins * 0 + 1, text - 1, text - begins, text - begins)

    @property
    def origins(self) -> Sequence[int]:
        """(n,): the number of the row that each example is of."""
        found = self._figures[:, FIGURES.index("origin")]
        every = len(self) and int(found[-1]) + 1
        return range(every) if every == len(self) else tuple(found.tolist())

    def _made(self, i: int) -> Example:
        (start, form), (end, _) = self._starts[i : i + 2].tolist()
        tokens = tuple(self.arrays["tokens"][start:end].tolist())
        return self._shape(form).example(tokens, int(self._figures[i, 0]))

    def _read_form(self, place: int) -> _Text | _Candidates:
        # A form says itself where it ends; those of texts are short, and of candidates there are few.
        numbers = iter(_blocks(self.arrays["forms"], place))
        kind, metric, remark = itertools.islice(numbers, 3)
        make = _text_form if kind == TEXT else _candidates_form
        return make(numbers, self.words[metric], self.words[remark])

    # ---- for fingerprints

    def numbers(self) -> Iterator[bytes]:
        """All that a model reads and predicts, int32: of each example what `_numbers` says, in the order of rows."""
        firsts = range(0, len(self), PART)
        for first in counted(firsts, "fingerprinting tokens", len(self), lambda first: min(PART, len(self) - first)):
            yield self._whole(first, min(first + PART, len(self)))
        self.release()

    def release(self) -> None:
        """After a look at all examples: what was read of files need not stay in memory, where it counts as used."""
        for each in self.maps:
            if isinstance(each, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                each.madvise(mmap.MADV_DONTNEED)

    def _whole(self, first: int, last: int) -> bytes:
        """Texts whose predicted tokens are the last ones, together; where there are others, one by one."""
        places = set(self._starts[first:last, 1].tolist())
        forms = [self._shape(place) for place in places] if len(places) < REMEMBERED else [None]
        if not all(isinstance(form, _Text) and not form.runs for form in forms):
            return b"".join(array.array("i", _numbers(self._made(i))).tobytes() for i in range(first, last))
        import numpy as np

        bounds = self._starts[first : last + 1, 0] - self._starts[first, 0]
        tokens = np.ascontiguousarray(self.arrays["tokens"][self._starts[first, 0] : self._starts[last, 0]])
        begins, count = self._figures[first:last, 0].astype(np.int64), np.diff(bounds)
        asked = count - begins
        ends = asked.cumsum()
        nth = np.arange(asked.sum()) - np.repeat(ends - asked - begins, asked)  # each predicted token's place
        queries = np.zeros((len(nth), 4), np.int32)
        queries[:, 1] = nth - 1
        queries[:, 2] = tokens[nth + np.repeat(bounds[:-1], asked)]
        heads = np.stack((begins * 0, begins * 0 + 1, begins, count, count - 1), 1).astype(np.int32)
        return b"".join(_joined(heads, tokens, bounds.tolist(), queries, [0, *ends.tolist()]))


def _joined(
    heads: NDArray[Any], tokens: NDArray[Any], bounds: list[int], queries: NDArray[Any], ends: list[int]
) -> Iterator[memoryview]:
    """What `_numbers` gives of each text, of which all is there already."""
    figures, text, asked = (each.data.cast("B") for each in (heads, tokens, queries))
    for i in range(len(heads)):
        at, (start, end) = 20 * i, bounds[i : i + 2]
        yield figures[at : at + 16]
        yield text[4 * start : 4 * end]
        yield figures[at + 16 : at + 20]
        yield text[4 * start : 4 * end - 4]
        yield asked[16 * ends[i] : 16 * ends[i + 1]]


def _numbers(example: Example) -> Iterable[int]:
    """Answer, candidates, where the text begins and the text; each sequence; each query; lists behind their length."""
    yield from (example.answer, example.candidates, example.begins, len(example.text), *example.text)
    for sequence in example.sequences:
        yield from (len(sequence), *sequence)
    for query in example.queries:
        yield from (query.sequence, query.position, query.token, query.candidate)


def numbers_of(examples: Sequence[Example]) -> Iterator[bytes]:
    """As `TokenStore.numbers`, of any examples."""
    if isinstance(examples, TokenStore):
        yield from examples.numbers()
    else:
        yield from (array.array("i", _numbers(example)).tobytes() for example in examples)


# ---- forms


@dataclass(frozen=True)
class _Text:
    """A text of which some tokens are predicted."""

    metric: str
    remark: str
    runs: tuple[int, ...]
    """first and end of each stretch of predicted tokens, from the first predicted one; empty: all from there on"""

    def example(self, text: Tokens, begins: int) -> Example:
        if self.runs:
            stretches = (range(begins + a, begins + b) for a, b in zip(self.runs[::2], self.runs[1::2], strict=True))
            predicted: Sequence[int] = tuple(itertools.chain.from_iterable(stretches))
        else:
            predicted = range(begins, len(text))
        return Example((text[:-1],), Following(text, predicted), 0, 1, self.metric, text, begins, self.remark)


@dataclass(frozen=True)
class _Candidates:
    """What stands behind a common prompt."""

    metric: str
    remark: str
    answer: int
    candidates: int
    text: Tokens | None
    tails: tuple[Tokens, ...]
    queries: tuple[tuple[int, ...], ...]
    """sequence, position from the prompt's end, token, candidate"""

    def example(self, prompt: Tokens, begins: int) -> Example:
        end = len(prompt)
        return Example(
            tuple(prompt + tail for tail in self.tails),
            tuple(Query(sequence, end + at, token, candidate) for sequence, at, token, candidate in self.queries),
            self.answer,
            self.candidates,
            self.metric,
            () if self.text is None else prompt + self.text,
            begins,
            self.remark,
        )


def _tokens_and_form(example: Example, number: Any) -> tuple[Tokens, tuple[int, ...]]:
    """An example's tokens and its form; `number` gives words theirs."""
    head = (number(example.metric), number(example.remark))
    queries, lengths = example.queries, [len(sequence) for sequence in example.sequences]
    if isinstance(queries, Following) and example.candidates == 1 and lengths == [len(example.text) - 1]:
        runs = _runs(queries.predicted, example.begins, len(example.text))
        return example.text, (TEXT, *head, len(runs), *runs)
    shared = _shared((*example.sequences, *([example.text] if example.text else [])))
    end = min(shared, example.begins) if example.text else shared
    lists = [[*example.text[end:]], *([*sequence[end:]] for sequence in example.sequences)]
    asked = ((q.sequence, q.position - end, q.token, q.candidate) for q in queries)
    numbers = (
        *(example.answer, example.candidates, int(bool(example.text)), len(example.sequences), len(queries)),
        *itertools.chain.from_iterable((len(each), *each) for each in lists),
        *itertools.chain.from_iterable(asked),
    )
    return example.sequences[0][:end], (CANDIDATES, *head, *numbers)


def _text_form(numbers: Iterator[int], metric: str, remark: str) -> _Text:
    return _Text(metric, remark, tuple(itertools.islice(numbers, next(numbers))))


def _candidates_form(numbers: Iterator[int], metric: str, remark: str) -> _Candidates:
    answer, candidates, has_text, sequences, queries = itertools.islice(numbers, 5)
    text, *tails = (tuple(itertools.islice(numbers, next(numbers))) for _ in range(1 + sequences))
    asked = tuple(tuple(itertools.islice(numbers, 4)) for _ in range(queries))
    return _Candidates(metric, remark, answer, candidates, text if has_text else None, tuple(tails), asked)


def _runs(predicted: Sequence[int], begins: int, end: int) -> tuple[int, ...]:
    """Empty where all from `begins` to `end` are predicted, and nothing else."""
    if len(predicted) == end - begins and predicted[0] == begins:
        return ()
    firsts = [i for i, before in zip(predicted, (-1, *predicted), strict=False) if i != before + 1]
    lasts = [i for i, after in zip(predicted, (*predicted[1:], -1), strict=True) if i != after - 1]
    return tuple(place - begins for a, b in zip(firsts, lasts, strict=True) for place in (a, b + 1))


def _shared(texts: Sequence[Tokens]) -> int:
    """How many of the first tokens are the same in all of them."""
    low, high = min(texts), max(texts)  # whatever lies between these in order begins as they do
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


def _blocks(numbers: NDArray[np.int32], start: int, size: int = 1024) -> Iterator[int]:
    for at in range(start, len(numbers), size):
        yield from numbers[at : at + size].tolist()
