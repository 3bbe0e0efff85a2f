"""`zolite sessions …`, `zolite watch` and `zolite replay`: runs of the past and the present."""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import typer

from zolite.cli import live
from zolite.cli.process import Json, Name, Plain, Verbose, agreed, interrupt, outline, report, show
from zolite.cli.terminal import Terminal, columns, say, say_json
from zolite.common import files
from zolite.common.errors import ZoliteError
from zolite.common.events import to_json
from zolite.common.paths import paths
from zolite.common.text import UNKNOWN, human_bytes, one_line, visible
from zolite.config import recipe as recipes
from zolite.monitor.log import later_text, metric_text, split_text
from zolite.monitor.outcome import concluded
from zolite.monitor.states import STATES
from zolite.sessions import damage, leftovers, manage, recording
from zolite.sessions import session as sessions
from zolite.sessions.control import COMMANDS
from zolite.sessions.follow import News, follow, in_order
from zolite.sessions.steps import chosen, later
from zolite.sessions.summaries import Summaries

app = typer.Typer(help="Sessions: list, inspect, rewind, fork, record and control them.", no_args_is_help=True)

Yes = Annotated[bool, typer.Option("--yes", help="do not ask")]
Step = Annotated[str, typer.Option(help="a number, last, or best (on validation rows)")]


@app.command("list")
def list_sessions(as_json: Json = False) -> None:
    """Every session, newest first."""
    leftovers.sweep(paths()["sessions"])
    rows = Summaries().list_()
    if as_json:
        say_json([row.plain() for row in rows])
        return
    titles = ("name", "state", "step", "model", "method", "best", "disk")
    lines = columns([titles, *map(_line, rows)], Terminal().width)
    lines += [
        f"{name} is damaged: `zolite sessions rm {shlex.quote(name)}` removes it"
        for name in (visible(row.name) for row in rows if row.status == "damaged")
    ]
    say("\n".join(lines) if rows else "no sessions yet: `zolite demo` makes the first")


def _line(row: sessions.Summary) -> tuple[str, ...]:
    symbol, word, _ = STATES[row.status]
    best = f"{split_text(row.best.split)} {metric_text(row.best)}" if row.best else one_line(row.problem)
    steps = f"{row.step:,} of {row.steps:,}" if row.steps else UNKNOWN
    return visible(row.name), f"{symbol} {word}", steps, one_line(row.model), row.method, best, human_bytes(row.bytes)


@app.command("show")
def show_session(name: Name, as_json: Json = False) -> None:
    """A session's recipe, what it was made with, its scores and checkpoints; of a damaged one what is wrong with it."""
    path = sessions.folder_of(name)
    try:
        about = _about(name)
    except (ZoliteError, *files.DAMAGE):
        about = damage.known(path)
    report(about, "\n".join(outline(about)), as_json)


def _about(name: str) -> dict[str, Any]:
    with sessions.open_(name) as session:
        return {
            "name": session.name,
            "path": str(session.path),
            "step": session.journal.last_step(),
            "recipe": recipes.to_json(session.recipe),
            "facts": session.facts,
            "evaluations": [json.loads(to_json(e)) for e in session.journal.evaluations()],
            "checkpoints": session.steps(),
        } | ({"ahead_of_the_journal": session.ahead()} if session.ahead() else {})


@app.command()
def rename(name: Name, new: Annotated[str, typer.Argument(metavar="NEW", help="its new name")]) -> None:
    """Give a session another name."""
    manage.rename(name, new)
    say(f"{name} is {new} now")


@app.command()
def rewind(name: Name, to: Step, yes: Yes = False, as_json: Json = False) -> None:
    """Remove every step after one for good; `zolite resume` then continues from there. `fork` keeps both."""
    with sessions.open_(name) as session:
        step = chosen(session, to)
        gone = later(session, step)
    count = gone.last - step
    if count:
        fork = f"`zolite sessions fork {name} --at {step}` goes another way and keeps them"
        agreed(f"rewinding {name} to step {step} removes {later_text(gone)}", fork, yes)
    manage.rewind(name, step)
    document = {"session": name, "step": step, "taken_back": count}
    report(document, f"{name} is at step {step}; {count} steps were removed", as_json)


@app.command()
def fork(
    name: Name,
    new: Annotated[str | None, typer.Argument(metavar="NEW", help="the new session's name")] = None,
    at: Step = "last",
    as_json: Json = False,
) -> None:
    """A new session with the first steps of another, which may be running; `zolite resume NEW` continues from there."""
    with sessions.open_(name) as session:
        step = chosen(session, at)
    made = manage.fork(name, new, step)
    report({"session": made, "from": name, "step": step}, f"{made} is {name} at step {step}", as_json)


