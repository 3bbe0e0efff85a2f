"""Rows that are there more than once: within train, and in train and in a split that the model is judged by.

    found = find(dataset)
    found.leaks          of dev and test: how many rows an earlier split has too, and the first of them
    found.copies         rows of train that equal an earlier one

Rows are the same where their texts are, apart from case, white space and punctuation. They are nearly the same where at
least NEAR of all pairs of neighbouring words are in both (Jaccard similarity), of all pairs as of those that only few
rows have: an instruction that stands in every prompt does not count. Candidates come from MinHash in bands (Broder
1997; rensa) and are then compared for themselves, so that nothing is called near that is not, and of what is near all
but a few in a thousand are found. Of a split with more than MOST rows so many are compared, evenly taken; for what is
the same, all are.
"""

from __future__ import annotations

import re
import string
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from zolite.common.progress import counted
from zolite.common.text import many
from zolite.data.kinds.kind import Row
from zolite.data.kinds.registry import KINDS
from zolite.data.problems import some
from zolite.data.rows import Dataset
from zolite.data.table import Table, kept

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEAR = 0.8
MOST = 100_000  # rows of a split whose words are compared
SAMPLE, COMMON, LEAST = 2000, 0.1, 10  # a pair of words is common in more than a tenth, and LEAST, of so many rows
BANDS, PERMUTATIONS = 20, 120  # candidates: 1 − (1 − s⁶)²⁰ of all pairs of similarity s, 0.998 at NEAR, 0.015 at 0.3
CHUNK = 4096  # rows that are hashed at once
TRIED = 20  # candidates that a row is compared with, at most
EXAMPLES = 5

_OTHERS = [c for c in map(chr, range(128)) if c not in string.ascii_letters + string.digits + "_"]
_SPACED, _DROPPED = str.maketrans(dict.fromkeys(_OTHERS, " ")), str.maketrans(dict.fromkeys(_OTHERS))
_NO_WORD = re.compile(r"\W+")
_EACH = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # scripts without spaces, of which a letter counts as a word
_WORD = re.compile(f"[{_EACH}]|[^\\W{_EACH}]+")


@dataclass(frozen=True)
class Pair:
    """A row, by its split and line, and the earlier one that it is like."""

    split: str
    line: int
    of: str
    of_line: int
    similarity: float = 1.0


@dataclass(frozen=True)
class Leak:
    """Rows of a split that an earlier one has too, each counted once."""

    split: str
    of: str
    rows: int
    """of `split`"""
    same: int
    near: int
    groups: int
    """groups of `split` of which `of` has rows too"""
    compared: int
    """rows of `of` that were compared for what is near"""
    examples: tuple[Pair, ...]


@dataclass(frozen=True)
class Leakage:
    copies: int
    """rows of train that equal an earlier one, answer included"""
    copied: tuple[Pair, ...]
    contradictions: int
    """rows of train with the text of an earlier one and another label"""
    contradicting: tuple[Pair, ...]
    leaks: tuple[Leak, ...]
    """only where there are some"""


def find(dataset: Dataset, near: bool = True) -> Leakage:
    """All of it; without `near` only what is the same, which takes a small part of the time."""
    column = KINDS[dataset.kind].label_column
    seen = {split: _Seen.of(rows, column) for split, rows in dataset.splits.items()}
    train = seen.get("train", _Seen.of(kept(()), column))
    copied, contradicting = train.copies(), train.contradictions()
    splits = list(dataset.splits)
    leaks = (
        _leak(dataset, seen, split, of, column, near) for i, split in enumerate(splits) for of in splits[:i]
    )  # fmt: skip
    return Leakage(
        len(copied),
        tuple(_pairs(dataset, "train", "train", copied)),
        len(contradicting),
        tuple(_pairs(dataset, "train", "train", contradicting)),
        tuple(leak for leak in leaks if leak.same or leak.near or leak.groups),
    )


def _pairs(dataset: Dataset, split: str, of: str, found: NDArray[np.int64]) -> Iterator[Pair]:
    """The first of these places (n, 2) of a row and an earlier one."""
    for i, j in found[:EXAMPLES].tolist():
        yield Pair(split, dataset.splits[split][i].line, of, dataset.splits[of][j].line)


# ---- the same


