"""`zolite chat`: prompts in, two answers out, for a person at a terminal, a pipe, or the app."""

import contextlib
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
from zolite.cli.terminal import Terminal, say, say_json
from zolite.common.errors import UsageError, ZoliteError
from zolite.common.text import one_line

if TYPE_CHECKING:
    from zolite.tools.chat import Talk

SIDES = ("base", "tuned")
SHOWN = 3  # labels, the likeliest first
NEW = "/new"


def chat(
    name: Name,
    step: Annotated[str, typer.Option(help="a number, last, or best (on dev)")] = "last",
    tokens: Annotated[
        int | None, typer.Option(min=1, help="most tokens of an answer", show_default="64; of a conversation 256")
    ] = None,
    system: Annotated[
        str | None, typer.Option(help='the system message of conversations; "" for none', show_default="as in training")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="how likely each label is among the labels")] = False,
    as_json: Json = False,
) -> None:
    """What the model says without the adapter and with it, side by side; the likeliest token each time.

    A line is a prompt, and is put into the template or the chat template
    that was trained with. A conversation goes on until /new. Where a template
    has several columns, each is asked for, or a line is a row as JSON.

    With --json a line is {"prompt": "…"} or {"columns": {…}}, which may also
    have "tokens", "step", "system", "new": true for another conversation, and
    "shares": true for how likely each label is. The lines that come back are
    pieces of either answer, then both whole.
    """
    from zolite.tools.chat import open_

    with contextlib.ExitStack() as stack:
        with Console(stderr=True).status("loading the model …"):  # shown on a terminal alone
            talk = stack.enter_context(open_(name, step, system))
        if as_json:
            _answer_json(talk, sys.stdin, tokens)
        else:
            _answer_people(talk, tokens, verbose)


# ---- JSON


def _answer_json(talk: "Talk", lines: Iterable[str], tokens: int | None) -> None:
    """An error in one line is reported, and the next line is waited for."""
    _print("ready", _state(talk))
    for line in lines:
        if not line.strip():
            continue
        try:
            for event, fields in _answered(talk, line, tokens):
                _print(event, fields)
        except ZoliteError as error:
            _print("error", {"message": error.message, "hint": error.hint})


def _state(talk: "Talk") -> dict[str, Any]:
    prompt = talk.prompt
    about = {"columns": prompt.columns, "chat": prompt.chat, "system": talk.system, "labels": prompt.labels}
    return {"session": talk.session.name, "step": talk.step, **about, "note": prompt.note}


