"""What a run has measured and not yet written down, and the one writer of its journal while it trains."""

import contextlib
import math
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zolite.common.errors import DiskFull
from zolite.common.events import Continued, Evaluated, Event, Finished, Noted, Paused, Saved, StepDone
from zolite.engine import device_memory
from zolite.model.devices import speed
from zolite.sessions.control import POLL_SECONDS, Control
from zolite.sessions.journal import SKIPPED
from zolite.sessions.session import MemoryRow, Session, StepRow
from zolite.sessions.steps import kept, stopped_early
from zolite.training.divergence import Divergence
from zolite.training.replay import held
from zolite.training.run import Run
from zolite.zo.estimators import Estimate
from zolite.zo.updates import schedule

# Between two commits. Steps on a GPU wait that long on the device and as long again on their way, so that no more than
# half a second is ever lost; on a CPU each commit is waited for.
FLUSH_SECONDS = {"cuda": 0.25, "cpu": 0.4}
MOST_SKIPPED = 10  # steps in a row without a finite loss before a run gives up
ROOM_SECONDS = 1.0  # between two tries whether a full disk has room again


@dataclass(frozen=True)
class InFlight:
    """Scalars of some steps on their way from the device."""

    steps: list[tuple[int, float]]  # number, share of padding
    coefs: Sequence[Tensor]  # (n,) float32 a step
    losses: Sequence[Tensor]  # (K,) float32 a step, more where the method looked around
    arrived: torch.cuda.Event | None  # None where they never left the host


