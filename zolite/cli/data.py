"""`zolite data …`: what will be made of rows, and what is wrong with them."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from zolite.cli.flags import Given, Sets, changes, takes
from zolite.cli.process import Json, aside, report
from zolite.cli.terminal import Terminal, say_json
from zolite.common.errors import UsageError
from zolite.common.paths import paths
from zolite.common.text import human_bytes, many, one_line, visible
from zolite.config.recipe import DataPart, ModelPart, Recipe

if TYPE_CHECKING:
    from zolite.data.preview import Coder, Report

app = typer.Typer(help="What will be made of your rows.", no_args_is_help=True)

BAR = 32  # cells of the longest
LABELS = 8  # that are shown
Line = tuple[str, Text]
"""A mark, and what stands behind it, which may take several lines."""


@app.callback()
def options() -> None:
    """What will be made of your rows."""


@app.command()
@takes(
    "data.template", "data.columns", "data.task", "data.context", "data.dev_share", "data.split_seed", "data.split_by",
    "data.group_by", "model.trust_code",
)  # fmt: skip
def check(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="rows as for train: a file, a folder, a pattern or hf:NAME")
    ],
    *,
    given: Given,
    model: Annotated[str, typer.Option(metavar="MODEL", help="count by its tokenizer; by letters if left out")] = "",
    verbalizer: Annotated[
        str, typer.Option(help="words in the place of a column's values: 0=terrible,1=great for labels")
    ] = "",
    template_args: Annotated[
        str, typer.Option(help="arguments of the model's chat template, such as enable_thinking=false")
    ] = "",
    fix: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="write a copy without what is wrong: a new .jsonl or .csv file, or a folder"),
    ] = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Can the rows be used? Problems with their lines, labels, lengths, what is there twice, and the first rows as the
    model will read them; loads no weights.
    """
    from zolite.data import preview

    asked = {"data.template_args": template_args} | ({"data.verbalizer": verbalizer} if verbalizer else {})
    recipe = Recipe.of(asked | changes(given, sets) | {"data.path": path, "model.name": model or Recipe().model.name})
    data = recipe.data
    if fix:
        _repaired(data, fix.expanduser(), as_json)
        return
    known = coder(recipe.model, data) if model else None
    with aside(as_json):
        found = preview.of(data, known)
    if as_json:
        say_json(asdict(found))
    elif found.error:
        raise found.error
    else:
        show(described(found))
    raise typer.Exit(0 if found.sound else UsageError.exit_code)


def coder(model: ModelPart, data: DataPart) -> "Coder":
    """The tokenizer of a model with its limits, without its weights."""
    from zolite.data.chat_template import chat_of, filled
    from zolite.data.preview import Coder
    from zolite.model.load import source_of, vocabulary

    words = vocabulary(source_of(model), paths()["cache"])
    tokenizer = filled(words.tokenizer, chat_of(data, {}))
    return Coder(model.name, tokenizer, words.table, words.positions, words.learned, words.notes)


def _repaired(data: DataPart, out: Path, as_json: bool) -> None:
    from zolite.data.repairs import repair

    done = repair(data, out)
    if as_json:
        say_json(asdict(done))
        return
    show(("✓", Text(f"written: {file}, {rows:,} rows")) for file, rows in done.files.items())
    show(("·", Text(one_line(what))) for what in done.done or ("nothing had to be repaired",))
    show([("→", Text(f"`zolite data check {shlex.quote(str(out))}` says whether they can be used now"))])


@app.command()
def clear(as_json: Json = False) -> None:
    """Free the disk of the tokens that are kept of large data sets; the next run makes them again."""
    from zolite.data import token_cache

    count, freed = token_cache.clear()
    done = {"data_sets": count, "bytes": freed}
    report(done, f"tokens of {many(count, 'data set')} removed: {human_bytes(freed)} freed", as_json)


# ---- for a person


def show(lines: Iterable[Line]) -> None:
    """On a terminal what is too long goes on under itself; elsewhere a line is a line."""
    console = Terminal()
    if not console.is_terminal:
        for mark, text in lines:
            console.print(Text.assemble(mark, " " * bool(mark), text), soft_wrap=True)
        return
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(overflow="fold")
    for mark, text in lines:
        table.add_row(mark, text)
    console.print(table)


def described(found: "Report") -> Iterator[Line]:
    """First what a person needs: can they be used, what they are, and what is likely wrong; then details."""
    yield "✓", Text(f"these rows can be used: {found.title}", "bold green")
    yield from _facts(found)
    yield from (("▲", Text(one_line(warning), "yellow")) for warning in found.warnings)
    yield from (("·", Text(one_line(note), "dim")) for note in found.notes)
    yield from _lengths(found)
    yield from _first(found)


def _facts(found: "Report") -> Iterator[Line]:
    held = found.files.get("dev") == found.files.get("train")
    rows = " · ".join(f"{split} {count:,}" for split, count in found.rows.items())
    yield "", Text.assemble(("rows    ", "dim"), rows, f" (all of {found.files['train']})" if held else "")
    if found.labels:
        shown = list(found.labels.items())[:LABELS]
        more = f" and {len(found.labels) - LABELS} more" if len(found.labels) > LABELS else ""
        labels = " · ".join(f"{one_line(label)} {count:,}" for label, count in shown) + more
        always = f"; always saying {one_line(shown[0][0])!r} would be right in {found.majority:.0%}"
        yield "", Text.assemble(("labels  ", "dim"), labels, (always, "dim"))
    yield "", Text.assemble(("scored  ", "dim"), f"by {found.metric} on dev")


def _lengths(found: "Report") -> Iterator[Line]:
    by = "letters, roughly" if found.counted == "letters" else found.counted
    every = sum(found.rows.values())
    some = f"; {found.sampled:,} of {every:,} rows" if found.sampled < every else ""
    yield "", Text("")
    yield "", Text.assemble(("Tokens a row", "bold"), (f", counted by {by}{some}", "dim"))
    most = max(each.rows for each in found.lengths)
    for each in found.lengths:
        bar = "█" * round(BAR * each.rows / most) or "▏" * bool(each.rows)
        yield "", Text(f"≤{each.upto:6,} {bar} {each.rows:,}")
    yield "", Text(f"{found.typical:,} in the middle, {found.tokens:,} in the longest row")
    longest = ", ".join(f"{each.file}: line {each.line} ({each.tokens:,})" for each in found.longest[:3])
    yield "", Text.assemble(("longest ", "dim"), longest)


def _first(found: "Report") -> Iterator[Line]:
    yield "", Text("")
    yield "", Text.assemble(("As the model reads it; ", "bold"), ("⟦what it learns to write⟧", "bold green"))
    for row in found.first:
        yield "", Text(f"line {row.line}, {row.tokens} tokens", "dim")
        yield "", Text.assemble(*(_piece(piece) for piece in row.pieces))


def _piece(piece: Any) -> str | tuple[str, str]:
    text = visible(piece.text)
    return (f"⟦{text}⟧", "bold green") if piece.trained else text
