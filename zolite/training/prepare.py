"""From a recipe to a run: rows and model are checked, loaded and put together, and what was left open is chosen."""

import importlib.metadata
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import torch

from zolite.common.errors import DoesNotFit, UsageError
from zolite.common.events import Noted
from zolite.common.paths import paths
from zolite.common.progress import phase
from zolite.common.text import human_bytes, many
from zolite.config import recipe as recipes
from zolite.config.composition import step_sizes
from zolite.config.limits import Limits
from zolite.config.methods import method
from zolite.config.recipe import Recipe, ResolvedRecipe, TrainPart
from zolite.data import encode
from zolite.data import rows as tables
from zolite.data.chat_template import chat_of, filled
from zolite.data.encode import Coded
from zolite.data.examples import fills_masks, sizes_of
from zolite.data.kinds.registry import KINDS
from zolite.data.leakage import find, leaked
from zolite.data.sources import absolute
from zolite.engine import device_memory
from zolite.engine.adapter import attach
from zolite.engine.adapter import watch as watch_inputs
from zolite.engine.batch import Order, buckets
from zolite.engine.engine import ORIGIN, Engine
from zolite.model import devices
from zolite.model import load as models
from zolite.model.proof import not_finite
from zolite.training import answer_fit, memory_budget, out_of_memory, step_size
from zolite.training.first_values import with_first_values
from zolite.training.greedy import Verbalizer
from zolite.training.run import Examples, Run, rows_of, says, trained
from zolite.training.samples import Samples
from zolite.training.scale_nets import fitted, networks
from zolite.zo.build import Nets, blank, build

COMPARED = 20_000  # rows of train: of more a run does not look for what is nearly in dev too; `data check` does
VERSIONED = ("zolite", "torch", "transformers", "bitsandbytes")


def prepare(recipe: Recipe, fresh: bool = True, now: datetime | None = None) -> Run:
    """Check everything that can be checked, cheapest first, then load. `fresh`: no checkpoint is about to be read.

    `now` is what chat templates take for the time: of a session that goes on, when it began.

    Raises UsageError with all that is wrong with recipe or rows, and DoesNotFit where the memory is not enough.
    """
    asked = fitted(recipe)
    check_space(asked)
    device, source = devices.pick(asked.model.device), models.source_of(asked.model)
    rows = tokenized(asked, now)
    asked = ranked(asked) if fills_masks(rows.tokenizer) else asked
    dataset, tokenizer, examples, notes = rows.dataset, rows.tokenizer, rows.coded.examples, rows.notes
    fit_rows = fitted_rows(asked, examples) if dataset.labels else 0
    resolved = placed(recipes.resolve(asked, len(dataset.labels), len(examples["train"]), fit_rows))
    free = int(min(device_memory.budget_bytes(device), memory_budget.limit_bytes(resolved)))
    resolved = memory_budget.within(resolved, asked.train, examples, device)
    with phase("loading the model"):
        loaded = models.load(source, resolved.model.quant, device, paths()["cache"])
    notes = (*notes, *(Noted("warning", text) for text in loaded.notes))
    nets = networks(resolved.method.optimizer if fresh else "", loaded.fingerprint)
    facts = facts_of(loaded, dataset) | {"tokens": rows.coded.fingerprint} | rows.clock
    verbalizer = Verbalizer.of(dataset.labels, tokenizer, loaded.model) if dataset.labels else None
    with phase("putting adapters into the model"):
        made = partial(assemble, resolved, loaded, examples, facts, notes, free, nets, verbalizer)
        run = out_of_memory.attempt(made)
    if run is None:
        raise DoesNotFit(
            f"{asked.model.name} fits {human_bytes(free)}, but not with its adapter",
            "try --quant nf4, a lower --rank or a smaller model",
        )
    run = replace(run, samples=Samples.of(examples["dev"], tokenizer, loaded.model))
    if not fresh:
        return run
    with phase("measuring the first batch"):
        refuse_overflow(run)
    reasons = recipes.reasons(asked, resolved, len(dataset.labels), len(dataset.splits["dev"]))
    t, count = resolved.train, len(examples["train"])
    each = f"{many(t.steps, 'step')} of {many(t.batch, 'row')}"
    passes = f"{each}: {t.steps * t.batch / count:.3g} passes over {count:,} training rows"
    chosen = tuple(Noted("info", text) for text in (passes, *reasons))
    run = with_first_values(replace(run, notes=run.notes + chosen), dataset, tokenizer)
    return with_step_sizes(run, asked.train)