class JournalWriter:
    """All that it does is an iterator of events, since a full disk may come between: it reports that and waits."""

    def __init__(self, run: Run, session: Session, control: Control) -> None:
        self.session, self.control = session, control
        self.pending: list[tuple[int, float, Estimate]] = []
        self.in_flight: deque[InFlight] = deque()
        self.interval = FLUSH_SECONDS[speed(run.engine.loaded.device)]
        self.began = self.flushed = self.written = time.monotonic()
        self.skipped = self.bad_steps = 0
        self.step_seconds = math.nan  # of the last steps; not known before the first
        self.go_on_with(run, session.journal.last_step())

    def go_on_with(self, run: Run, step: int) -> None:
        """From that step, with this run; divergence is judged by the journal's losses under this recipe."""
        t, since = run.recipe.train, self.session.chapters[-1].since
        self.run, self.lr, self.divergence = run, schedule(t.schedule, t.lr, t.steps), Divergence(min(since, step))
        for row in self.session.journal.steps(since, step) if since < step else ():
            self.divergence.add(row.step, row.loss)
        self.scores = self.session.journal.evaluations()  # kept here: to read a journal is to commit it, and may wait

    def add(self, step: int, estimate: Estimate, padding: float) -> None:
        self.pending.append((step, padding, estimate))

    def evaluated(self, step: int) -> bool:
        """Was dev evaluated after that step?"""
        return any(e.step == step and e.split == "dev" for e in self.scores)

    def run_seconds(self) -> float:
        """What the run's steps take: by the last of them, or before there is one by the last evaluation's rows.

        A step reads its batch at two points at least.
        """
        t, last = self.run.recipe.train, self.scores[-1]
        seconds = self.step_seconds if math.isfinite(self.step_seconds) else 2 * t.batch * last.seconds / last.rows
        return t.steps * seconds

    @property
    def stopped_early(self) -> bool:
        """Has dev not improved for as many evaluations as the recipe's patience?"""
        return stopped_early(self.scores, self.run.recipe.train.patience)

    def due(self) -> bool:
        return time.monotonic() - self.flushed >= self.interval

    def flush(self, wait: bool) -> Iterator[Event]:
        """Start the pending steps' scalars on their way; journal and report those that have arrived, or all of them.

        Control commands are read, too.
        """
        if self.pending:
            self.in_flight.append(self._started())
            self.pending, self.flushed = [], time.monotonic()
        while self.in_flight and (wait or len(self.in_flight) > 1 or self.in_flight[0].arrived is None):
            yield from self._write(self.in_flight.popleft())
        yield from self._once_there_is_room(self.control.poll)

    def note(self, event: Event) -> Iterator[Event]:
        """Journal an event and hand it on."""
        with contextlib.suppress(DiskFull):  # it is in the open transaction all the same
            self.session.journal.event(event)
        self.scores += [event] if isinstance(event, Evaluated) else []
        yield event
        yield from self._once_there_is_room(self.session.journal.commit_due)
        self.flushed = self.written = time.monotonic()  # an evaluation or a save is not part of any step's time

    def save(self, step: int) -> Iterator[Event]:
        space, adapter = self.run.space, self.run.engine.adapter
        tensors = {block.name: block.of(space.theta) for block in space.blocks}
        shapes = {name: tuple(t.shape) for name, t in adapter.frozen.items()}
        contents = held(tensors, self.run.state, shapes, adapter.given)

        def saved() -> None:
            checkpoint = self.session.save(step, *contents, keep=kept(self.scores))
            events.append(Saved(step, str(checkpoint.path), checkpoint.digest))

        events: list[Event] = []
        yield from self._once_there_is_room(saved)
        self.control.saving = False
        yield from self.note(events[0])

    def pause(self, step: int) -> Iterator[Event]:
        """Wait until a reader lets the run go on, or it is to end."""
        yield from self.note(Paused(step))
        yield from self._once_there_is_room(self.session.journal.commit)
        while self.control.paused and not self.control.stopped():
            time.sleep(POLL_SECONDS)
            yield from self._once_there_is_room(self.control.poll)
        yield from self.note(Continued(step))

    def finish(self, step: int) -> Iterator[Event]:
        done = "done" if step >= self.run.recipe.train.steps or self.stopped_early else "interrupted"
        reason = "diverged" if self.bad_steps >= MOST_SKIPPED else done
        peak = device_memory.peak_bytes(self.run.engine.loaded.device)
        yield from self.note(Finished(step, reason, time.monotonic() - self.began, self.skipped, peak))
        yield from self._once_there_is_room(self.session.journal.commit)

    def _started(self) -> InFlight:
        steps, estimates = [(step, padding) for step, padding, _ in self.pending], [e for *_, e in self.pending]
        coefs, losses = _to_host([e.coefs for e in estimates]), _to_host([e.losses for e in estimates])
        arrived = None
        if self.run.engine.loaded.device.type == "cuda":
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        return InFlight(steps, coefs, losses, arrived)

    def _write(self, arriving: InFlight) -> Iterator[Event]:
        if arriving.arrived is not None:
            arriving.arrived.synchronize()  # the only wait for the device, which has later steps to go on with
        now, device = time.monotonic(), self.run.engine.loaded.device
        seconds, self.written = (now - self.written) / len(arriving.steps), now
        self.step_seconds = seconds
        used = device_memory.used_bytes(device)
        peak = max(used, device_memory.peak_bytes(device))  # a process's own peak is reported late
        rows = [
            self._row(step, coefs, losses, seconds, used)
            for (step, _), coefs, losses in zip(arriving.steps, arriving.coefs, arriving.losses, strict=True)
        ]
        with contextlib.suppress(DiskFull):  # they are in the open transaction all the same
            self.session.journal.append(rows)
            self.session.journal.memory(MemoryRow(time.time(), rows[-1].step, used, peak))
        yield from self._once_there_is_room(self.session.journal.commit)  # they have waited long enough
        for row, (_, padding), measured in zip(rows, arriving.steps, arriving.losses, strict=True):
            bad = bool(row.flags & SKIPPED)
            self.skipped, self.bad_steps = self.skipped + bad, self.bad_steps + 1 if bad else 0
            self.divergence.add(row.step, row.loss)
            yield StepDone(
                row.step, float(measured.mean()), row.lr, seconds, used, peak, padding, bad, self.divergence.mean
            )

    def _row(self, step: int, coefs: Tensor, losses: Tensor, seconds: float, used: int) -> StepRow:
        bad = not bool(torch.isfinite(losses).all())
        eps, lr = self.run.recipe.train.eps, self.lr(step - 1)
        return StepRow(step, packed(coefs), packed(losses), eps, lr, SKIPPED * bad, time.time(), seconds, used)

    def _once_there_is_room(self, write: Callable[[], None]) -> Iterator[Event]:
        """Write as soon as the disk has room; until then the run waits. Raises DiskFull if it is stopped meanwhile."""
        full: DiskFull | None = None
        while True:
            try:
                write()
            except DiskFull as error:
                if full is None:
                    yield Noted("warning", f"waiting for room on the disk: {error.message}")
                full = error
            else:
                if full is not None:
                    yield Noted("info", "there is room on the disk again; going on")
                return
            if self.control.stopped():
                raise full
            time.sleep(ROOM_SECONDS)


def _to_host(scalars: Sequence[Tensor]) -> Sequence[Tensor]:
    """One copy that nothing waits for."""
    return torch.split(torch.cat(list(scalars)).to("cpu", non_blocking=True), [len(s) for s in scalars])


def packed(values: Tensor) -> bytes:
    """float32, little endian."""
    return struct.pack(f"<{len(values)}f", *values.tolist())
