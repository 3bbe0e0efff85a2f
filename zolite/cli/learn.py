"""`zolite learn-optimizer`: networks for the method zo-finetuner, learned once a model."""

import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zolite.cli import live
from zolite.cli.flags import Given, Sets, changes, model_of, takes
from zolite.cli.process import INTERRUPTED, Json, interrupt, report
from zolite.cli.terminal import say
from zolite.cli.train import Model
from zolite.common.errors import UsageError
from zolite.config import recipe as recipes

if TYPE_CHECKING:
    from zolite.training.learn_scales import Progress, Task


@takes(
    "data.path", "model.name", "adapter.space", "adapter.rank", "adapter.targets", "model.quant", "model.device",
    "train.steps", "train.epochs", "train.batch", "train.lr", "train.eps", "train.seed", "data.context",
    "data.template", "data.columns", "model.trust_code",
    helps={
        "data.path": "any rows: the file serves other tasks too",
        "train.steps": "steps; 570 if left out",
        "train.batch": "rows a step; 8 if left out",
        "train.lr": "learning rate of the zeroth-order step that is learned for",
        "train.eps": "perturbation scale ε of that step",
    },
)  # fmt: skip
def learn_optimizer(
    model: Model = None,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="a new file; FILE.json beside it says what it is for")],
    given: Given,
    convert: Annotated[
        Path | None, typer.Option(help="instead of learning: a checkpoint its authors published")
    ] = None,
    restart_every: Annotated[int, typer.Option(help="steps until the adapter goes back to its start")] = 190,
    lr_mlp: Annotated[float, typer.Option(help="learning rate of the networks")] = 0.1,
    lr_llm: Annotated[float, typer.Option(help="first-order learning rate of the adapter")] = 1e-2,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Learn what the method zo-finetuner needs, once per MODEL. The one command that uses gradients.

    It needs the memory of first-order LoRA with activation checkpointing; `zolite train MODEL --method zo-finetuner
    --set method.optimizer=FILE` then runs on forward passes alone, on any data.
    """
    from zolite.training import learn_scales, scale_nets

    target = out.expanduser()
    scale_nets.ensure_free(target)
    if convert is not None:
        count = scale_nets.convert(convert.expanduser(), target)
        report({"path": str(target), "networks": count}, f"{target}: {count} networks", as_json)
        return
    model = model_of(model, given)
    if model is None or "data.path" not in given:
        raise UsageError("learn-optimizer needs MODEL and --data PATH", "or --convert FILE, a published checkpoint")
    recipe = recipes.override(learn_scales.BASE, {"model.name": model, **changes(given, sets)})
    task = learn_scales.prepare(recipe, learn_scales.Settings(restart_every, lr_mlp, lr_llm))
    print(learn_scales.explained(task), file=sys.stderr)
    _follow_learning(task, target, as_json)


def _follow_learning(task: "Task", target: Path, as_json: bool) -> None:
    """A line a step: all of them as JSON, else the first, the last and one every two seconds."""
    from zolite.training.learn_scales import learn

    stop, steps, row, shown = interrupt(), task.recipe.train.steps, None, -float("inf")
    for row in learn(task, target, stop):
        if as_json or row.step == steps or time.monotonic() - shown >= live.PlainView.EVERY:
            say(_progress_json(row) if as_json else _progress_text(row, steps))
            shown = time.monotonic()
    taken = row.step if row else 0
    say(f"{target}: learned in {taken} steps" if taken else "nothing was learned", sys.stderr)
    if taken < steps:
        raise typer.Exit(INTERRUPTED)


def _progress_json(row: "Progress") -> str:
    """JSON knows no NaN: numbers that are not finite become null."""
    fields = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(row).items()}
    return json.dumps({"event": "learned", **fields})


def _progress_text(row: "Progress", steps: int) -> str:
    losses = "skipped" if row.skipped else f"loss {row.loss:.4f}, after a step {row.meta_loss:.4f}"
    return f"{row.step}/{steps}  {losses}  σ {row.sigma_min:.3g} to {row.sigma_max:.3g}  {row.seconds:.2g} s"
