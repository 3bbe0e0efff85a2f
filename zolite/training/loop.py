"""The loop: fine-tune with forward passes alone. Read this file first.

    run = prepare(recipe)                      # data, model, adapter, method
    with session.create(name, run.recipe, run.facts) as store:
        for event in train(run, store):        # Started, StepDone, Evaluated, Saved, …, Finished
            ...

A step is: draw directions from (seed, step), measure the losses at θ ± ε·direction in one forward, add −lr · slope ·
direction to θ. What a step leaves behind is a few scalars; with them the journal replays it without the model. On a GPU
a step is a CUDA graph (engine/graph.py), and nothing here waits for it: scalars arrive while later steps run.
"""

import dataclasses
import importlib.metadata
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from zolite.common.errors import DoesNotFit, UsageError, ZoliteError, listed
from zolite.common.events import Event, Noted, Started
from zolite.common.paths import paths
from zolite.common.text import human_bytes
from zolite.config import recipe as recipes
from zolite.config.composition import step_sizes
from zolite.config.methods import method
from zolite.config.recipe import Recipe, TrainPart
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.examples import Example
from zolite.engine import device_memory
from zolite.engine.adapter import attach, watch
from zolite.engine.bases import ensure_same
from zolite.engine.batch import Batch, Order, bucket, buckets, length, longest, sample
from zolite.engine.cuda_graph import Steps
from zolite.engine.engine import Engine
from zolite.model import load as models
from zolite.model.loss import Tokens
from zolite.planner.step_time import linear_probe_rows
from zolite.sessions import session as sessions
from zolite.sessions.control import Orders
from zolite.sessions.session import Session
from zolite.sessions.steps import base, kept, replayable, settled
from zolite.training import memory_budget, out_of_memory, step_size, warm_start
from zolite.training.journal_writer import MOST_SKIPPED, Writer
from zolite.training.linear_probe import probe_start_
from zolite.training.replay import catch_up_, given_of, held, intact, read_, rebuild
from zolite.training.scale_nets import fitted, networks
from zolite.zo.build import Nets, blank, build
from zolite.zo.estimators import Estimate, Estimator, refreshed
from zolite.zo.rng import Key, Step
from zolite.zo.space import Space
from zolite.zo.state import State, split_state
from zolite.zo.updates import Rule

Examples = dict[str, Sequence[Example]]
"""Rows as token sequences, by split."""

SHRINK = 3.0  # of the learning rate after a loss that left its band
VERSIONED = ("zolite", "torch", "transformers", "bitsandbytes")
LAYOUT = (("data", "path"), ("model", "device"), ("train", "vram_gib"), ("train", "patience"))
"""Settings under which the same run may go on elsewhere, in less memory, or for longer."""


@dataclass(frozen=True)
class Run:
    """Everything a run is made of, on its device."""

    recipe: Recipe  # resolved: nothing left open
    engine: Engine
    estimator: Estimator
    rule: Rule
    state: dict[str, State]  # of the estimator and the rule
    examples: Examples
    order: Order
    lengths: tuple[int, ...]  # tokens that sequences are padded to; () for those of their batch's longest
    facts: dict[str, Any]  # what must be alike for a resume to continue the same run
    notes: tuple[str, ...]
    budget_bytes: int
    choices: tuple[str, ...] = ()  # what was measured and chosen, and why

    @property
    def space(self) -> Space:
        return self.engine.adapter.space


