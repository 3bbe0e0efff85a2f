"""What an adapter begins with, where that is not what the seed draws: another adapter's numbers, or what is known in
closed form of rows with labels: linear probes of the layers' features, an exact fit of the last layer, and where that
made labels harder to tell apart probes of more layers. Of rows without labels, what the slope that comes back from
predicted tokens teaches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from zolite.common.events import Noted
from zolite.config import recipe as recipes
from zolite.config.recipe import rank_for
from zolite.data.examples import Tokens, tokenized
from zolite.data.kinds.registry import KINDS
from zolite.data.rows import Dataset
from zolite.engine import device_memory
from zolite.engine.engine import Engine
from zolite.model.tail import Tail
from zolite.planner.step_time import linear_probe_rows
from zolite.training import feedback, linear_probe, out_of_memory, warm_start
from zolite.training.answer_fit import Typed, fit_answers_, lines_of, rows_of, unseen_lines
from zolite.training.feedback import start_from_feedback_
from zolite.training.linear_probe import ProbedLayer, start_from_probe_
from zolite.training.own_text import own_texts
from zolite.training.run import Run, says

SAID = 0.95  # of dev's rows: fewer, and a person is told
MENDING = 3  # times fewer rows than the first probes may read, for those behind the fit
UNSEEN = 3  # every third text of the model's own tells what the fit costs


@dataclass(frozen=True)
class Fitting:
    """The layer that says labels, what stands behind it, and texts of the model as it was."""

    layer: ProbedLayer
    tail: Tail
    own: list[Tokens]


def with_first_values(run: Run, dataset: Dataset, tokenizer: Any) -> Run:
    """The run with its adapter's first values, and notes of where they come from."""
    part, source = run.recipe.adapter, run.engine.loaded.source
    if part.start:
        texts = warm_start.put_(run.engine.adapter, part, source.base)
        return replace(run, notes=run.notes + tuple(Noted("warning", text) for text in texts))
    drawn = run.space.theta.to("cpu", copy=True)  # the start has need of the device's memory
    fitting: Fitting | None = None
    notes: list[Noted] = []
    labelled = bool(dataset.labels)  # what differs from row to row has no probe and no fit
    if labelled and says(run.examples, run.recipe) and recipes.starts_with_fit(run.recipe):
        fitting, notes = _fitting(run.engine, tokenizer)
    probed = _probed(run, fitting) if labelled and recipes.starts_with_probe(part) else NOTHING
    notes += _noted(probed)
    if fitting:
        notes += _fitted(run, fitting, dataset, tokenizer)
        notes += _noted(_mended(run, probed))
    if recipes.starts_with_feedback(run.recipe) and run.examples["train"][0].candidates == 1:
        notes += _fed_back(run, tokenizer)
    device_memory.tidy()
    return replace(run, notes=(*run.notes, *notes), ahead=not torch.equal(drawn, run.space.theta.cpu()))


NOTHING = linear_probe.Result("", 0)


def _probed(run: Run, fitting: Fitting | None) -> linear_probe.Result | None:
    """None where memory ran out."""
    left = {fitting.layer.name: _left(run)} if fitting else {}
    engine, most = replace(run.engine, joint=False), linear_probe_rows(run.recipe)
    return out_of_memory.attempt(partial(start_from_probe_, engine, run.examples, most, left))


def _mended(run: Run, probed: linear_probe.Result | None) -> linear_probe.Result | None:
    """Where the fit of the last layer has made labels harder to tell apart, probes of the layers left make up for it,
    if the run is long enough to pay for one. From there on labels are compared by the sum of their tokens, and what V
    finds at rows that it has not seen is noisy."""
    most, train, dev = linear_probe_rows(run.recipe) // MENDING, run.examples["train"], run.examples["dev"]
    one_layer = sum(min(len(rows), linear_probe.MOST_ROWS) for rows in (train, dev, dev))  # that it reads
    if not probed or not probed.text or most < one_layer:
        return NOTHING

    def again() -> linear_probe.Result:
        now = linear_probe.loss_on(run.engine, dev)
        harmed = now > (1 + linear_probe.LEAST) * probed.loss
        return start_from_probe_(run.engine, run.examples, most) if harmed else NOTHING

    return out_of_memory.attempt(again)


