"""When sample answers are taken, so that they take at most SHARE of a run's time.

They get fewer tokens where the whole answers would take more, or are taken at fewer evaluations; where even LEAST
tokens would take more, not at all, which is said.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from zolite.common.events import Event, Noted, Sampled
from zolite.common.text import human_seconds
from zolite.engine.engine import Engine
from zolite.training.out_of_memory import attempt
from zolite.training.samples import Samples

LEAST = 8  # new tokens; fewer would show nothing
TIMES = 10  # in a run, the first and the last included
SHARE = 0.03  # of a run's time
SHORT = 50  # steps: a shorter run has none


class NoSamples(Exception):  # noqa: N818 - it is no error
    """Why a run has none."""


@dataclass
class Sampling:
    """What is known of a run's samples so far."""

    samples: Samples | None
    steps: int  # of the run
    clock: Callable[[], float] = time.monotonic
    first: list[str] = field(default_factory=list)  # answers of the model without its adapter
    most: int = 0  # new tokens of an answer; 0: not known yet
    cost: float = 0.0  # seconds that all three take
    spent: float = 0.0
    taken: list[int] = field(default_factory=list)  # steps

    def at(self, step: int, engine: Engine, run_seconds: float) -> Iterator[Event]:
        """The samples after a step, where they are due. `run_seconds`: what the whole run takes, as far as is known."""
        if self.samples is None or step in self.taken or self.steps < SHORT:
            return
        try:
            if not self.first:
                self._begin(engine, run_seconds)
            if not self._due(step, run_seconds):
                return
            now, self.cost = self._timed(lambda samples: samples.answers(engine, self.most))
        except NoSamples as why:
            self.samples = None
            yield Noted("detail", f"no sample answers: {why}")
            return
        self.taken.append(step)
        told = zip(self.samples.tails, self.first, now, self.samples.references, strict=True)
        for row, (prompt, before, after, reference) in enumerate(told, 1):
            yield Sampled(step, row, prompt, before, after, reference)

    def _begin(self, engine: Engine, run_seconds: float) -> None:
        """What the model says by itself, in as many tokens as there is time for."""
        assert self.samples is not None
        least = min(LEAST, self.samples.most)
        self.first, self.cost = self._timed(lambda samples: samples.before(engine, least))
        most = int(SHARE * run_seconds / 3 / (self.cost / least))  # three times at least: before, at first, at last
        if most < least:
            takes = f"three of {least} tokens take {human_seconds(self.cost)}"
            raise NoSamples(f"{takes}, which is more than a few per cent of a run of {human_seconds(run_seconds)}")
        self.most = min(most, self.samples.most)
        if self.most > least:
            self.first, self.cost = self._timed(lambda samples: samples.before(engine, self.most))

    def _due(self, step: int, run_seconds: float) -> bool:
        """The first and the last always, between them where there is time left."""
        if not self.taken or step == self.steps:
            return True
        spread = step - self.taken[-1] >= self.steps / TIMES
        return spread and self.spent + 2 * self.cost <= SHARE * run_seconds

    def _timed(self, work: Callable[[Samples], list[str]]) -> tuple[list[str], float]:
        """(the answers, the seconds that they took)."""
        assert self.samples is not None
        began = self.clock()
        found = attempt(partial(work, self.samples))
        if found is None:
            raise NoSamples("the device has no memory left for them")
        seconds = max(self.clock() - began, 1e-6)  # a clock may stand still for so long
        self.spent += seconds
        return found, seconds
