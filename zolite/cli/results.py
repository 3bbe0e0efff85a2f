"""`zolite eval` and `zolite export`: what a session has learned, as a score and as files for other programs."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from zolite.cli import score_table
from zolite.cli.flags import Given, changes, takes
from zolite.cli.process import Json, Name, report
from zolite.common import files
from zolite.export import registry
from zolite.sessions import session as sessions


@takes("model.quant", "model.device", "data.template", "data.columns")
def evaluate(
    target: Annotated[str, typer.Argument(metavar="NAME|MODEL", help="a session, or a model as it is")],
    data: Annotated[str, typer.Option(metavar="PATH", help="a file, or a folder's test rows")],
    given: Given,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a new file: what was chosen and said for each row, as JSONL")
    ] = None,
    as_json: Json = False,
) -> None:
    """Accuracy on rows with labels, and what is behind it; token loss on others.

    A session is compared with its base model. Accuracy ranks the labels; "says a label" is what other programs get,
    which let the model write.
    """
    from zolite.training.score import records, scores

    target_file = out.expanduser() if out else None
    if target_file:
        files.ensure_free(target_file)
    found = scores(target, Path(data), changes(given), labelled=out is not None)
    if target_file:
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records(found))
        with files.saving("the predictions", target_file, len(lines)):
            files.replace(target_file, lines.encode("utf-8", "backslashreplace"))
    if as_json:
        print(json.dumps(score_table.document(found), ensure_ascii=False))
    else:
        Console().print(score_table.render(found))


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
