"""What stands in the commands that load an export: of a session, its model and this machine."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from zolite.data.in_place import in_place
from zolite.data.kinds import label
from zolite.data.kinds.kind import Row
from zolite.export import uses
from zolite.export.source import Trained, longest_label, tokenizer_of

TRIED = 32  # rows, of whose prompts the shortest is shown


def here(trained: Trained, folder: Path, tokenizer: Any) -> uses.Place:
    """For this machine: its paths, and the prompt of a row that was not trained on."""
    base = trained.source.path if trained.source.path and not trained.gguf else trained.source.base
    gguf = shlex.quote(str(trained.gguf)) if trained.gguf else "BASE.gguf"
    asked = [question(trained, row) for row in trained.dataset.splits["dev"][:TRIED]] if trained.dataset else []
    short = min(asked, key=lambda each: len(each.text), default=question(trained))
    return _place(trained, shlex.quote(str(folder)), shlex.quote(str(base)), gguf, short, tokenizer)


def anywhere(trained: Trained, tokenizer: Any) -> uses.Place:
    """For a card, which others read: no path, and no row."""
    return _place(trained, "THIS_FOLDER", trained.source.base, "BASE.gguf", question(trained), tokenizer)


def _place(trained: Trained, folder: str, base: str, gguf: str, asked: uses.Question, tokenizer: Any) -> uses.Place:
    labels, rank = trained.facts["labels"], trained.recipe.adapter.rank
    tokens = longest_label(trained, tokenizer) + 1 if labels else uses.SAID
    made = uses.Place(trained.name, folder, base, gguf, rank, tokens, asked)
    if not trained.encoder:
        return made
    return replace(made, labels=_label_tokens(trained, asked, tokenizer), mask=tokenizer.mask_token)


def _label_tokens(trained: Trained, asked: uses.Question, tokenizer: Any) -> dict[str, list[int]]:
    """Of each label, as they stand behind a prompt."""
    labels, template = trained.facts["labels"], trained.recipe.data.template
    before = asked.text.partition(tokenizer.mask_token)[0].rstrip()
    (placed,) = in_place(tokenizer, [before], [[label.answer_of(each, template) for each in labels]])
    return dict(zip(labels, map(list, placed.answers), strict=True))


def question(trained: Trained, row: Row | None = None) -> uses.Question:
    """A row's prompt; without a row, one with the columns' names in capitals where their texts go."""
    kind, template, asked = trained.kind, trained.recipe.data.template, trained.prompt
    if trained.encoder:
        row = row or uses.capitals(kind, template)
        return uses.Question(label.masked_text(row, template, tokenizer_of(trained).mask_token), "")
    if row is None:
        return uses.blank(kind, template, asked)
    if asked.chat:
        talk = tuple(row.messages)
        said = next((i for i, message in enumerate(talk) if message["role"] == "assistant"), len(talk))
        before = talk[:said] or (uses.HELLO,)
        return uses.Question(before[-1]["content"], before[-1]["content"], before)
    if kind.prompt(template).chat:  # which a model without a chat template has learned as a text
        typed = str(row.messages[-2]["content"])
        return uses.Question(asked.before + typed + asked.after, typed)
    return uses.of_text(next(piece.text for piece in kind.pieces(row, template)), asked)
