"""Is a session whole? Its journal is replayed from the first checkpoint and compared with every one that was taken."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zolite.common.errors import ZoliteError
from zolite.common.events import Saved
from zolite.engine import device_memory
from zolite.sessions import checkpoint
from zolite.sessions.session import Checkpoint, Session
from zolite.sessions.steps import replayable
from zolite.training.replay import CPU, Rebuilt, catch_up_, held, loaded

CLOSE = 1e-4  # of the largest number: rounding of another device, after thousands of steps


@dataclass(frozen=True)
class Verdict:
    """What a checkpoint's step came to: `same`, `close`, `different`, `unknown`, `broken` or `ahead`."""

    step: int
    state: str
    detail: str

    @property
    def sound(self) -> bool:
        return self.state in ("same", "close", "unknown")


def device_of(session: Session) -> torch.device:
    """Where its numbers come out bit for bit: the device of the run, if this machine has it."""
    cuda = torch.device("cuda")
    if torch.cuda.is_available() and device_memory.device_name(cuda) == session.facts["device"]:
        return cuda
    return CPU


def verify(session: Session, device: torch.device) -> Iterator[Verdict]:
    """A verdict for every checkpoint that was ever taken, in order. Raises where the journal itself is damaged."""
    session.journal.check()
    taken = {e.step: e.digest for e in session.journal.events() if isinstance(e, Saved)}
    there = set(session.steps())
    whole = {step: session.at(step) for step in sorted(taken.keys() | there)}
    now: Rebuilt | None = None
    for step, found in whole.items():
        if found is None and step in there:
            yield Verdict(step, "broken", "its files are not what was saved")
        now, verdict = _compared(session, now, step, found, taken.get(step, ""), device)
        yield verdict
    for step in session.ahead():
        yield Verdict(step, "ahead", f"the journal ends at step {session.journal.last_step()}: it is never used")


def _compared(
    session: Session, now: Rebuilt | None, step: int, found: Checkpoint | None, digest: str, device: torch.device
) -> tuple[Rebuilt | None, Verdict]:
    """Where the replay stands after that step, and what it says of it."""
    if now is None or not replayable(session, now.step, step):
        if found is None:
            return None, Verdict(step, "unknown", "its checkpoint is gone, and nothing leads to it")
        return loaded(session, found, device), Verdict(step, "same", "whole; replayed from here on")
    catch_up_(session, now.step, step, now.space, now.state)
    now = dataclasses.replace(now, step=step)
    tensors, plain = held(now.tensors(), now.state, now.frozen, now.given)
    if digest and checkpoint.digest(checkpoint.packed(tensors, plain)) == digest:
        return now, Verdict(step, "same", "bit for bit")
    if found is None:
        return now, Verdict(step, "unknown" if not digest else "different", "its checkpoint is gone")
    apart = _apart(tensors, found.tensors())
    verdict = Verdict(step, "same" if apart == 0 else "close" if apart < CLOSE else "different", f"{apart:.1e} apart")
    return loaded(session, found, device), verdict


def _apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest difference over the largest number."""
    if a.keys() != b.keys():
        raise ZoliteError("a checkpoint has other tensors than the recipe says", "the session's folder was changed")
    largest = max((float(t.abs().max()) for t in b.values() if t.numel()), default=0.0)
    apart = max((float((a[n].cpu() - t).abs().max()) for n, t in b.items() if t.numel()), default=0.0)
    return apart / largest if largest else apart