@dataclass(frozen=True)
class Tokenized:
    """The rows of a recipe, as they are and as the model will read them, and what should be known of them."""

    dataset: tables.Dataset
    tokenizer: Any
    coded: Coded
    notes: tuple[Noted, ...]
    clock: dict[str, str]
    """what chat templates took for the time, as a session's facts have it"""


def tokenized(asked: Recipe, now: datetime | None = None) -> Tokenized:
    """All that comes before weights: UsageError with every row that the model cannot read."""
    with phase("reading rows"):
        dataset = tables.of(asked.data)
    check_arguments(asked, dataset)
    clock = {"now": (now or datetime.now()).isoformat(timespec="seconds")}
    with phase("looking at the model and its tokenizer"):
        vocabulary = models.vocabulary(models.source_of(asked.model), paths()["cache"])
    tokenizer = filled(vocabulary.tokenizer, chat_of(asked.data, clock))
    with phase("tokenizing rows"):
        coded, notes = encode_all(dataset, tokenizer, asked, *vocabulary.limits)
    with phase("looking for rows of dev in train"):
        leaks = find(dataset, near=len(dataset.splits["train"]) <= COMPARED).leaks
    said = (*vocabulary.notes, *stretched(vocabulary, coded.examples), *leaked(leaks, dataset, asked.data.group_by))
    return Tokenized(dataset, tokenizer, coded, (*(Noted("warning", text) for text in said), *notes), clock)


def ranked(recipe: Recipe) -> Recipe:
    """An encoder's labels are compared with each other, at the mask: it ends no answer."""
    return replace(recipe, train=replace(recipe.train, objective="rank"))


def fitted_rows(recipe: Recipe, examples: Examples) -> int:
    """Rows of an adapter that the fit of labels takes; 0 where they are not to be said."""
    return answer_fit.rows_of(examples["train"][0]) if says(examples, recipe) else 0


def stretched(vocabulary: models.Vocabulary, examples: Examples) -> tuple[str, ...]:
    """What should be known of rows that are longer than the model was trained on."""
    longest = int(max(sizes_of(rows).longest.max() for rows in examples.values()))
    doubt = "" if vocabulary.learned else Limits(trained=vocabulary.positions).doubted(longest)
    return (doubt,) if doubt else ()


def check_space(recipe: Recipe) -> None:
    """UsageError where the method does not train the space that was asked for."""
    row, space = method(recipe.method.name), recipe.adapter.space
    if space and space not in row.spaces:
        raise UsageError(f"{row.name} does not train {space}", f"it trains: {', '.join(row.spaces)}")


def check_arguments(recipe: Recipe, dataset: tables.Dataset) -> None:
    """UsageError where arguments for a chat template were set, and the rows are not rendered by one."""
    args = recipe.data.template_args
    if args and not KINDS[dataset.kind].prompt(recipe.data.template).chat:
        what = f"data.template_args is {args!r}, but {dataset.kind} rows are not rendered by the chat template"
        raise UsageError(what, "leave it out, or make conversations of the rows")


def placed(recipe: ResolvedRecipe) -> ResolvedRecipe:
    """With the rows' whole path, so that a session finds them from anywhere."""
    return replace(recipe, data=replace(recipe.data, path=absolute(recipe.data.path)))


