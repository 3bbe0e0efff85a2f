"""Names of columns that say what they are only beside one another: `document` with `summary`, `premise` with
`hypothesis` and a label. A kind has them as `Names.together`, tried where a file lacks the kind's own columns."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zolite.data.problems import as_text
from zolite.data.readers.reader import Record

Columns = Mapping[str, str | tuple[str, ...]]
Finder = Callable[[Mapping[str, str], Sequence[Record]], Columns | None]
"""From a file's columns, their names as they are compared to those that they have, in order, and its first records: a
kind's columns to the file's; None where they are not there, or not certain."""

ABOUT = frozenset({
    "id", "_id", "idx", "index", "doc_id", "url", "uri", "source", "src", "meta", "metadata", "timestamp", "date",
    "created", "added", "author", "lang", "language", "language_score", "domain", "dump", "file_path", "path", "file",
    "filename", "subset", "version", "length", "n_tokens", "token_count", "num_tokens", "char_count", "hash", "md5",
    "split", "license", "quality_score", "pile_set_name",
})  # fmt: skip
"""Columns that say something of a row and are no part of a task: beside any other, what is meant is not clear."""

LANGUAGE = re.compile(
    r"(ar|bg|bn|ca|cs|da|de|el|en|es|et|eu|fa|fi|fr|gl|gu|he|hi|hr|hu|it|ja|ka|kk|km|ko|lt|lv|mk|ml|mr|ms|my|nb|ne|nl|pa|"
    r"pl|pt|ro|ru|sk|sl|sq|sr|sv|sw|ta|te|th|tr|uk|ur|vi|zh)(_[a-z]+)?|english|french|german|spanish|italian|portuguese|"
    r"dutch|russian|chinese|japanese|korean|arabic|hindi|turkish|polish|swedish|czech|greek|ukrainian|vietnamese"
)
"""Codes of ISO 639-1 that mean nothing else as a column's name (id and no do), and languages' English names."""

FEW, SHORT = 20, 24  # different labels, letters of one


def beside_one_another(**columns: str | tuple[str, ...]) -> Finder:
    """A file has all of these."""

    def found(names: Mapping[str, str], sample: Sequence[Record]) -> Columns | None:
        wanted = {name: (each,) if isinstance(each, str) else each for name, each in columns.items()}
        if not all(each in names for several in wanted.values() for each in several):
            return None
        own = {name: tuple(names[each] for each in several) for name, several in wanted.items()}
        return {name: several[0] if len(several) == 1 else several for name, several in own.items()}

    return found


def alone(find: Finder) -> Finder:
    """Nothing is beside them but what is of no task: no label, no second answer."""

    def found(names: Mapping[str, str], sample: Sequence[Record]) -> Columns | None:
        columns = find(names, sample)
        taken = set(columns.values()) if columns else set()
        others = [own for name, own in names.items() if own not in taken and name not in ABOUT]
        return columns if all(_blank(sample, own) for own in others) else None

    return found


def languages(names: Mapping[str, str], sample: Sequence[Record]) -> Columns | None:
    """Two columns that are called by languages: the first is translated into the second."""
    both = [own for name, own in names.items() if LANGUAGE.fullmatch(name)]
    return {"prompt": both[0], "completion": both[1]} if len(both) == 2 else None


def first_few(names: Mapping[str, str], sample: Sequence[Record]) -> Columns | None:
    """v1 and v2, as R calls columns without names: few short values, then text (the SMS Spam Collection)."""
    if not {"v1", "v2"} <= names.keys():
        return None
    labels, texts = ([as_text(record.get(names[name])).strip() for record in sample] for name in ("v1", "v2"))
    few = 1 < len(set(labels)) <= min(FEW, len(sample) // 2) and max(map(len, labels)) <= SHORT
    return {"label": names["v1"], "text": names["v2"]} if few and len(set(texts)) > 2 * len(set(labels)) else None


def _blank(sample: Sequence[Record], name: str) -> bool:
    values: list[Any] = [record.get(name) for record in sample]
    return all(value is None or (isinstance(value, str) and not value.strip()) for value in values)
