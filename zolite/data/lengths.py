"""How long rows of data are, without torch: by the model's own tokenizer where it lies on the disk, else by letters."""

import heapq
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from zolite.data import rows as tables
from zolite.data.kinds.kind import Kind, Row
from zolite.data.kinds.registry import KINDS

LETTERS = 3.5  # of a token, about, in English
MARKS = 8  # tokens that a template puts around a row or a message
MOST_ROWS = 5000  # whose tokens are counted, the longest first by letters


@dataclass(frozen=True)
class Rows:
    """What is known of the data: tokens of the longest row, and how many of a row's positions predict something."""

    tokens: int
    positions: int
    sequences: int = 1  # of a row: more where the labels of a row are texts that go different ways
    lengths: int = 8  # how many different lengths batches are padded to, at most (engine/batch.py: edges)
    evaluated: bool = True
    labels: int = 0  # where rows have labels, how many there are
    train: int = 0  # rows that are trained on, where it is known how many there are
    scored: tuple[int, int] = (0, 0)  # sequences and positions of a row that is evaluated, where they are others

    @property
    def evaluation(self) -> tuple[int, int]:
        """Sequences and positions of a row in an evaluation."""
        return self.scored if self.scored[0] else (self.sequences, self.positions)


def estimate(
    path: Path,
    template: str,
    folder: Path | None,
    longest: int,
    columns: str = "",
    verbalizer: str = "",
    task: str = "",
) -> Rows:
    """Of all splits, with the tokenizer in `folder`; rows beyond `longest` tokens are cut, as training cuts them."""
    dataset = tables.load(path, template, columns=columns, verbalizer=verbalizer, task=task)
    kind, count = KINDS[dataset.kind], counter(folder)
    every = itertools.chain.from_iterable(dataset.splits.values())
    rows = heapq.nlargest(MOST_ROWS, every, key=lambda row: len(_text(row, kind, template)))
    tokens = min(longest, max(count(_text(row, kind, template)) + MARKS * (1 + len(row.messages)) for row in rows))
    predicted = min(tokens, max(kind.predicted(row, count) for row in rows))
    train = len(dataset.splits.get("train", ()))
    return Rows(-(-tokens // 8) * 8, predicted, labels=len(dataset.labels), train=train)


def counter(folder: Path | None) -> Callable[[str], int]:
    """Text to its tokens' number."""
    file = folder / "tokenizer.json" if folder else None
    if file is not None and file.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
    return lambda text: int(len(text) / LETTERS) + 1


def mean_tokens(path: Path, template: str, longest: int, columns: str = "", verbalizer: str = "") -> float:
    """Of a row that is trained on, by its letters."""
    dataset, count = tables.load(path, template, columns=columns, verbalizer=verbalizer), counter(None)
    rows, kind = dataset.splits["train"][:MOST_ROWS], KINDS[dataset.kind]
    return fmean(min(longest, count(_text(row, kind, template))) for row in rows)


def _text(row: Row, kind: Kind, template: str) -> str:
    """All that a row's tokens may come from: with its template, or with the answers that are compared."""
    objects = (*row.tools, *row.messages)
    told = [*row.columns.values(), *row.choices, *(json.dumps(each, ensure_ascii=False) for each in objects)]
    return max("\n".join(told), "".join(piece.text for piece in kind.pieces(row, template)), key=len)
