"""The command line: which commands there are, and how they end. Each is parsed, calls, and renders what it gets."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from zolite import __version__
from zolite.cli import chat, data, learn, machine, methods, report, results, sessions, train
from zolite.cli.flags import Command
from zolite.cli.process import INTERRUPTED
from zolite.cli.terminal import say
from zolite.common.errors import UsageError, ZoliteError

COMMANDS: dict[str, Command] = {  # in the order of use
    "demo": train.demo,
    "train": train.train,
    "chat": chat.chat,
    "export": results.export,
    "report": report.report,
    "eval": results.evaluate,
    "plan": machine.plan,
    "resume": train.resume,
    "watch": sessions.watch,
    "replay": sessions.replay,
    "doctor": machine.doctor,
    "profile": machine.profile,
    "bench": machine.bench,
    "methods": methods.methods,
    "learn-optimizer": learn.learn_optimizer,
    "paths": machine.paths,
}
ALIASES: dict[str, Command] = {
    "finetune": train.train,
    "run": train.train,
    "generate": chat.chat,
    "list": sessions.list_sessions,
    "ls": sessions.list_sessions,
}
"""Names that other tools have for the same; help does not list them."""


class Commands(TyperGroup):
    """Typer suggests what is spelled alike; this one also knows that `zolite rm` is `zolite sessions rm`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        for group in ("sessions", "data"):
            inner = self.get_command(ctx, group)
            if self.get_command(ctx, name) is None and name in getattr(inner, "commands", {}):
                raise UsageError(f"there is no command {name}", f"`zolite {' '.join([group, *args])}`")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    help="Fine-tune language models with forward passes alone, on the GPU you already own. Alone it opens the app.",
    no_args_is_help=True,
    add_completion=False,
    cls=Commands,
    pretty_exceptions_enable=False,
)
for name, command in COMMANDS.items():
    app.command(name)(command)
for name, command in ALIASES.items():
    app.command(name, hidden=True)(command)
app.add_typer(sessions.app, name="sessions")
app.add_typer(data.app, name="data")


def main() -> None:
    """Run a command; errors become one line of what, one of what to do, and an exit code."""
    try:
        app()
    except ZoliteError as error:
        if "--debug" in sys.argv:
            raise
        say(f"error: {error.message}", sys.stderr)
        if error.hint:
            say(f"hint: {error.hint}", sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=lambda v: _version(v))] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", is_eager=True, callback=lambda s: _serve(s), help="the app in a browser")
    ] = False,
) -> None:
    """Options of every command."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"zolite {__version__}")
        raise typer.Exit


def _serve(wanted: bool) -> None:
    if not wanted:
        return
    try:
        from zolite.tui.serve import serve
    except ImportError:
        raise UsageError("textual-serve is not installed", "`pip install textual-serve`, then once more") from None
    serve()
    raise typer.Exit
