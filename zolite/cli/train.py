"""`zolite demo`, `zolite train` and `zolite resume`: a run and what is asked of it."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from zolite.cli.flags import Given, Sets, changes, model_of, takes
from zolite.cli.process import Detach, Interrupt, Json, Name, Plain, Verbose, detached, follow, outline, report, tell
from zolite.common.errors import UsageError
from zolite.common.events import Event
from zolite.common.progress import phase
from zolite.config import catalog
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.sessions import session as sessions
from zolite.sessions.steps import refuse_done

IMPORTING = "importing PyTorch"
Model = Annotated[str | None, typer.Argument(metavar="MODEL", help="hub id, folder, .gguf file or builtin:NAME")]


@takes("train.steps", "model.quant", "model.device", "train.seed")
def demo(
    given: Given,
    detach: Detach = False,
    plain: Plain = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Fine-tune the embedded model on embedded messages, from first look to exported adapter."""
    if detach:
        _detached(as_json)
        return
    asked = changes(given)
    follow(partial(_demo, asked), plain, as_json, verbose)


# What imports torch does so once a run is followed: the first line is said before.


def _demo(asked: Given, stop: Interrupt) -> Iterator[Event]:
    with phase(IMPORTING):
        from zolite.demo.run import demo, demo_recipe
    yield from demo(recipes.override(demo_recipe(), asked), stop)


def _begun(recipe: Recipe, name: str | None, stop: Interrupt) -> Iterator[Event]:
    with phase(IMPORTING):
        from zolite.training.resume import begin
    yield from begin(recipe, name, stop)


def _resumed(name: str, asked: Given, force: bool, stop: Interrupt) -> Iterator[Event]:
    with phase(IMPORTING):
        from zolite.training.resume import resume
    yield from resume(name, asked, force, stop)


@takes(
    "data.path", "model.name", "method.name", "adapter.space", "adapter.rank", "adapter.targets", "model.quant",
    "model.device", "train.objective", "train.steps", "train.epochs", "train.batch", "train.lr", "train.eps",
    "train.copies", "train.seed", "data.context", "data.template", "data.columns", "data.task", "data.dev_share",
    "data.split_seed", "data.split_by", "data.group_by", "train.vram_gib", "model.trust_code",
)  # fmt: skip
def train(
    model: Model = None,
    *,
    given: Given,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME", help="a recipe file, or a model's in the catalogue; other options override it"
        ),
    ] = None,
    from_adapter: Annotated[
        Path | None, typer.Option(metavar="DIR", help="go on from a LoRA as peft writes it; sets rank, alpha, targets")
    ] = None,
    name: Annotated[str | None, typer.Option(help="the session's name")] = None,
    sets: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check recipe and data, load nothing")] = False,
    detach: Detach = False,
    plain: Plain = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Fine-tune MODEL on your rows and save a session."""
    model = model_of(model, given)
    if model is None or "data.path" not in given:
        raise UsageError(
            "train needs MODEL and --data PATH", "for example `zolite train builtin:smollm2-135m --data PATH`"
        )
    asked, start = changes(given, sets), base(recipe)
    if from_adapter:
        from zolite.training import warm_start

        asked = warm_start.settings(from_adapter.expanduser(), asked, start.adapter) | asked
    chosen = recipes.override(start, {"model.name": model, **asked})
    sessions.ensure_free(name)
    if dry_run:
        _dry_run(chosen, as_json)
        return
    if detach:
        _detached(as_json)
        return
    follow(partial(_begun, chosen, name), plain, as_json, verbose, chosen.data.path)


@takes("train.steps", "train.lr", "model.device", "data.path", "train.vram_gib")
def resume(
    name: Name,
    given: Given,
    sets: Sets = None,
    force: Annotated[bool, typer.Option(help="go on although model, data or recipe changed")] = False,
    detach: Detach = False,
    plain: Plain = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Go on with a session where it stopped."""
    asked = changes(given, sets)
    with sessions.open_(name) as session:  # what is refused is refused at once, before anything is loaded
        if not session.running():
            refuse_done(session, recipes.override(session.recipe, asked).train)
        data = session.recipe.data.path
    if detach:
        _detached(as_json)
        return
    follow(partial(_resumed, name, asked, force), plain, as_json, verbose, data)


def base(recipe: str | None) -> Recipe:
    """A file's, or that of a model in the catalogue, by its short name."""
    if recipe is None:
        return Recipe()
    known = catalog.models().get(recipe)
    return recipes.from_dict(dict(known.recipe)) if known else recipes.load(Path(recipe).expanduser())


def _dry_run(recipe: Recipe, as_json: bool) -> None:
    """As far as a run goes without weights: the rows are tokenized, and refused as they would be."""
    from zolite.training.prepare import tokenized

    rows = tokenized(recipe)
    counts = {split: len(part) for split, part in rows.dataset.splits.items()}
    labels = rows.dataset.labels
    resolved = recipes.to_json(recipes.resolve(recipe, len(labels), len(rows.coded.examples["train"])))
    about = {"recipe": resolved, "rows": counts, "kind": rows.dataset.kind, "labels": list(labels)}
    about |= {"warnings": [note.message for note in rows.notes if note.level == "warning"]}
    report(about, "\n".join(outline(about)), as_json)


def _detached(as_json: bool) -> None:
    """This very command, in a process of its own."""
    mine = ("--detach", "--json", "--plain")
    told = partial(tell, as_json)
    name = detached([argument for argument in sys.argv[1:] if argument not in mine], told)
    report({"session": name}, f"session {name} runs in the background; `zolite watch {name}` shows it", as_json)
