"""What a run does where there is less memory than was planned: less at a time, and the same steps.

    attempt(work)               its result; None where the memory was not enough
    StepTracker                 how long a run's steps take, and whether a full card began to spill
    shrunk(run, …)              the run with half the rows of a forward, or half its perturbed copies
    evaluate_in_parts(…)        an evaluation in ever smaller forwards; in_parts(…): other work on its rows

A step that failed is taken again from where the journal ends, as `zolite resume` would go on: nothing of it is left.
What changes with the rows and perturbed copies of a forward is rounding alone. A loss is the sum of its rows' over
their number, whatever forwards they went through, and directions are drawn by address; but products of another shape
add up in another order. So losses differ as they do between two cards: by some 1e-6 of themselves in float32, and by
what the last bits of activations are worth in 16 bits. One thing is more: on a GPU int8 weights multiply pairs of
perturbed copies by a product that rounds (model/quant.py), so a run that comes down to one copy a forward goes on with
the exact one. And agzo's directions follow the inputs of a forward, so that they are others where it has other rows.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import quantiles
from typing import TypeVar

import torch

from zolite.common.errors import DoesNotFit
from zolite.common.events import Event, Noted, StepDone
from zolite.common.text import human_bytes
from zolite.config.sizes import EVAL_TOKENS
from zolite.data.examples import Example
from zolite.engine import device_memory
from zolite.engine.batch import Batch, length
from zolite.engine.engine import Engine
from zolite.planner import hardware as machine
from zolite.planner.plan import smaller
from zolite.training.evaluate import evaluate
from zolite.training.greedy import Verbalizer
from zolite.training.run import Run

T = TypeVar("T")

SPILLED = 4.0  # times the usual step time: memory behind a bus is ten times as slow, or more
USUAL, IN_A_ROW = 10, 3  # journal batches before a usual time is known, and slow ones in a row that count
REMEMBERED = 2000  # steps


def attempt(work: Callable[[], T]) -> T | None:
    """None where the memory was not enough; what the work held of it is free by then."""
    try:
        return work()
    except RuntimeError as error:
        if not device_memory.out_of_memory(error):
            raise
    return None


class StepTracker:
    """Times of the steps that the run takes in its present layout."""

    def __init__(self, device: torch.device, spills: bool | None = None) -> None:
        self.device = device
        self.can_spill = machine.spills() if spills is None else spills
        self.usual: deque[float] = deque(maxlen=200)  # seconds a step, of each journal batch
        self.slow, self.changed = 0, False
        self.tokens: dict[int, int] = {}  # of a sequence, by step, until it is journalled
        self.steps: deque[tuple[int, float, int]] = deque(maxlen=REMEMBERED)  # number, seconds, tokens of a sequence

    def restart(self, last: bool) -> str:
        """From here on the layout is another, if there is one; returns why."""
        why = f"steps slowed down {SPILLED:g} times while the card was full" if self.spilled else "out of memory"
        self.usual, self.slow, self.can_spill = deque(maxlen=200), 0, self.can_spill and not last
        self.changed = True
        return why

    def begins(self, step: int, batches: Sequence[Batch]) -> None:
        """That step, counted from 1, is about to be taken."""
        self.tokens[step] = batches[0].layout.tokens

    def observe(self, events: Iterable[Event]) -> Iterator[Event]:
        """The same events; the times of steps among them are noted."""
        seconds = 0.0
        for event in events:
            if isinstance(event, StepDone):
                seconds = event.seconds
                self.steps.append((event.step, seconds, self.tokens.pop(event.step, 0)))
            yield event
        if seconds and self.can_spill:
            self._judge(seconds)

    def _judge(self, seconds: float) -> None:
        known = len(self.usual) >= USUAL
        jumped = known and seconds > SPILLED * quantiles(self.usual, n=10)[-1]
        if jumped and device_memory.full(self.device):
            self.slow += 1
        else:
            self.slow = 0
            self.usual.append(seconds)

    @property
    def spilled(self) -> bool:
        return self.slow >= IN_A_ROW


def shrunk(run: Run, step: int, tracker: StepTracker) -> tuple[Run, Noted]:
    """With half the rows of a forward, or half its copies, and a note about it; the model stays as it is."""
    t, device = run.recipe.train, run.engine.loaded.device
    recipe = smaller(replace(run.recipe, train=replace(t, microbatch=min(t.microbatch, run.order.size))))
    if recipe is None and not tracker.spilled:
        raise DoesNotFit(
            f"the device is out of memory after step {step}, at one row and one perturbed copy a forward: "
            f"{human_bytes(device_memory.used_bytes(device))} in use of {human_bytes(run.budget_bytes)} that were free "
            "at the start; the steps are journalled",
            "close what else uses the device and `zolite resume`, or train with a shorter --context",
        )
    why = tracker.restart(last=recipe is None)
    if recipe is None:
        return run, Noted("warning", f"{why} after step {step}, and no forward is smaller than this: going on, slowly")
    t = recipe.train
    left = (
        f"{_count(t.microbatch, 'row', 'rows')} and {_count(t.copies, 'perturbed copy', 'perturbed copies')} a forward"
    )
    text = f"{why} after step {step}: going on with {left}; the steps stay the same but for rounding"
    return replace(run, recipe=recipe, engine=run.engine.narrowed(t.microbatch, t.copies)), Noted("warning", text)


def _count(n: int, one: str, more: str) -> str:
    return f"{n} {one if n == 1 else more}"


def evaluate_in_parts(
    engine: Engine,
    rows: Sequence[Example],
    split: str,
    step: int,
    verbalizer: Verbalizer | None = None,
    free: Callable[[], None] = lambda: None,
) -> Iterator[Event]:
    """The evaluation of some rows, after notes where it takes smaller forwards. `free` makes room on the device."""
    return in_parts(lambda tokens: evaluate(engine, rows, split, step, tokens, verbalizer), rows, step, free)


def in_parts(
    work: Callable[[int], T], rows: Sequence[Example], step: int, free: Callable[[], None] = lambda: None
) -> Iterator[T | Noted]:
    """What `work` makes of these rows with so many tokens a forward, after a note each time that they become fewer."""
    tokens, longest = EVAL_TOKENS, max(map(length, rows))
    while (found := attempt(partial(work, tokens))) is None:
        free()
        if tokens <= longest:
            raise DoesNotFit(
                f"the device is out of memory in an evaluation after step {step}, at a row of {longest:,} tokens",
                "close what else uses the device, or take a shorter --context",
            )
        tokens //= 2
        yield Noted("warning", f"out of memory in an evaluation: it goes on with {tokens:,} tokens a forward")
    yield found