def prepare(recipe: Recipe, fresh: bool = True) -> Run:
    """Check everything that can be checked, cheapest first, then load. `fresh`: no checkpoint is about to be read."""
    given = recipe = fitted(recipe)
    rows = method(recipe.method.name)
    if recipe.adapter.space and recipe.adapter.space not in rows.spaces:
        raise UsageError(f"{rows.name} does not train {recipe.adapter.space}", f"it trains: {', '.join(rows.spaces)}")
    device = models.pick_device(recipe.model.device)
    source = models.resolve(recipe.model.name)
    path = Path(recipe.data.path).expanduser().resolve()
    dataset = tables.load(path, recipe.data.template)
    recipe = recipes.resolve(recipe, len(dataset.labels))
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, path=str(path)))
    examples, notes = encode_all(dataset, models.tokenizer(source, paths()["cache"]), recipe)
    free = int(min(device_memory.budget_bytes(device), memory_budget.limit_bytes(recipe)))
    recipe = memory_budget.within(recipe, given.train, examples, device)
    loaded = models.load(source, recipe.model.quant, device, paths()["cache"])
    nets = networks(recipe.method.optimizer if fresh else "", loaded.fingerprint)
    known = facts_of(loaded, dataset)
    run = out_of_memory.attempt(partial(assemble, recipe, loaded, examples, known, notes, free, nets))
    if run is None:
        raise DoesNotFit(
            f"{recipe.model.name} fits {human_bytes(free)}, but not with its adapter",
            "try --quant nf4, a lower --rank or a smaller model",
        )
    if not fresh:
        return run
    run = dataclasses.replace(run, choices=recipes.reasons(given, recipe, len(dataset.labels)))
    return tuned(begun(run), given.train)


def begun(run: Run) -> Run:
    """With the adapter's first values, if they are not those that the seed draws."""
    part, source = run.recipe.adapter, run.engine.loaded.source
    if part.start:
        return dataclasses.replace(run, notes=run.notes + warm_start.put_(run.engine.adapter, part, source.base))
    if not recipes.starts_with_probe(part):
        return run
    found = out_of_memory.attempt(partial(probe_start_, run.engine, run.examples, linear_probe_rows(run.recipe)))
    device_memory.tidy()
    if found is None:
        return dataclasses.replace(run, notes=(*run.notes, "out of memory in the linear probe: it ended there"))
    return dataclasses.replace(run, choices=(*run.choices, found[0])) if found[0] else run


def tuned(run: Run, given: TrainPart) -> Run:
    """With a learning rate and an ε that were measured, where the recipe had left them open."""
    recipe, t = run.recipe, run.recipe.train
    if given.lr and given.eps:
        return run
    directions, count = step_size.effort(t.steps)
    batches = [run.engine.batch(rows_of(run, step), step) for step in range(count)]
    objectives = [run.engine.objective([run.engine.put(b) for b in batch]) for batch in batches]
    found = out_of_memory.attempt(partial(step_size.measure, objectives, t.seed, directions))
    if found is None:
        return dataclasses.replace(
            run, notes=(*run.notes, "out of memory in measuring ε and the rate: the tables' are taken")
        )
    found = found.careful() if run.engine.adapter.moved else found
    length = found.length(t.steps, t.schedule)
    lr, eps = step_sizes(recipe.method, recipe.adapter.space, (length / found.signal, found.eps, length))
    t = dataclasses.replace(t, lr=given.lr or lr, eps=given.eps or eps)
    estimator, rule = build(recipe.method, t)
    recipe = dataclasses.replace(recipe, train=t)
    weak = () if found.clear else (step_size.faint(found),)
    return dataclasses.replace(
        run,
        recipe=recipe,
        estimator=estimator,
        rule=rule,
        notes=run.notes + weak,
        choices=run.choices + step_size.reasons(found, t, given),
    )


def assemble(
    recipe: Recipe,
    loaded: models.Loaded,
    examples: Examples,
    facts: dict[str, Any],
    notes: tuple[str, ...],
    budget_bytes: int,
    nets: Nets = blank,
) -> Run:
    """A run of a resolved recipe on a model and rows that are there; puts adapters into the model."""
    engine = Engine.of(loaded, attach(loaded, recipe), recipe)
    estimator, rule = build(recipe.method, recipe.train, nets)
    space, bases = engine.adapter.space, engine.adapter.bases
    state = {"estimator": estimator.init(space), "rule": rule.init(space)}
    watch(loaded.model, estimator.sampler.inputs(state["estimator"], space))
    order = Order(tuple(length(e) for e in examples["train"]), recipe.train.batch, recipe.train.seed)
    return Run(
        recipe=recipe,
        engine=engine,
        estimator=estimator,
        rule=rule,
        state=state,
        examples=examples,
        order=order,
        lengths=buckets(order, examples["train"]) if loaded.device.type == "cuda" else (),
        facts=facts | ({"frames": bases.facts} if bases else {}),
        notes=notes,
        budget_bytes=budget_bytes,
    )