def _answered(talk: "Talk", line: str, tokens: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    asked = _asked(line)
    system = asked.get("system")
    if asked.get("new") or system not in (None, talk.system):
        talk.begin(system)
    if "step" in asked:
        talk.turn_to(str(asked["step"]))
    if asked.keys() & {"step", "new", "system"}:
        yield "ready", _state(talk)
    if what := asked.keys() & PROMPTS:
        for answer in talk.reply(asked[what.pop()], asked.get("tokens", tokens), asked.get("shares", False)):
            yield type(answer).__name__.lower(), asdict(answer)


PROMPTS = {"prompt", "columns"}
ASKED: dict[str, tuple[type, ...]] = {
    "prompt": (str,), "columns": (dict,), "tokens": (int,), "step": (int, str), "system": (str,), "new": (bool,),
    "shares": (bool,),
}  # fmt: skip


def _asked(line: str) -> dict[str, Any]:
    example = 'for example {"prompt": "hello", "tokens": 32, "step": "best"}'
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError(f"{line.strip()[:40]!r} is no JSON", example) from None
    if not isinstance(asked, dict) or not asked.keys() & {*PROMPTS, "step", "system", "new"}:
        raise UsageError(f"{line.strip()[:40]!r} asks for nothing", example)
    bad = [key for key, value in asked.items() if type(value) not in ASKED.get(key, ())]
    bad += ["tokens"] if "tokens" not in bad and asked.get("tokens", 1) < 1 else []
    bad += sorted(PROMPTS) if asked.keys() >= PROMPTS else []
    if bad:
        raise UsageError(f"{', '.join(map(repr, bad))} cannot be so", example)
    return asked


def _print(event: str, fields: dict[str, Any]) -> None:
    say_json({"event": event, **fields})


# ---- people


def _answer_people(talk: "Talk", tokens: int | None, verbose: bool) -> None:
    """Two columns on a terminal, where an error or Ctrl-C ends one answer; through a pipe a line for each side."""
    console, asking = Terminal(), sys.stdin.isatty()
    for line in _greeting(talk):
        console.print(line, highlight=False, markup=False)
    while (asked := _given(talk.prompt.columns, asking)) is not None:
        try:
            if talk.prompt.chat and asked == {"prompt": NEW}:
                talk.begin()
                console.print("another conversation", style="dim")
            elif console.is_terminal:
                _show(talk, asked, tokens, verbose, console)
            else:
                (*_, answer) = talk.reply(asked, tokens, verbose)
                say("\n".join(_flat(answer)))
        except (ZoliteError, KeyboardInterrupt) as error:
            if not (asking and console.is_terminal):
                raise
            console.print(_told(error), style="red", highlight=False, markup=False)


def _told(error: ZoliteError | KeyboardInterrupt) -> str:
    stopped = "stopped: nothing of this is remembered"
    return f"error: {error.message}\nhint: {error.hint}" if isinstance(error, ZoliteError) else stopped


def _greeting(talk: "Talk") -> Iterator[str]:
    prompt = talk.prompt
    new = f"; {NEW} begins another conversation" if prompt.chat else ""
    yield f"{talk.session.name} at step {talk.step}; an empty line ends{new}"
    if prompt.note:
        yield prompt.note
    if talk.system:
        why = ', as in every row of train (--system "" leaves it out)' if talk.system == prompt.system else ""
        yield f"system message{why}: {one_line(talk.system)}"


def _given(columns: tuple[str, ...], asking: bool) -> dict[str, Any] | None:
    """A row's columns, one a line or all as JSON in the first; None at its end."""
    first, *others = columns
    line = _line(f"{first} " if others else "", asking)
    if not line.strip():
        return None
    row = _row(line, columns) if columns != ("prompt",) else {}
    return row or {first: line} | {name: _line(f"{name} ", asking) for name in others}


def _row(line: str, columns: tuple[str, ...]) -> dict[str, Any]:
    """A line that is a row as JSON; else nothing, as a text may be JSON too."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and found.keys() & set(columns) else {}


def _line(name: str, asking: bool) -> str:
    """As it was typed, with the spaces at its ends."""
    try:
        return input(f"{name}› " if asking else "")
    except EOFError:
        return ""


def _flat(answer: Any) -> Iterator[str]:
    for side in SIDES:
        notes = f"({answer.notes[side]})" if answer.notes[side] else ""
        said = " ".join(f"{getattr(answer, side)} {notes}".split())
        yield f"{side:<5}  {said}"
        if side in answer.shares:
            yield f"       {_ranked(answer.shares[side])}"


def _ranked(shares: dict[str, float]) -> str:
    return "among the labels: " + ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:SHOWN])


def _show(talk: "Talk", asked: dict[str, Any], tokens: int | None, verbose: bool, console: Console) -> None:
    from zolite.tools.chat import Piece

    texts, notes = dict.fromkeys(SIDES, ""), dict.fromkeys(SIDES, "")
    with Live(console=console, refresh_per_second=8) as live:
        for answer in talk.reply(asked, tokens, verbose):
            if isinstance(answer, Piece):
                texts[answer.side] += answer.text
            else:
                texts, notes = {side: getattr(answer, side) for side in SIDES}, _notes(answer)
            live.update(_beside(texts, notes))


def _notes(answer: Any) -> dict[str, str]:
    ranked = {side: _ranked(shares) for side, shares in answer.shares.items()}
    return {side: "\n".join(filter(None, (answer.notes[side], ranked.get(side)))) for side in SIDES}


def _beside(texts: dict[str, str], notes: dict[str, str]) -> Table:
    table = Table(box=None, expand=True, pad_edge=False)
    for side in SIDES:
        table.add_column(side, ratio=1)
    table.add_row(*(Text(texts[side].strip()) for side in SIDES))
    if any(notes.values()):
        table.add_row(*(Text(notes[side], style="dim italic") for side in SIDES))
    return table
