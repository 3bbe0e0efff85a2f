"""`zolite report`: a page about a session, or several compared."""

from pathlib import Path
from typing import Annotated

import typer

from zolite.cli import process
from zolite.cli.process import Json
from zolite.planner import hardware
from zolite.report.written import written


def report(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="a session, or several to compare")],
    to: Annotated[
        Path | None,
        typer.Option(metavar="PLACE", help="a file.html, or a folder for the page and its curves as SVG files"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page about a session: what was trained, its curves, scores, answers, memory and how to load it.

    It needs nothing else and no network. Without --to it is NAME-report.html, here.
    """
    made = written(names, to.expanduser() if to else None, hardware.here)
    document = {"sessions": names, "page": str(made[0]), "curves": [str(path) for path in made[1:]]}
    process.report(document, "\n".join(map(str, made)), as_json)
