"""`zolite data …`: what will be made of rows."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from zolite.cli.process import Json
from zolite.common.errors import UsageError, listed
from zolite.common.paths import paths
from zolite.config.recipe import DataPart, Recipe

if TYPE_CHECKING:
    from zolite.data.preview import Report
    from zolite.model.load import Vocabulary

app = typer.Typer(help="What will be made of your rows.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """What will be made of your rows."""


@app.command()
def check(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="rows as for train: a file, a folder, a pattern or hf:NAME")
    ],
    model: Annotated[str, typer.Option(metavar="MODEL", help="count by its tokenizer; by letters if left out")] = "",
    template: Annotated[
        str, typer.Option(help=r"the prompt: columns in braces, in rows with a label {label} last; \n is a new line")
    ] = DataPart.template,
    columns: Annotated[
        str, typer.Option(metavar="NAME=COLUMN,…", help='which columns are what: label="Category (final)",text=Body')
    ] = "",
    verbalizer: Annotated[
        str, typer.Option(help="words in the place of a column's values: 0=terrible,1=great for labels")
    ] = "",
    template_args: Annotated[
        str, typer.Option(help="arguments of the model's chat template, such as enable_thinking=false")
    ] = "",
    as_json: Json = False,
) -> None:
    """Kind, lengths, problems with their lines, and the first rows as the model will read them; loads no weights."""
    from zolite.data.preview import report

    template = template.replace("\\n", "\n")
    words = _vocabulary(model, template_args) if model else None
    coder, table = (words.tokenizer, words.table) if words else (None, 0)
    found = report(path, template, model, coder, table, columns, verbalizer)
    found = replace(found, notes=(*words.notes, *found.notes)) if words else found
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
    elif found.problems:
        raise UsageError(f"the rows at {path} cannot be used:\n{listed(found.problems)}", found.hint)
    else:
        for line in described(found):
            Console().print(line, soft_wrap=True)
    raise typer.Exit(UsageError.exit_code if found.problems else 0)


def _vocabulary(model: str, template_args: str) -> "Vocabulary":
    from zolite.data.chat_template import chat_of, filled
    from zolite.model.load import resolve, vocabulary

    data = Recipe.of({"data.template_args": template_args}).data
    words = vocabulary(resolve(model), paths()["cache"])
    return replace(words, tokenizer=filled(words.tokenizer, chat_of(data, {})))


def described(found: "Report") -> Iterator[Text]:
    """For a person. What the model learns to write stands between ⟦ and ⟧."""
    counts = ", ".join(f"{split} {count:,}" for split, count in found.rows.items())
    yield Text(f"{found.title}; evaluated by {found.metric} on the dev split")
    yield Text(f"rows: {counts}")
    if found.labels:
        yield Text("labels: " + ", ".join(f"{label} {count:,}" for label, count in sorted(found.labels.items())))
    for note in found.notes:
        yield Text(note, "yellow")
    yield Text(f"tokens, counted by {found.counted}: {found.typical} in the middle, {found.tokens} in the longest row")
    most = max(each.rows for each in found.lengths)
    for each in found.lengths:
        yield Text(f"{'≤':>4}{each.upto:6,} {'█' * round(40 * each.rows / most)} {each.rows:,}")
    for note in found.notes:
        yield Text(f"▲ {note}", "yellow")
    for row in found.first:
        yield Text(f"line {row.line}, {row.tokens} tokens", "dim")
        yield Text.assemble(*((f"⟦{p.text}⟧", "bold green") if p.trained else p.text for p in row.pieces))
