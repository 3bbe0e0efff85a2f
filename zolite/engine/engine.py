"""The engine has one verb: the losses at these points, on this batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from zolite.core.direction import Combo
from zolite.core.sampler import Objective
from zolite.data.batch import collate
from zolite.data.template import Example
from zolite.engine.adapter import Adapter
from zolite.model.load import Loaded
from zolite.model.loss import candidate_scores, loss_sums

T = TypeVar("T")

ORIGIN = (Combo(),)


@dataclass(frozen=True)
class Engine:
    """Points are measured in waves of as many as there are slots, rows in microbatches; neither changes the result."""

    loaded: Loaded
    adapter: Adapter
    microbatch: int

    def bind(self, rows: Sequence[Example]) -> Objective:
        """The objective on one batch: points to losses (K,) float32, averaged over the batch as a whole."""
        batches = [collate(part, self.loaded.device) for part in _parts(rows, self.microbatch)]
        weight = sum(batch.weight for batch in batches)

        def objective(points: Sequence[Combo]) -> Tensor:
            waves = []
            for wave in _parts(points, len(self.adapter.space.slots)):
                self._fill(wave)
                sums = [loss_sums(self.loaded.model, batch, len(wave)) for batch in batches]
                waves.append(torch.stack(sums).sum(dim=0) / weight)
            return torch.cat(waves)

        return objective

    def scores(self, rows: Sequence[Example]) -> Tensor:
        """Mean log-probability of every candidate at theta: (R, C) float32."""
        self._fill(ORIGIN)
        return candidate_scores(self.loaded.model, collate(rows, self.loaded.device), 1)[0]

    def _fill(self, points: Sequence[Combo]) -> None:
        self.adapter.space.fill_(points)
        self.adapter.active.slots = len(points)


def _parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[i : i + size] for i in range(0, len(items), size)]
