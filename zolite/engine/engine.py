"""The engine has one verb: the losses at these points, on this batch."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zolite.config.recipe import ResolvedRecipe
from zolite.data.examples import Example, can_be_said
from zolite.engine.adapter import Adapter
from zolite.engine.batch import STEP, Batch, collate, weigh
from zolite.model.fused_decoder import fused
from zolite.model.load import Loaded
from zolite.model.loss import (
    Decode,
    Given,
    Head,
    Tokens,
    candidate_scores,
    generic,
    likeliest,
    loss_sums,
    mask_logits,
    own_logits,
)
from zolite.zo.direction import Combo, mirrored
from zolite.zo.samplers import Objective

ORIGIN = (Combo(),)


@dataclass(frozen=True)
class Engine:
    """Points are measured in waves of as many as there are copies, rows in microbatches; neither changes the result."""

    loaded: Loaded
    adapter: Adapter
    microbatch: int  # rows of a group a forward
    decode: Decode | None = None  # zolite's own, where the model and the device have one; None: `plain`
    joint: bool = False  # candidates are compared by the sum of their tokens' log-probabilities, not their mean

    @classmethod
    def of(cls, loaded: Loaded, adapter: Adapter, recipe: ResolvedRecipe) -> "Engine":
        """With the fast decoder where the model and the device have one."""
        own_stream(loaded.device)
        longest = recipe.data.context + STEP  # a bucket may end behind the longest text
        decode = None if loaded.own_logits else fused(loaded.model, adapter.active, longest)
        return cls(loaded, adapter, recipe.train.microbatch, decode, recipe.train.objective == "say")

    def narrowed(self, microbatch: int, copies: int) -> "Engine":
        """The same engine with so many rows a forward, and no more points than it has room for."""
        space = replace(self.adapter.space, copies=self.adapter.space.copies[:copies])
        return replace(self, microbatch=microbatch, adapter=replace(self.adapter, space=space))

    def bind(self, rows: Sequence[Example], step: int = 0, tokens: int | None = None) -> Objective:
        """The objective on one batch, laid out in as many groups as it is asked for."""

        @functools.cache
        def bound(groups: int) -> Objective:
            return self.objective([self.put(batch) for batch in self.batch(rows, step, groups, tokens)])

        def objective(points: Sequence[Combo], groups: int = 1) -> Tensor:
            return bound(groups)(points, groups)

        return objective

    def batch(self, rows: Sequence[Example], step: int, groups: int = 1, tokens: int | None = None) -> list[Batch]:
        """A step's microbatches on the host, each with as many rows of every group."""
        weights, each = weigh(rows, groups), len(rows) // groups
        parts = [range(first, min(first + self.microbatch, each)) for first in range(0, each, self.microbatch)]
        return [
            collate([rows[g * each + i] for g in range(groups) for i in part], groups, tokens, step, weights)
            for part in parts
        ]

    def put(self, batch: Batch) -> Tokens:
        """On the device, in one copy that nothing waits for."""
        device = self.loaded.device
        flat = batch.flat.pin_memory() if device.type == "cuda" else batch.flat
        return Tokens.of(batch.layout, flat.to(device, non_blocking=True))

    def objective(self, batches: Sequence[Tokens]) -> Objective:
        """Points to losses (K,) float32. Each sees its own group's rows, averaged over all microbatches."""

        def objective(points: Sequence[Combo], groups: int = 1) -> Tensor:
            if groups != batches[0].layout.groups:
                raise ValueError(f"a batch of {batches[0].layout.groups} groups was asked for {groups}")
            cuts = waves(len(points), groups, len(self.adapter.space.copies))
            pairs = mirrored(points)  # all points of a call or none: losses that are compared are rounded alike
            return torch.cat([self.wave([b.part(some) for b in batches], points[cut], pairs) for some, cut in cuts])

        return objective

    def wave(self, batches: Sequence[Tokens], points: Sequence[Combo], pairs: bool) -> Tensor:
        """The losses at no more points than there are copies, as many a group: (K,) float32."""
        self._fill(points)
        self.adapter.active.mirrored = pairs and mirrored(points)
        self.adapter.active.clean = len(points) == 1 and not points[0].terms
        sums = [loss_sums(self._decode, self.head, batch, len(points)) for batch in batches]
        weight = batches[0].weight.unsqueeze(1)
        return (torch.stack(sums).sum(dim=0).view(len(weight), -1) / weight).flatten()

    def scores(self, rows: Sequence[Example]) -> Tensor:
        """Log-probability (R, C) of every candidate at theta: its tokens' mean, or sum where several are `joint`.

        Where rows have different numbers of candidates, it is -inf for those that a row does not have.
        """
        self._fill(ORIGIN)
        batch = self.put(collate(rows))
        whole = replace(batch, layout=replace(batch.layout, single=False))  # logits alone would not say how likely
        return self.compared(candidate_scores(self._decode, self.head, whole, 1)[0], whole, rows)

    def compared(self, means: Tensor, batch: Tokens, rows: Sequence[Example]) -> Tensor:
        """What candidates (R, C) are compared by, of their tokens' means: these, or sums where several are `joint`."""
        if not self.sums(rows[0]):
            return means
        counts = batch.lengths.view(means.shape)
        return torch.where(counts > 0, means * counts, means)  # -inf is of candidates that a row does not have

    def sums(self, row: Example) -> bool:
        """Are candidates of such a row compared by their whole log-probabilities, and not by a mean token's?"""
        return self.joint and can_be_said(row)

    def next_tokens(self, sequences: Sequence[Sequence[int]], first: Sequence[int]) -> list[list[int]]:
        """The likeliest token at theta behind each token of a sequence, from its index first[i] to its last."""
        self._fill(ORIGIN)
        width, device = max(map(len, sequences)), self.loaded.device
        ids = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in sequences])
        places = [range(i * width + start, i * width + len(sequences[i])) for i, start in enumerate(first)]
        where = torch.tensor([at for each in places for at in each])
        found = iter(likeliest(self.head, self._decode(ids.to(device), where.to(device))).tolist())
        return [[next(found) for _ in each] for each in places]

    def at_theta(self) -> None:
        """From here on the model itself, called by whomever, is the model at θ."""
        self._fill(ORIGIN)

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Inside, the model without its adapter: every adapter is a product with one of its numbers."""
        theta = self.adapter.space.theta
        with torch.inference_mode():
            now = theta.clone()
            theta.zero_()
            try:
                yield
            finally:
                theta.copy_(now)

    def _fill(self, points: Sequence[Combo]) -> None:
        self.adapter.space.fill_(points)
        active = self.adapter.active
        active.copies, active.mirrored, active.clean = len(points), False, False

    @property
    def plain(self) -> Decode:
        """By transformers' own modules, which hooks can watch; hidden states or logits, for `head`."""
        model, active = self.loaded.model, self.adapter.active
        if self.loaded.encoder:
            return mask_logits(model)
        return own_logits(model, lambda: active.copies) if self.loaded.own_logits else generic(model)

    @property
    def head(self) -> Head | Given:
        own = self.loaded.own_logits
        return Given(own) if own else Head.of(self.loaded.model)

    @property
    def _decode(self) -> Decode:
        return self.decode or self.plain


def waves(points: int, groups: int, copies: int) -> Iterator[tuple[slice, slice]]:
    """(groups, points) of each forward: whole groups' points where those of one fit, else parts of one group's."""
    each, rest = divmod(points, groups)
    if rest or not each:
        raise ValueError(f"{points} points do not divide into {groups} groups")
    if copies > 1 and each % 2 == 0:
        copies -= copies % 2  # mirrored points stay together, whatever the plan's number of copies
    whole = max(1, copies // each)
    for first in range(0, groups, whole):
        last = min(first + whole, groups)
        for start in range(first * each, last * each, copies):
            yield slice(first, last), slice(start, min(start + copies, last * each))


def own_stream(device: torch.device) -> None:
    """Do everything from here on in one stream that can be captured, which the default one cannot.

    In one, because cuBLAS keeps 32 MiB for every stream that it is used on.
    """
    if device.type == "cuda" and torch.cuda.current_stream(device) == torch.cuda.default_stream(device):
        torch.cuda.synchronize(device)
        torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
