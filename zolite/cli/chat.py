"""`zolite chat`: prompts in, two answers out, for a person at a terminal, a pipe, or the app."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from zolite.cli.process import Json, Name
from zolite.common.errors import UsageError, ZoliteError

if TYPE_CHECKING:
    from zolite.tools.chat import Talk

PROMPT = "› "


def chat(
    name: Name,
    step: Annotated[str, typer.Option(help="a number, last, or best (on dev)")] = "last",
    tokens: Annotated[int, typer.Option(help="most tokens of an answer")] = 64,
    as_json: Json = False,
) -> None:
    """Answers of the model without the adapter and with it, side by side; the likeliest token each time.

    A line is a prompt. With --json a line is {"prompt": "…"}, which may also have "tokens" and "step"; the lines that
    come back are pieces of either answer, then both whole.
    """
    from zolite.tools.chat import open_

    with open_(name, step) as talk:
        if as_json:
            _answer_json(talk, sys.stdin, tokens)
        else:
            _answer_people(talk, tokens)


def _answer_json(talk: "Talk", lines: Iterable[str], tokens: int) -> None:
    """An error in one line is reported, and the next line is waited for."""
    _print("ready", {"session": talk.session.name, "step": talk.step})
    for line in lines:
        if not line.strip():
            continue
        try:
            for event, fields in _answered(talk, line, tokens):
                _print(event, fields)
        except ZoliteError as error:
            _print("error", {"message": error.message, "hint": error.hint})


def _answered(talk: "Talk", line: str, tokens: int) -> Iterator[tuple[str, dict[str, Any]]]:
    asked = _asked(line)
    if "step" in asked:
        yield "ready", {"session": talk.session.name, "step": talk.turn_to(str(asked["step"]))}
    if "prompt" in asked:
        for answer in talk.reply(asked["prompt"], asked.get("tokens", tokens)):
            yield type(answer).__name__.lower(), asdict(answer)


ASKED = {"prompt": str, "tokens": int, "step": int | str}


def _asked(line: str) -> dict[str, Any]:
    example = 'for example {"prompt": "hello", "tokens": 32, "step": "best"}'
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError(f"{line.strip()[:40]!r} is no JSON", example) from None
    if not isinstance(asked, dict) or not asked.keys() & {"prompt", "step"}:
        raise UsageError(f"{line.strip()[:40]!r} asks for nothing", example)
    bad = [key for key, value in asked.items() if key not in ASKED or not isinstance(value, ASKED[key])]
    if bad:
        raise UsageError(f"{', '.join(map(repr, bad))} cannot be so", example)
    return asked


def _print(event: str, fields: dict[str, Any]) -> None:
    print(json.dumps({"event": event, **fields}, ensure_ascii=False), flush=True)


def _answer_people(talk: "Talk", tokens: int) -> None:
    """Two columns on a terminal; through a pipe a line for each side."""
    console, asking = Console(), sys.stdin.isatty()
    console.print(f"{talk.session.name} at step {talk.step}; an empty line ends", highlight=False)
    while line := _line(asking):
        if console.is_terminal:
            _show(talk, line, tokens, console)
        else:
            (*_, answer) = talk.reply(line, tokens)
            print(f"base   {_flat(answer, 'base')}\ntuned  {_flat(answer, 'tuned')}", flush=True)


def _line(asking: bool) -> str:
    try:
        return input(PROMPT if asking else "").strip()
    except EOFError:
        return ""


def _flat(answer: Any, side: str) -> str:
    return " ".join(str(getattr(answer, side)).split())


def _show(talk: "Talk", line: str, tokens: int, console: Console) -> None:
    from zolite.tools.chat import Piece

    texts = {"base": "", "tuned": ""}
    with Live(console=console, refresh_per_second=8) as live:
        for answer in talk.reply(line, tokens):
            if isinstance(answer, Piece):
                texts[answer.side] += answer.text
            else:
                texts = {side: getattr(answer, side) for side in texts}
            live.update(_beside(texts))


def _beside(texts: dict[str, str]) -> Table:
    table = Table(*texts, box=None, expand=True, pad_edge=False)
    table.add_row(*(Text(text.strip()) for text in texts.values()))
    return table