def encode_all(dataset: tables.Dataset, tokenizer: Any, recipe: Recipe) -> tuple[Examples, tuple[str, ...]]:
    """Every split as token sequences, and what should be said of it. Raises with the problems of all splits."""
    data, notes, problems = recipe.data, [], []
    examples: Examples = {}
    for split, rows in dataset.splits.items():
        labels, file = dataset.labels, dataset.files[split]
        try:
            encoded = encode(rows, dataset.kind, labels, tokenizer, data.template, data.context, file)
        except UsageError as error:
            problems.append(error)
            continue
        examples[split] = encoded.examples
        if encoded.cut:
            notes.append(f"{encoded.cut} of {len(rows)} {split} rows were cut at {data.context} tokens (data.context)")
    if problems:
        raise UsageError("\n".join(e.message for e in problems), problems[0].hint)
    return examples, tuple(notes)


def facts_of(loaded: models.Loaded, dataset: tables.Dataset) -> dict[str, Any]:
    """What a resume compares, and what an export needs to know."""
    return {
        "model": loaded.fingerprint,
        "base": loaded.source.base,
        "data": dataset.fingerprint,
        "labels": list(dataset.labels),
        "device": device_memory.device_name(loaded.device),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
    }


def train(run: Run, session: Session, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Run from wherever the session stands to its last step, or until `stop` says so between two steps.

    Raises ZoliteError after MOST_SKIPPED steps in a row whose loss is not finite, with the session saved.
    """
    t = run.recipe.train
    orders = Orders(session.journal, stop)
    step = restore(run, session)
    writer = Writer(run, session, orders)
    device = device_memory.device_name(run.engine.loaded.device)
    yield from writer.note(Started(session.name, step + 1, t.steps, device, run.space.size, run.budget_bytes))
    for level, texts in (("info", run.choices), ("warning", run.notes)):
        for text in texts:
            yield from writer.note(Noted(level, text))

    steps, watch = stepper(run), out_of_memory.Watch(run.engine.loaded.device)
    while True:
        asked = orders.paused or orders.saving
        scored = due(step, t.eval_every, t.steps) and not writer.scored(step)  # a killed run may have missed its last
        saved = due(step, t.save_every, t.steps) and session.at(step) is None
        if scored or saved or asked or writer.due():
            yield from watch.over(writer.flush(wait=scored or saved or asked))
        if writer.band.left is not None:
            run, step = yield from back(run, session, writer)
            steps = stepper(run)
            continue
        if saved or asked:
            yield from writer.save(step)
        if scored:
            for event in out_of_memory.scored(run.engine, dev_sample(run), "dev", step, free=steps.release):
                yield from writer.note(event)
        if scored and not (saved or asked) and step in kept(writer.scores):
            yield from writer.save(step)
        if asked and orders.paused:
            yield from writer.pause(step)
        enough = due(step, t.eval_every, t.steps) and writer.settled
        if step >= t.steps or enough or orders.stopped() or writer.bad_steps >= MOST_SKIPPED:
            break
        batches = batches_of(run, step)
        watch.takes(step + 1, batches)
        estimate = None if watch.spilled else out_of_memory.attempt(partial(steps, batches, step))
        if estimate is None:
            steps.release()
            yield from watch.over(
                writer.flush(wait=True)
            )  # and no checkpoint: the method's state may be half a step on
            run, note = out_of_memory.shrunk(run, step, watch)
            step, steps = restore(run, session), stepper(run)
            writer.take(run, step)
            yield from writer.note(note)
            continue
        step += 1
        writer.add(step, estimate, fmean(batch.padding for batch in batches))
        if reason := steps.refusal():
            yield from writer.note(Noted("info", f"steps run without a CUDA graph, more slowly: {reason}"))

    yield from watch.over(writer.flush(wait=True))
    if step < t.steps and writer.settled:
        text = f"dev was no better {t.patience} times in a row: done before {t.steps} steps"
        yield from writer.note(Noted("info", f"{text}; `zolite export {session.name} --step best` takes the best"))
    if session.at(step) is None:
        yield from writer.save(step)
    yield from writer.finish(step)
    memory_budget.remember(run, watch)
    if writer.bad_steps >= MOST_SKIPPED:
        raise ZoliteError(
            f"the loss was not a number for {writer.bad_steps} steps in a row, up to step {step}; the session is saved",
            f"try --lr {t.lr / 3:.2g}; if it began at step 1, --quant nf4 or bf16, which hold larger activations",
        )


def back(run: Run, session: Session, writer: Writer) -> Generator[Event, None, tuple[Run, int]]:
    """To the last step whose loss was inside its band, by the journal, and on from there in smaller steps."""
    yield from writer.flush(wait=True)
    band, t = writer.band, dataclasses.replace(run.recipe.train, lr=run.recipe.train.lr / SHRINK)
    assert band.left is not None
    session.rewind(band.left)
    recipe = dataclasses.replace(run.recipe, train=t)
    session.amend(recipe, session.facts)
    run = dataclasses.replace(run, recipe=recipe, rule=build(recipe.method, t)[1])
    step = restore(run, session)
    text = f"the loss rose to {band.smooth:.3g}, out of its band below {band.limit:.3g}"
    yield from writer.note(
        Noted("warning", f"{text}: back to step {step}, from there with a learning rate of {t.lr:.2g}")
    )
    writer.take(run, step)
    return run, step


def due(step: int, every: int, last: int) -> bool:
    """Is it time for what is done every so many steps, at the start and at the end?"""
    return step % every == 0 or step == last


def stepper(run: Run) -> Steps:
    """What takes a run's steps, each from its batches and its number."""
    return Steps(run.engine, partial(prepare_step, run), partial(take_step, run), run.state)


def batches_of(run: Run, step: int) -> list[Batch]:
    """A step's microbatches on the host: a pure function of the seed and the step."""
    rows = rows_of(run, step)
    tokens = bucket(run.lengths, max(map(longest, rows))) if run.lengths else None
    return run.engine.batch(rows, step, run.estimator.groups, tokens)


def rows_of(run: Run, step: int) -> list[Example]:
    return [run.examples["train"][i] for i in run.order.batch_at(step)]


@torch.inference_mode()
def prepare_step(run: Run, batches: Sequence[Batch], step: int) -> Tensor | None:
    """What some methods do before a step once in a while, on its batch; the losses (K,) that it took."""
    if not run.estimator.sampler.due(step):
        return None
    objective, key = run.engine.objective([run.engine.put(b) for b in batches]), Key(run.recipe.train.seed, step)
    return refreshed(run.estimator, objective, key, run.state["estimator"], run.space)


@torch.inference_mode()
def take_step(run: Run, batches: Sequence[Tokens], step: Step) -> Estimate:
    """Step number `step`, counted from 0: measure, estimate, update. Nothing waits for the device."""
    objective = run.engine.objective(batches)
    estimate = run.estimator.estimate(objective, Key(run.recipe.train.seed, step), run.state["estimator"], run.space)
    run.space.add_(run.rule.update(estimate, step, run.state["rule"], run.space).grad)
    return estimate


@torch.inference_mode()
def restore(run: Run, session: Session) -> int:
    """Put theta and the method's state where the session's journal ends; the number of steps taken."""
    checkpoint, step = base(session), 0
    if checkpoint is not None:
        step = checkpoint.step
        with intact(session, f"checkpoint {step}"):
            tensors, adapter = checkpoint.tensors(), run.engine.adapter
            read_(tensors, checkpoint.state()["method"], run.space, run.state)
            adapter.put_(given_of(tensors, shapes_of(adapter.frozen)))
    end = session.journal.last_step()
    if not replayable(session, step, end):
        session.rewind(step)  # the journal cannot say what the steps since have done: they are taken again
        return step
    catch_up_(session, step, end, run.space, run.state)
    return end


def dev_sample(run: Run) -> Sequence[Example]:
    """The rows of dev that an evaluation looks at, always the same."""
    return sample(run.examples["dev"], run.recipe.train.eval_rows)


def differences(run: Run, session: Session) -> tuple[list[str], list[str]]:
    """What changed since the session was written: what makes it another run, and what may only change last bits."""
    old, new = session.facts, run.facts
    serious = [
        f"{what} is not the same: was {old[what][:24]}, is {new[what][:24]}"
        for what in ("model", "data")
        if old[what] != new[what]
    ]
    was, now = recipes.to_dict(session.recipe), recipes.to_dict(run.recipe)
    serious += [
        f"{part}.{key} was {was[part][key]!r}, is {now[part][key]!r}"
        for part in now
        for key in now[part]
        if was[part][key] != now[part][key] and (part, key) not in LAYOUT
    ]
    mild = [
        f"{n} was {old['versions'].get(n)}, is {v}" for n, v in new["versions"].items() if old["versions"].get(n) != v
    ]
    if old["device"] != new["device"]:
        mild.append(f"the device was {old['device']}, is {new['device']}")
    return serious, mild


def begin(recipe: Recipe, name: str | None, stop: Callable[[], bool]) -> Iterator[Event]:
    """A new session, from its first step."""
    run = prepare(recipe)
    with sessions.create(name, run.recipe, run.facts) as session:
        yield from train(run, session, stop)


def resume(name: str, changes: dict[str, Any], force: bool, stop: Callable[[], bool]) -> Iterator[Event]:
    """A session from where its journal ends, if it still is the same run."""
    with sessions.open_(name, write=True) as session:
        recipe = recipes.override(session.recipe, changes)
        refuse_done(session, recipe.train)
        run = prepare(recipe, fresh=not session.steps())
        serious, mild = differences(run, session)
        if serious and not force:
            raise UsageError(
                f"session {name} would not go on as the same run:\n" + listed(serious),
                "undo the change, or go on all the same with --force",
            )
        if serious:
            turn(session, run)
        else:
            ensure_same(session, run.engine.adapter.bases)
        text = "; ".join(serious + mild)
        notes = (f"{text}: the steps from here on may not be those of an uninterrupted run",) if text else ()
        yield from train(dataclasses.replace(run, notes=run.notes + notes), session, stop)


def refuse_done(session: Session, t: TrainPart) -> None:
    """A session that has nothing left to do."""
    name = session.name
    if session.ending() == "done" and session.journal.last_step() >= t.steps:
        raise UsageError(
            f"session {name} has taken all its {t.steps} steps",
            f"`zolite resume {name} --set train.steps={2 * t.steps} --force` goes on",
        )
    if session.ending() == "done" and settled(session.journal.evaluations(), t.patience):
        raise UsageError(
            f"session {name} is done: dev was no better {t.patience} times in a row",
            f"`zolite resume {name} --set train.patience=0` goes on",
        )


def turn(session: Session, run: Run) -> None:
    """Let a session go on under another recipe, from the numbers it has; refused where they do not fit."""
    now, adapter = rebuild(session), run.engine.adapter
    same_start = not now.frozen or session.recipe.train.seed == run.recipe.train.seed
    fits = shapes_of(now.tensors()) == {b.name: b.shape for b in run.space.blocks}
    if not (fits and now.frozen == shapes_of(adapter.frozen) and same_start):
        raise UsageError(
            f"the numbers of session {session.name} do not fit that recipe: another rank, space, choice of layers or "
            "first values (seed) is another adapter",
            "start a new session with `zolite train`",
        )
    ensure_same(session, adapter.bases)
    if layout(now.state) != layout(run.state):
        raise UsageError(
            f"what {session.recipe.method.name} holds from step to step does not serve {run.recipe.method.name} with "
            "that recipe's method and numbers",
            "leave the method as it is, or start a new session with `zolite train`",
        )
    session.journal.truncate(now.step)
    contents = held(now.tensors(), now.state, now.frozen, now.given)
    session.save(now.step, *contents, keep=kept(session.journal.evaluations()))
    session.amend(run.recipe, run.facts)


def layout(state: dict[str, State]) -> tuple[set[str], dict[str, tuple[int, ...]]]:
    """Names of its plain values, and shapes of its tensors."""
    plain, tensors = split_state(state)
    return set(plain), shapes_of(tensors)


def shapes_of(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in tensors.items()}
