"""The loop: fine-tune with forward passes alone. Read this file first.

    run = prepare(recipe)                                   # prepare.py: rows, model, adapter, method
    with sessions.create(name, run.recipe, run.facts) as session:
        for event in train(run, session):                   # Started, StepDone, Evaluated, Saved, …, Finished
            ...

A step draws directions from (seed, step), measures the losses at θ ± ε · direction in one forward, and adds
−learning rate · projected gradient · direction to θ. What it leaves behind is a few scalars; with them the journal
replays it without the model (replay.py). On a GPU a step is a CUDA graph (engine/cuda_graph.py), and nothing here waits
for it: scalars arrive while later steps run (journal_writer.py).
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

from zolite.common.errors import ZoliteError
from zolite.common.events import Event, Noted, Started
from zolite.common.progress import Stopped as AskedToEnd
from zolite.common.progress import phase
from zolite.engine import device_memory
from zolite.engine.cuda_graph import Steps
from zolite.monitor.log import BASE
from zolite.sessions.control import Control
from zolite.sessions.session import Session
from zolite.sessions.steps import kept
from zolite.training import memory_budget, out_of_memory
from zolite.training.journal_writer import MOST_SKIPPED, JournalWriter
from zolite.training.replay import restore
from zolite.training.run import Run, batches_of, dev_sample, stepper
from zolite.training.sampling import Sampling
from zolite.zo.build import build
from zolite.zo.estimators import Estimate

CAPTURE = "capturing a step as a graph"
SLOWER = 3.0  # the learning rate is divided by this after the loss has diverged


@dataclass
class Progress:
    """What changes while a run goes on."""

    run: Run
    session: Session
    control: Control
    writer: JournalWriter
    tracker: out_of_memory.StepTracker
    steps: Steps
    step: int  # steps taken
    sampling: Sampling

    @classmethod
    def of(cls, run: Run, session: Session, stop: Callable[[], bool]) -> "Progress":
        """From where the session's journal ends."""
        step, control = restore(run, session), Control(session.journal, stop)
        tracker = out_of_memory.StepTracker(run.engine.loaded.device)
        sampling = Sampling(run.samples, run.recipe.train.steps)
        return cls(run, session, control, JournalWriter(run, session, control), tracker, stepper(run), step, sampling)

    def go_on_with(self, run: Run) -> None:
        """With another run, from where the journal ends."""
        self.run, self.step, self.steps = run, restore(run, self.session), stepper(run)
        self.writer.go_on_with(run, self.step)


@dataclass(frozen=True)
class Taken:
    """A step was taken; its scalars may still be on the device."""

    estimate: Estimate
    padding: float  # share of its tokens that only fill up sequences


@dataclass(frozen=True)
class RolledBack:
    """The loss had diverged: the journal ends where it was still good, and `run` goes on in smaller steps."""

    run: Run
    why: str


@dataclass(frozen=True)
class Shrunk:
    """The memory was not enough: `run` takes the same steps in smaller forwards."""

    run: Run
    note: Noted


@dataclass(frozen=True)
class Stopped:
    """There is no step to take."""

    note: Noted | None = None


Outcome = Taken | RolledBack | Shrunk | Stopped