@app.command()
def prune(name: Name, as_json: Json = False) -> None:
    """Remove checkpoints: all but the first, the best and the newest. Every step can still be rebuilt."""
    freed = manage.prune(name)
    report(
        {"session": name, "freed_bytes": freed}, f"{human_bytes(freed)} freed; every step can still be rebuilt", as_json
    )


@app.command()
def rm(name: Name, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Delete a session with its checkpoints, damaged or not."""
    shown = visible(sessions.folder_of(name).name)
    if not yes:
        typer.confirm(f"delete {shown} and {_what_it_holds(name)}?", abort=True)
    manage.remove(name)
    say(f"{shown} is deleted")


def _what_it_holds(name: str) -> str:
    try:
        with sessions.open_(name) as session:
            return f"its {session.journal.last_step()} steps"
    except (ZoliteError, *files.DAMAGE):
        return "all that is in it, though it is damaged"


@app.command()
def verify(name: Name, as_json: Json = False) -> None:
    """Replay a session without its model and compare it with every checkpoint that was saved."""
    from zolite.training.verify import device_of, verify

    path = sessions.folder_of(name)
    try:
        with sessions.open_(name) as session:
            device = device_of(session)
            verdicts = list(verify(session, device))
    except (ZoliteError, *files.DAMAGE) as error:
        raise damage.error(path, str(error)) from error
    if as_json:
        rows = [asdict(v) for v in verdicts]
        say_json({"session": name, "device": str(device), "checkpoints": rows})
    else:
        lines = [f"step {v.step:<8} {v.state:10} {v.detail}" for v in verdicts]
        say("\n".join([*(lines or ["no checkpoint was saved yet"]), f"replayed on {device}"]))
    if bad := [v for v in verdicts if not v.sound]:
        sound = [0, *(v.step for v in takewhile(lambda v: v.sound, verdicts))]
        raise ZoliteError(
            f"{len(bad)} of {len(verdicts)} checkpoints of {name} differ from its journal",
            f"`zolite sessions rewind {name} --to {sound[-1]}` keeps the steps that are sound",
        )


@app.command()
def record(
    name: Name, file: Annotated[Path, typer.Argument(metavar="FILE", help="a new file, such as run.jsonl")]
) -> None:
    """Write a run's losses and events to one text file, to share and to replay. No weights and no data are in it."""
    with sessions.open_(name) as session:
        recorded = recording.of(session)
    recording.write(recorded, file.expanduser())
    say(f"{file}: {len(recorded.rows)} steps of {name}; `zolite replay {file}` plays it")


def _control(verb: str) -> Callable[[str], None]:
    def command(name: Name) -> None:
        manage.send(name, verb)
        say(f"{name}: {verb}")

    command.__doc__ = f"For a session that is running: {COMMANDS[verb]}."
    return command


for each in COMMANDS:
    app.command(each)(_control(each))


def watch(name: Name, plain: Plain = False, as_json: Json = False, verbose: Verbose = False) -> None:
    """Follow a run, or show a finished one; on a terminal in the app. Leaving does not stop the run."""
    with sessions.open_(name):
        pass  # an unknown name is refused before anything is drawn
    if live.pick(plain, as_json) == "live" and sys.stdin.isatty():
        from zolite.tui.app import open_app
        from zolite.tui.screens.run import RunScreen

        open_app(lambda: RunScreen(name))
        return
    leave = interrupt(f"no longer watching {name}")
    with sessions.open_(name) as session, live.VIEWS[live.pick(plain, as_json)](verbose=verbose) as view:
        for event in concluded(follow(session, leave), session.recipe.data.path):
            show(view, event)


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="what `zolite sessions record` wrote")],
    plain: Plain = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Play a recorded run: on a terminal in the app, where you can move to any step; else event by event."""
    recorded = recording.read(file.expanduser())
    if live.pick(plain, as_json) == "live" and sys.stdin.isatty():
        from zolite.tui.app import open_app
        from zolite.tui.screens.replay import ReplayScreen

        open_app(lambda: ReplayScreen(file.expanduser()))
        return
    news = News(recorded.rows, recorded.events, recorded.memory)
    with live.VIEWS[live.pick(plain, as_json)](verbose=verbose) as view:
        for event in concluded(in_order(news), recorded.recipe.data.path):
            show(view, event)
