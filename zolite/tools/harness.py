"""Published benchmarks through lm-eval (EleutherAI's harness): a session, or a model as it is, on its tasks.

lm-eval takes the loaded model itself, with the adapter in its layers, so that what is scored is what was trained.
"""

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zolite.common.errors import UsageError, ZoliteError
from zolite.engine.engine import Engine
from zolite.training.target import Target, opened

BATCH = 8  # rows that lm-eval puts in a forward
TOKENS = 2048  # of a row, where the model has as many positions


@dataclass(frozen=True)
class Figure:
    """One metric of one task, and its standard error (not a number where lm-eval gives none)."""

    task: str
    metric: str  # as lm-eval names it, such as acc_norm
    tuned: float
    tuned_error: float
    base: float | None = None  # None: it was not asked for, or a model was
    base_error: float | None = None


def scores(target: str, tasks: Sequence[str], changes: dict[str, Any], base: bool, examples: int = 0) -> list[Figure]:
    """Every figure of the tasks. `examples` before each row, where not as many as a task's own.

    Raises UsageError where lm-eval is not installed or does not know a task, ZoliteError where it fails.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UsageError("lm-eval is not installed", '`pip install "zolite[lm-eval]"`, then once more')
    found = Target.of(target, changes)
    _check(tasks)
    tokenizer, engine = found.words().tokenizer, opened(found, TOKENS)
    tuned = _results(engine, tokenizer, tasks, examples)
    beside = None
    if base and found.fill is not None:
        with engine.as_base():
            beside = _results(engine, tokenizer, tasks, examples)
    return list(_figures(tuned, beside))


def _check(tasks: Sequence[str]) -> None:
    from lm_eval.tasks import TaskManager

    known = TaskManager()
    if strange := [task for task in tasks if not known.match_tasks([task])]:
        raise UsageError(f"lm-eval has no task {', '.join(strange)}", "`lm-eval ls tasks` lists those that it has")


@torch.inference_mode()
def _results(engine: Engine, tokenizer: Any, tasks: Sequence[str], examples: int) -> dict[str, dict[str, Any]]:
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    engine.at_theta()
    model = HFLM(pretrained=engine.loaded.model, tokenizer=tokenizer, batch_size=BATCH)
    try:
        found = lm_eval.simple_evaluate(model, tasks=list(tasks), num_fewshot=examples or None, log_samples=False)
    except Exception as error:  # a task is a program and a data set from elsewhere: it may raise anything
        raise ZoliteError(
            f"lm-eval stopped at {', '.join(tasks)}: {error}", "its data sets come from the hub: is there a network?"
        ) from error
    results: dict[str, dict[str, Any]] = found["results"]
    return results


def _figures(tuned: dict[str, dict[str, Any]], base: dict[str, dict[str, Any]] | None) -> Iterator[Figure]:
    """Keys of results are metric,filter and metric_stderr,filter."""
    for task, values in tuned.items():
        for key, value in values.items():
            metric, _, way = key.partition(",")
            if not way or metric.endswith("_stderr") or not isinstance(value, float | int):
                continue
            error = f"{metric}_stderr,{way}"
            name = metric if way == "none" else f"{metric} ({way})"
            beside = (_number(base[task], key), _number(base[task], error)) if base else (None, None)
            yield Figure(task, name, float(value), _number(values, error), *beside)


def _number(values: dict[str, Any], key: str) -> float:
    value = values.get(key)
    return float(value) if isinstance(value, float | int) else float("nan")