def train(run: Run, session: Session, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Run from wherever the session stands to its last step, or until `stop` says so between two steps.

    Raises ZoliteError after MOST_SKIPPED steps in a row whose loss is not finite, with the session saved.
    """
    p = Progress.of(run, session, stop)
    yield from announce(p)
    while True:
        yield from between_steps(p)
        outcome: Outcome = yield from next_step(p)
        match outcome:
            case Taken():
                p.step += 1
                p.writer.add(p.step, outcome.estimate, outcome.padding)
                if reason := p.steps.refusal():
                    yield from p.writer.note(Noted("info", f"steps run without a CUDA graph, more slowly: {reason}"))
            case RolledBack():
                p.go_on_with(outcome.run)
                lr = p.run.recipe.train.lr
                text = f"{outcome.why}: rolled back to step {p.step}, going on with a learning rate of {lr:.2g}"
                yield from p.writer.note(Noted("warning", text))
            case Shrunk():
                p.go_on_with(outcome.run)
                yield from p.writer.note(outcome.note)
            case Stopped():
                yield from finish(p, outcome.note)
                return


def announce(p: Progress) -> Iterator[Event]:
    """What a person should know before the first step."""
    t, device = p.run.recipe.train, device_memory.device_name(p.run.engine.loaded.device)
    started = Started(p.session.name, p.step + 1, t.steps, device, p.run.space.size, p.run.budget_bytes)
    yield from p.writer.note(started)
    for note in p.run.notes:
        yield from p.writer.note(note)


def between_steps(p: Progress) -> Iterator[Event]:
    """What is due after so many steps: journal, checkpoint, evaluation, and what readers of the session ask for."""
    t = p.run.recipe.train
    asked = p.control.paused or p.control.saving
    evaluating = due(p.step, t.eval_every, t.steps) and not p.writer.evaluated(p.step)  # a kill may have come between
    saving = asked or (due(p.step, t.save_every, t.steps) and p.session.at(p.step) is None)
    if evaluating or saving or p.writer.due():
        yield from p.tracker.observe(p.writer.flush(wait=evaluating or saving))
    if p.writer.divergence.found:
        return
    if saving:
        yield from p.writer.save(p.step)
    if evaluating:
        with suppress(AskedToEnd):  # the next step is not taken then
            yield from evaluated(p)
        if not saving and p.step in kept(p.writer.scores):
            yield from p.writer.save(p.step)
    if asked and p.control.paused:
        yield from p.writer.pause(p.step)


def evaluated(p: Progress) -> Iterator[Event]:
    """Dev, before the first step also without what the adapter begins with, and sample answers."""
    run, rows, free = p.run, dev_sample(p.run), p.steps.release
    if run.ahead and p.step == 0:
        with run.engine.as_base():
            before = list(out_of_memory.evaluate_in_parts(run.engine, rows, BASE, 0, run.verbalizer, free))
        for event in before:
            yield from p.writer.note(event)
    for event in out_of_memory.evaluate_in_parts(run.engine, rows, "dev", p.step, run.verbalizer, free):
        yield from p.writer.note(event)
    for event in p.sampling.at(p.step, run.engine, p.writer.run_seconds()):
        yield from p.writer.note(event)


def next_step(p: Progress) -> Generator[Event, None, Outcome]:
    """Take one step, or say what came in its place."""
    if p.writer.divergence.found:
        return (yield from roll_back(p))
    if stopped := stop_reason(p):
        return stopped
    batches = batches_of(p.run, p.step)
    p.tracker.begins(p.step + 1, batches)
    with phase(CAPTURE) if p.steps.to_capture(batches) else nullcontext():
        estimate = None if p.tracker.spilled else out_of_memory.attempt(partial(p.steps, batches, p.step))
    if estimate is None:
        return (yield from shrink(p))
    return Taken(estimate, fmean(batch.padding for batch in batches))


def stop_reason(p: Progress) -> Stopped | None:
    """None while the run goes on."""
    t, writer = p.run.recipe.train, p.writer
    if p.step >= t.steps or p.control.stopped() or writer.bad_steps >= MOST_SKIPPED:
        return Stopped()
    if due(p.step, t.eval_every, t.steps) and writer.stopped_early:
        text = f"early stop: dev was no better {t.patience:g} evaluations in a row, at step {p.step} of {t.steps}"
        return Stopped(Noted("info", f"{text}; `zolite export {p.session.name} --step best` takes the best"))
    return None


def roll_back(p: Progress) -> Generator[Event, None, RolledBack]:
    """By the journal, to the last step whose loss was within its usual range; from there in smaller steps."""
    yield from p.writer.flush(wait=True)
    found, run = p.writer.divergence, p.run
    t = replace(run.recipe.train, lr=run.recipe.train.lr / SLOWER)
    recipe = replace(run.recipe, train=t)
    p.session.rewind(found.last_good)
    p.session.amend(recipe, p.session.facts)
    why = f"the loss diverged to {found.mean:.3g}, above its limit of {found.limit:.3g}"
    return RolledBack(replace(run, recipe=recipe, rule=build(recipe.method, t)[1]), why)


def shrink(p: Progress) -> Generator[Event, None, Shrunk]:
    """The same steps in less memory. The step that failed left no trace: the journal ends before it."""
    p.steps.release()
    yield from p.tracker.observe(p.writer.flush(wait=True))  # without a checkpoint: the state may be half a step on
    return Shrunk(*out_of_memory.shrunk(p.run, p.step, p.tracker))


def finish(p: Progress, note: Noted | None) -> Iterator[Event]:
    """The last scalars, a checkpoint of the last step, and how the run ended."""
    yield from p.tracker.observe(p.writer.flush(wait=True))
    if note:
        yield from p.writer.note(note)
    if p.session.at(p.step) is None:
        yield from p.writer.save(p.step)
    yield from p.writer.finish(p.step)
    memory_budget.remember(p.run, p.tracker)
    if (bad := p.writer.bad_steps) >= MOST_SKIPPED:
        raise ZoliteError(
            f"the loss was not a number for {bad} steps in a row, up to step {p.step}; the session is saved",
            f"try --lr {p.run.recipe.train.lr / SLOWER:.2g}; if it began at step 1, --quant nf4 or bf16, which hold "
            "larger activations",
        )


def due(step: int, every: int, last: int) -> bool:
    """Is it time for what is done every so many steps, at the start and at the end?"""
    return step % every == 0 or step == last
