"""`zolite eval` and `zolite export`: what a session has learned, as a score and as files for other programs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from zolite.cli.flags import Given, changes, takes
from zolite.cli.process import Json, Name, report
from zolite.common.events import to_json
from zolite.export import registry
from zolite.sessions import session as sessions


@takes("model.quant", "model.device", "data.template")
def evaluate(
    target: Annotated[str, typer.Argument(metavar="NAME|MODEL", help="a session, or a model as it is")],
    data: Annotated[str, typer.Option(metavar="PATH", help="a file, or a folder's test rows")],
    given: Given,
    as_json: Json = False,
) -> None:
    """Accuracy on rows with labels, token loss on others."""
    from zolite.monitor.log import metric_text
    from zolite.training.score import score

    event = score(target, Path(data), changes(given))
    report(json.loads(to_json(event)), f"{event.split}: {metric_text(event)}", as_json)


def export(
    name: Name,
    to: Annotated[Path, typer.Option(metavar="DIR", help="a new or empty folder")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help=registry.described(),
        ),
    ] = "peft",
    step: Annotated[
        str, typer.Option(help="a number, last, best (on dev), or numbers with commas for their mean")
    ] = "last",
    dtype: Annotated[str, typer.Option(help=registry.dtypes_described())] = "",
    force: Annotated[bool, typer.Option("--force", help="replace what an earlier export left in DIR")] = False,
    verify: Annotated[
        bool, typer.Option(help="load the export as other programs do and compare it with the session")
    ] = True,
    as_json: Json = False,
) -> None:
    """Write the adapter, or the model with it, for other programs: read back and compared before it appears.

    DIR gets a model card, a Modelfile for Ollama where it can read the format, and the comparison in export.json.
    """
    from zolite.export import export as exports

    folder = to.expanduser()
    with sessions.open_(name) as session:
        done = exports.export(session, folder, format_, step, dtype, force, verify)
        document = exports.about(done, session, format_) | {"path": str(to), "uses": done.uses}
    report(document, "\n".join(exports.summary(done, name, format_)), as_json)
