"""Plain text: continued pretraining. A document is read in windows of the context, and every token of it is learned.

Documents stay apart, and each ends with the token that ends a text. A window begins with the last token of the one
before; the first begins as the tokenizer begins a text, or behind the end of another where it puts nothing in front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from zolite.data.examples import Fault, Made, Rendered, Tokens, ended, one_sequence, tokenized
from zolite.data.kinds.kind import Names, Piece, Prompt, Row
from zolite.data.kinds.together import ABOUT
from zolite.data.problems import noun
from zolite.data.readers.reader import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 256  # documents that are tokenized at once


class Text:
    name = "text"
    title = "plain text: it learns to continue it"
    label_column = ""
    metric = "loss"
    names = Names(
        becomes="documents in windows of the context, every token of which is trained",
        spellings={"text": ("content", "document", "body", "raw_content")},
        beside=ABOUT.__contains__,
    )

    def columns(self, template: str) -> tuple[str, ...]:
        return ("text",)

    def faults(self, record: Record, columns: Sequence[str]) -> list[str]:
        text = record["text"]
        if not isinstance(text, str):
            return [f"column 'text' is {noun(text)}, not text"]
        return [] if text.strip() else ["column 'text' is blank"]

    def row(self, line: int, record: Record, columns: Sequence[str]) -> Row:
        return Row(line, {"text": record["text"]})

    def render(
        self,
        rows: Sequence[Row],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        context: int,
    ) -> Iterator[Rendered]:
        for i in range(0, len(rows), CHUNK):
            texts = [row.columns["text"] for row in rows[i : i + CHUNK]]
            for tokens in tokenized(tokenizer, texts, special=True):
                windows = _windows(_begun(ended(tokens, tokenizer) if tokens else (), tokenizer), context)
                yield windows if windows.examples else Fault("the text has no tokens", "leave out these rows")

    def pieces(self, row: Row, template: str) -> Iterator[Piece]:
        yield Piece(row.columns["text"], True)

    def predicted(self, row: Row, count: Callable[[str], int]) -> int:
        return count(row.columns["text"]) + 1

    def prompt(self, template: str) -> Prompt:
        return Prompt()


KIND = Text()


def _begun(tokens: Tokens, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """With a token in front from which the first one is predicted, where the tokenizer has such a token."""
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return (first, *tokens) if tokens and first is not None and tokens[0] != first else tokens


def _windows(tokens: Tokens, context: int) -> Made:
    """Of at most `context` tokens, each from the last token of the one before."""
    starts = range(0, len(tokens) - 1, context - 1)
    parts = [tokens[start : start + context] for start in starts]
    return Made(tuple(one_sequence(part, range(1, len(part))) for part in parts))