@dataclass(frozen=True)
class _Seen:
    """Of each row of a split a hash of its words without the label, of its label, and of all that is used of it.

    They are Python's own, of 8 bytes: they live as long as this process, and so do those that they are compared with.
    """

    texts: NDArray[np.int64]
    labels: NDArray[np.int64]
    whole: NDArray[np.int64]
    groups: frozenset[int]

    @staticmethod
    def of(rows: Table, column: str) -> _Seen:
        import numpy as np

        texts, labels, whole, groups = array("q"), array("q"), array("q"), set()
        for row, content in zip(rows, rows.contents(), strict=True):
            texts.append(hash(letters(text_of(row, column))))
            labels.append(hash(row.columns.get(column, "")))
            whole.append(hash(content))
            if row.group:
                groups.add(hash(row.group))
        found = [np.array(each, np.int64) for each in (texts, labels, whole)]
        return _Seen(found[0], found[1], found[2], frozenset(groups))

    def copies(self) -> NDArray[np.int64]:
        """(n, 2): the places of a row that was there before and of its first."""
        return _again(self.whole)

    def contradictions(self) -> NDArray[np.int64]:
        """The same of rows with the text of another one and not its label."""
        found = _again(self.texts)
        others: NDArray[np.int64] = found[self.labels[found[:, 0]] != self.labels[found[:, 1]]]
        return others


def _again(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, 2): places of what was there before, with its first one."""
    import numpy as np

    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    earlier = first[which]
    again = np.flatnonzero(earlier != np.arange(len(hashes)))
    return np.stack((again, earlier[again]), 1)


def _in_both(hashes: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, 2): places of what is in `of`, with its first one there."""
    import numpy as np

    values, first = np.unique(of, return_index=True)
    at = np.minimum(np.searchsorted(values, hashes), len(values) - 1)
    there = np.flatnonzero(values[at] == hashes)
    return np.stack((there, first[at[there]]), 1)


def text_of(row: Row, column: str) -> str:
    """What a row says, without the label in that column."""
    said = [text for name, text in row.columns.items() if name != column]
    return "\n".join(said + [str(message.get("content") or message.get("tool_calls")) for message in row.messages])


def letters(text: str) -> str:
    """A text without case, white space and punctuation; one that has nothing else, as it is."""
    if text.isascii():
        return text.lower().translate(_DROPPED) or text
    return _NO_WORD.sub("", unicodedata.normalize("NFKC", text).casefold()) or text


def words(text: str) -> list[str]:
    """Those of a text, without case and punctuation."""
    if text.isascii():
        return text.lower().translate(_SPACED).split()
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


# ---- nearly the same


def _leak(dataset: Dataset, seen: Mapping[str, _Seen], split: str, of: str, column: str, near: bool) -> Leak:
    same = _in_both(seen[split].texts, seen[of].texts)
    earlier = _every(dataset.splits[of])
    alike = _near(dataset.splits[split], set(same[:, 0].tolist()), earlier, column) if near else []
    examples = [*_pairs(dataset, split, of, same)]
    examples += [Pair(split, line, of, of_line, similarity) for line, of_line, similarity in alike]
    groups = len(seen[split].groups & seen[of].groups)
    rows, compared = len(dataset.splits[split]), len(earlier) if near else 0
    return Leak(split, of, rows, len(same), len(alike), groups, compared, tuple(examples[:EXAMPLES]))


