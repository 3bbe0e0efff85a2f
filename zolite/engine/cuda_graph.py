"""Steps as CUDA graphs: captured once for each layout of a batch, then replayed with nothing left for Python to do.

A replayed graph does the same work on the same addresses. So what changes from step to step lives in one buffer, which
a copy fills before each replay: the batch, and the step's number, from which the noise is drawn.
"""

import gc
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zolite.engine import device_memory
from zolite.engine.batch import Batch
from zolite.engine.engine import Engine
from zolite.model.devices import nvidia
from zolite.model.loss import Layout, Tokens
from zolite.zo.direction import Combo
from zolite.zo.estimators import Estimate
from zolite.zo.state import State, restore_state, split_state

MOST_GRAPHS = 32  # each costs the driver a few MiB; the one used longest ago goes first

Step = Callable[[Sequence[Tokens], int | Tensor], Estimate]
"""A step on the device: its microbatches and its number, counted from 0."""

Before = Callable[[Sequence[Batch], int], Tensor | None]
"""What a method does before some steps, never captured, and the losses (K,) that it measured."""

Held = tuple[Tensor, dict[str, object], dict[str, Tensor]]
"""Theta, and a method's state as `split_state` has it."""


@dataclass(frozen=True)
class Graph:
    """A captured step: what it reads and what it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]  # one flat buffer a microbatch
    estimate: Estimate  # its scalars, written anew by each replay

    def replay(self, batches: Sequence[Batch]) -> Estimate:
        for static, batch in zip(self.inputs, batches, strict=True):
            static.copy_(batch.flat.pin_memory(), non_blocking=True)
        coefs, losses = torch.empty_like(self.estimate.coefs), torch.empty_like(self.estimate.losses)
        self.graph.replay()  # nothing asks for memory once the step is taken
        return Estimate(Combo(), coefs.copy_(self.estimate.coefs), losses.copy_(self.estimate.losses))


class Steps:
    """Takes steps, from graphs where it can. Captured or not, the numbers are the same.

    A layout is captured at its first step, so that no number depends on which step that was. What cannot be captured
    (a method that reads a number back, or keeps one in Python) runs eagerly, and `refusal` says why.
    """

    def __init__(self, engine: Engine, before: Before, step: Step, state: dict[str, State]) -> None:
        self.engine, self.before, self.step, self.state = engine, before, step, state
        self.graphs: OrderedDict[tuple[Layout, ...], Graph] = OrderedDict()
        self.captures, self.reason = nvidia(engine.loaded.device), ""
        self.pool = torch.cuda.graph_pool_handle() if self.captures else None  # shared: one graph runs at a time

    @torch.inference_mode()
    def __call__(self, batches: Sequence[Batch], step: int) -> Estimate:
        """The step whose microbatches (and number) these are; returns before the device is done."""
        before = self.before(batches, step)
        graph = self._graph(tuple(batch.layout for batch in batches), batches) if self.captures else None
        if graph is not None:
            estimate = graph.replay(batches)
        else:
            estimate = kept(self.step([self.engine.put(batch) for batch in batches], step))
        return estimate if before is None else replace(estimate, losses=torch.cat((before, estimate.losses)))

    def to_capture(self, batches: Sequence[Batch]) -> bool:
        """Will a step of this layout be captured first, which takes seconds?"""
        return self.captures and tuple(batch.layout for batch in batches) not in self.graphs

    def release(self) -> None:
        """Give back what graphs and finished forwards hold; layouts are captured anew."""
        self.graphs.clear()
        gc.collect()
        if self.pool is not None:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def refusal(self) -> str:
        """Why steps are not captured, reported once; else nothing."""
        reason, self.reason = self.reason, ""
        return reason

    def _graph(self, layouts: tuple[Layout, ...], batches: Sequence[Batch]) -> Graph | None:
        graph = self.graphs.pop(layouts, None) or self._capture(batches)
        if graph is not None:
            self.graphs[layouts] = graph
            if len(self.graphs) > MOST_GRAPHS:
                self.graphs.popitem(last=False)
        return graph

    def _capture(self, batches: Sequence[Batch]) -> Graph | None:
        inputs = tuple(batch.flat.to(self.engine.loaded.device) for batch in batches)
        tokens = [Tokens.of(batch.layout, flat) for batch, flat in zip(batches, inputs, strict=True)]
        graph, held = torch.cuda.CUDAGraph(), self._held()
        try:
            self.step(tokens, tokens[0].step)  # for nothing: it loads the kernels, which a capture may not
            self._restore(held)
            with torch.cuda.graph(graph, pool=self.pool, stream=torch.cuda.current_stream()):
                estimate = self.step(tokens, tokens[0].step)
            problem = "" if split_state(self.state)[0] == held[1] else "the method keeps numbers in Python"
        except RuntimeError as error:  # whatever CUDA forbids during capture, where nothing has run
            if device_memory.out_of_memory(error):
                raise
            torch.cuda.synchronize()
            problem = str(error).strip().splitlines()[0]
        if problem:
            self._restore(held)
            self.captures, self.reason, self.graphs = False, problem, OrderedDict()
            return None
        return Graph(graph, inputs, Estimate(Combo(), estimate.coefs, estimate.losses))

    def _held(self) -> Held:
        """Copies of all that a step may change; on the host, where they cost the device no memory."""
        plain, tensors = split_state(self.state)
        theta = self.engine.adapter.space.theta.to("cpu", copy=True)
        return theta, plain, {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}

    def _restore(self, held: Held) -> None:
        theta, plain, tensors = held
        self.engine.adapter.space.theta.copy_(theta)
        restore_state(self.state, plain, tensors)


def kept(estimate: Estimate) -> Estimate:
    """The scalars alone, where no later step writes."""
    return Estimate(Combo(), estimate.coefs.clone(), estimate.losses.clone())