@torch.inference_mode()
def refuse_overflow(run: Run) -> None:
    """Raises ZoliteError where the loss of the first batch is not finite: nothing that is measured would be then."""
    losses = out_of_memory.attempt(lambda: run.engine.bind(rows_of(run, 0))(ORIGIN))
    if losses is not None and not bool(losses.isfinite().all()):
        raise not_finite("the losses of the first batch", run.space.copies.dtype)


def with_step_sizes(run: Run, asked: TrainPart) -> Run:
    """With a learning rate and an ε that were measured, where the recipe had left them open."""
    recipe, t = run.recipe, run.recipe.train
    if asked.lr and asked.eps:
        return run
    directions, count = step_size.effort(t.steps)
    batches = [run.engine.batch(rows_of(run, step), step) for step in range(count)]
    objectives = [run.engine.objective([run.engine.put(b) for b in batch]) for batch in batches]
    found = out_of_memory.attempt(partial(step_size.measure, objectives, t.seed, directions))
    if found is None:
        text = "out of memory while the step size was measured: the method's usual one is taken"
        return replace(run, notes=(*run.notes, Noted("warning", text)))
    found = found.after_probe() if run.engine.adapter.moved else found
    length = found.first_step(t.steps, t.schedule)
    measured = (length / found.gradient, found.eps, length)
    lr, eps = step_sizes(recipe.method, recipe.adapter.space, measured)
    t = replace(t, lr=asked.lr or lr, eps=asked.eps or eps)
    estimator, rule = build(recipe.method, t)
    notes = run.notes + step_size.notes(found, t, asked)
    return replace(run, recipe=replace(recipe, train=t), estimator=estimator, rule=rule, notes=notes)


def assemble(
    recipe: ResolvedRecipe,
    loaded: models.Loaded,
    examples: Examples,
    facts: dict[str, Any],
    notes: tuple[Noted, ...],
    budget_bytes: int,
    nets: Nets = blank,
    verbalizer: Verbalizer | None = None,
) -> Run:
    """A run of a resolved recipe on a model and rows that are there; puts adapters into the model."""
    engine = Engine.of(loaded, attach(loaded, recipe), recipe)
    estimator, rule = build(recipe.method, recipe.train, nets)
    space, bases = engine.adapter.space, engine.adapter.bases
    state = {"estimator": estimator.init(space), "rule": rule.init(space)}
    watch_inputs(loaded.model, estimator.sampler.inputs(state["estimator"], space))
    rows = trained(examples, recipe)
    order = Order(sizes_of(rows).lengths, recipe.train.batch, recipe.train.seed)
    return Run(
        recipe=recipe,
        engine=engine,
        estimator=estimator,
        rule=rule,
        state=state,
        examples=examples,
        rows=rows,
        order=order,
        lengths=buckets(order, rows) if loaded.device.type == "cuda" else (),
        facts=facts | ({"frames": bases.facts} if bases else {}),
        notes=notes,
        budget_bytes=budget_bytes,
        verbalizer=verbalizer,
    )


def encode_all(
    dataset: tables.Dataset, tokenizer: Any, recipe: Recipe, table: int = 0, positions: int = 0
) -> tuple[Coded, tuple[Noted, ...]]:
    """Every split as token sequences, and what should be known of it. Raises with the problems of all splits."""
    data = recipe.data
    coded = encode.encode_all(dataset, tokenizer, data.template, data.context, table, positions)
    cut = (
        f"{count} of {len(dataset.splits[split])} {split} rows were cut at {data.context} tokens (data.context)"
        for split, count in coded.cut.items()
        if count
    )
    told = (Noted("info", text) for text in dataset.notes)
    return coded, (*told, *(Noted("warning", text) for text in (*dataset.warnings, *cut, *coded.notes)))


def facts_of(loaded: models.Loaded, dataset: tables.Dataset) -> dict[str, Any]:
    """What a resume compares, and what an export needs to know."""
    return {
        "model": loaded.fingerprint,
        "config": loaded.config,
        "base": loaded.source.base,
        "data": dataset.fingerprint,
        "labels": list(dataset.labels),
        "device": device_memory.device_name(loaded.device),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
    }