def _every(rows: Table) -> Table:
    """At most MOST, evenly taken."""
    return rows[:: -(-len(rows) // MOST)] if len(rows) > MOST else rows


def _near(rows: Table, known: set[int], earlier: Table, column: str) -> list[tuple[int, int, float]]:
    """(line, line, similarity) of rows that are nearly one of the earlier ones, and are not known to be one of them."""
    step = -(-len(rows) // MOST) or 1
    common = _common_pairs(earlier, column)
    index, likely = _index(), set[str]()
    for places in _chunks([i for i in range(0, len(rows), step) if i not in known]):
        pairs = _uncommon(rows.take(places), places, common, column)
        likely.update(*(found for _, found in pairs))
        index.insert_pairs(_hashed(pairs))
    found: dict[int, tuple[int, int, float]] = {}
    tried: Counter[int] = Counter()
    for places in counted(_chunks(range(len(earlier))), "comparing rows", len(earlier), len):
        pairs = _uncommon(earlier.take(places), places, common, column)
        # What is near one of the rows has as many of its pairs: most others need no hashes.
        hashed = _hashed([(j, own) for j, own in pairs if len(own & likely) >= NEAR * len(own)])
        for (j, _), candidates in zip(hashed, index.query_all([m for _, m in hashed]), strict=True):
            for i in (i for i in sorted(candidates) if i not in found and tried[i] < TRIED):
                tried[i] += 1
                one, other = rows[i], earlier[j]
                if (similarity := _similarity(one, other, common, column)) >= NEAR:
                    found[i] = (one.line, other.line, round(similarity, 3))
    return [found[i] for i in sorted(found)]


def _index() -> Any:
    from rensa import RMinHashLSH

    return RMinHashLSH(NEAR, PERMUTATIONS, BANDS)


def _uncommon(
    rows: Sequence[Row], places: Sequence[int], common: frozenset[str], column: str
) -> list[tuple[int, set[str]]]:
    """(place, pairs of words that are not common) of the rows that have some."""
    return [(i, found) for i, row in zip(places, rows, strict=True) if (found := _pairs_of(row, column) - common)]


def _hashed(pairs: Sequence[tuple[int, set[str]]]) -> list[tuple[int, Any]]:
    """(place, MinHash) of each."""
    from rensa import RMinHash

    hashes = RMinHash.from_token_sets([list(found) for _, found in pairs], PERMUTATIONS, 1) if pairs else []
    return list(zip((i for i, _ in pairs), hashes, strict=True))


def _similarity(one: Row, other: Row, common: frozenset[str], column: str) -> float:
    """Of all pairs of words, and of those that are not common: the lower one."""
    a, b = _pairs_of(one, column), _pairs_of(other, column)
    return min(len(x & y) / len(x | y) for x, y in ((a, b), (a - common, b - common)))


def _pairs_of(row: Row, column: str) -> set[str]:
    each = words(text_of(row, column))
    return {f"{a} {b}" for a, b in pairwise(each)} or set(each)


def _common_pairs(rows: Sequence[Row], column: str) -> frozenset[str]:
    step = -(-len(rows) // SAMPLE) or 1
    counts = Counter(pair for row in rows[::step] for pair in _pairs_of(row, column))
    most = max(LEAST, COMMON * len(rows[::step]))
    return frozenset(pair for pair, count in counts.items() if count > most)


def _chunks(places: Sequence[int]) -> Iterator[Sequence[int]]:
    return (places[i : i + CHUNK] for i in range(0, len(places), CHUNK))


# ---- in words


def warned(found: Leakage, dataset: Dataset, group_by: str = "") -> Iterator[str]:
    """What a person should know of it, each with its first examples."""
    if found.copies:
        what = f"{many(found.copies, 'row')} of train the same as an earlier one"
        yield f"{what}: {_examples(found.copied, dataset, '=')}"
    if found.contradictions:
        what = f"{many(found.contradictions, 'row')} of train with the text of an earlier one and another label"
        yield f"{what}: {_examples(found.contradicting, dataset, '≠')}"
    yield from leaked(found.leaks, dataset, group_by)


def leaked(leaks: Iterable[Leak], dataset: Dataset, group_by: str = "") -> Iterator[str]:
    """Of the leaks alone."""
    for leak in leaks:
        if leak.same or leak.near:
            kinds = [f"{leak.same:,} the same"] * bool(leak.same) + [f"{leak.near:,} nearly the same"] * bool(leak.near)
            what = (
                f"leakage: {leak.same + leak.near:,} of {many(leak.rows, leak.split + ' row')} found in {leak.of} too"
            )
            where = _examples(leak.examples, dataset, "≈")
            yield f"{what} ({', '.join(kinds)}): {where}; {_remedy(leak, dataset, group_by)}"
        if leak.groups:
            what = f"leakage: {many(leak.groups, 'group')} by column {group_by!r} in {leak.split} and in {leak.of}"
            yield f"{what}: put them into one file and let --group-by {group_by} part them"


def _examples(pairs: Sequence[Pair], dataset: Dataset, sign: str) -> str:
    return some(f"{_place(p.split, p.line, dataset)} {sign} {_earlier(p, dataset)}" for p in pairs[:3])


def _place(split: str, line: int, dataset: Dataset) -> str:
    return f"{dataset.files[split]}: line {line}"


def _earlier(pair: Pair, dataset: Dataset) -> str:
    """Without the file, where it is that of the other row."""
    same = dataset.files[pair.split] == dataset.files[pair.of]
    return f"line {pair.of_line}" if same else _place(pair.of, pair.of_line, dataset)


def _remedy(leak: Leak, dataset: Dataset, group_by: str) -> str:
    if dataset.files[leak.split] == dataset.files[leak.of] and not group_by:
        return "where rows belong together, --group-by COLUMN keeps them in one split"
    return f"scores on {leak.split} are too good by them"
