"""`zolite eval` and `zolite export`: what a session has learned, as a score and as files for other programs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from zolite.cli import score_table
from zolite.cli.flags import Given, changes, takes
from zolite.cli.process import Json, Name, report
from zolite.cli.terminal import Terminal, say_json
from zolite.common import files
from zolite.common.errors import UsageError
from zolite.export import registry
from zolite.sessions import scores
from zolite.sessions import session as sessions


@takes(
    "model.quant", "model.device", "data.template", "data.columns", "data.task", "data.context", "data.split_by",
    "model.trust_code",
)  # fmt: skip
def evaluate(
    target: Annotated[str, typer.Argument(metavar="NAME|MODEL", help="a session, or a model as it is")],
    given: Given,
    data: Annotated[str | None, typer.Option(metavar="PATH", help="a file, or a folder's test rows")] = None,
    zero_shot: Annotated[bool, typer.Option(help="beside a session, its base model as it is")] = True,
    few_shot: Annotated[
        int,
        typer.Option(metavar="K", min=0, help="beside it, the base model with K examples from train before each row"),
    ] = 0,
    answers: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="rows that are answered in text; auto: 200, on a CPU 40")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a new file: what was chosen or written for each row, as JSONL")
    ] = None,
    lm_eval: Annotated[
        str | None, typer.Option("--lm-eval", metavar="TASK,…", help="in the place of rows, tasks of lm-eval")
    ] = None,
    as_json: Json = False,
) -> None:
    """Accuracy on rows with labels or choices; on others loss, perplexity and what the answers are worth.

    A session is compared with its base model. Accuracy ranks the labels; "says a label" is what other programs get,
    which let the model write. docs/scores.md says what each figure is.
    """
    if (data is None) is (lm_eval is None):
        raise UsageError(
            "eval needs either --data PATH or --lm-eval TASK", f"for example `zolite eval {target} --data PATH`"
        )
    if lm_eval is not None:
        _harness(target, lm_eval, changes(given), zero_shot, few_shot, as_json)
        return
    assert data is not None
    from zolite.training.score import Wanted, records
    from zolite.training.score import scores as scored

    target_file = out.expanduser() if out else None
    if target_file:
        files.ensure_free(target_file)
    found = scored(target, Path(data), changes(given), Wanted(zero_shot, few_shot, answers, each_row=out is not None))
    if target_file:
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records(found))
        with files.saving("the predictions", target_file, len(lines)):
            files.replace(target_file, lines.encode("utf-8", "backslashreplace"))
    if as_json:
        say_json(score_table.document(found))
    else:
        Terminal().print(score_table.render(found))
    if sessions.exists(target):
        scores.keep(sessions.folder_of(target), score_table.document(found))


def _harness(target: str, tasks: str, given: Given, base: bool, examples: int, as_json: bool) -> None:
    from zolite.tools.harness import scores

    found = scores(target, [task.strip() for task in tasks.split(",") if task.strip()], given, base, examples)
    if as_json:
        say_json(score_table.plain(found))
    else:
        Terminal().print(score_table.harness(found))


def export(
    name: Name,
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR|FILE", help="a new or empty folder, or a .gguf file; NAME-FORMAT here if left out"),
    ] = None,
    format_: Annotated[
        str,
        typer.Option("--format", help=f"{registry.described()}. peft if left out, gguf for a .gguf file"),
    ] = "",
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

    is_file = to is not None and to.suffix == ".gguf"
    format_ = format_ or ("gguf" if is_file else "peft")
    registry.named(format_)
    to = to or Path(f"{name}-{format_}")
    write = exports.export_file if is_file else exports.export
    with sessions.open_(name) as session:
        done = write(session, to.expanduser(), format_, step, dtype, force, verify)
        document = exports.about(done, session, format_) | {"path": str(to), "uses": done.uses}
    report(document, "\n".join(exports.summary(done, name, format_)), as_json)