def _fed_back(run: Run, tokenizer: Any) -> list[Noted]:
    t, most = run.recipe.train, linear_probe_rows(run.recipe)
    if most < feedback.least(t.batch):
        return []  # a run so short is over before it would pay

    def started() -> feedback.Result | None:
        run.engine.at_theta()
        with torch.inference_mode():
            own = own_texts(run.engine.loaded.model, tokenizer)
        return start_from_feedback_(run.engine, run.examples, own, t.batch, t.seed, most)

    found = out_of_memory.attempt(started)
    if found is None:
        return [Noted("info", feedback.UNKNOWN)]
    return [Noted("info", found.text)]


def _noted(found: linear_probe.Result | None) -> list[Noted]:
    if found is None:
        return [Noted("warning", "out of memory during the linear-probe start: the layers probed so far are kept")]
    return [Noted("info", found.text)] if found.text else []


def _left(run: Run) -> int:
    """Rows of the last layer's A that a probe leaves for the fit; where the rank is low, half of them."""
    row, rank = run.examples["train"][0], run.recipe.adapter.rank
    return min(rows_of(row), max(rank - row.candidates + 1, rank // 2))


def _fitting(engine: Engine, tokenizer: Any) -> tuple[Fitting | None, list[Noted]]:
    """None, and why, where the last layer cannot be fitted exactly."""
    layers = linear_probe.find(engine)
    if not layers:
        return None, [Noted("info", f"{LEFT}: no layer with an adapter writes into the residual stream")]

    def found() -> tuple[list[Tokens], Tail | None]:
        engine.at_theta()
        with torch.inference_mode():
            own = own_texts(engine.loaded.model, tokenizer)
            ids = torch.tensor([own[0]], device=engine.loaded.device)
            return own, Tail.of(engine.loaded.model, layers[-1].linear, layers[-1].block, ids)

    own, tail = out_of_memory.attempt(found) or ([], None)
    if tail is None:
        return None, [Noted("info", f"{LEFT}: what stands behind {layers[-1].name} is not a norm and a head alone")]
    return Fitting(layers[-1], tail, own), []


LEFT = "the steps alone teach the model to say labels, which takes many"


def typing(dataset: Dataset, template: str, tokenizer: Any, split: str = "train") -> Typed:
    """The prompts of a split's rows as people type them."""
    kind, rows = KINDS[dataset.kind], dataset.splits[split]

    def typed(some: Sequence[int], ending: str) -> list[Tokens]:
        prompts = ("".join(p.text for p in kind.pieces(rows[i], template) if not p.trained) for i in some)
        return tokenized(tokenizer, [prompt + ending for prompt in prompts], special=True)

    return typed


def _fitted(run: Run, fitting: Fitting, dataset: Dataset, tokenizer: Any) -> list[Noted]:
    engine, typed = run.engine, typing(dataset, run.recipe.data.template, tokenizer)

    def fit() -> Any:
        with torch.inference_mode():
            fitted = [text for i, text in enumerate(fitting.own) if i % UNSEEN]
            lines = lines_of(engine, run.examples["train"], typed, fitted)
            unseen = unseen_lines(run.examples["dev"], fitting.own[::UNSEEN])
            return fit_answers_(engine, fitting.layer, fitting.tail, lines, unseen)

    found = out_of_memory.attempt(fit)
    if found is None:
        return [Noted("warning", f"out of memory during the fit of the last layer: {LEFT}")]
    row, rank = run.examples["train"][0], run.recipe.adapter.rank
    enough = rank_for(run.recipe.adapter.space, row.candidates, rows_of(row))
    few = f"labels are said on {found.after:.0%} of dev's rows only, by an adapter of rank {rank}"
    more = f"{few}: try --rank {enough}" if enough > rank else few
    return [Noted("info", found.text), *([Noted("warning", more)] if found.after < SAID else [])]
