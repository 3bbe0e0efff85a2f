"""Is an export what was trained? Its losses and texts, as other programs read it, beside the session's."""

import gc
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from zolite.common.errors import DoesNotFit, UsageError, ZoliteError
from zolite.common.paths import paths
from zolite.common.text import human_bytes
from zolite.config import recipe as recipes
from zolite.data import rows as tables
from zolite.data.chat_template import chat_of, filled
from zolite.data.encode import encode
from zolite.data.examples import Example
from zolite.engine import device_memory
from zolite.engine.adapter import attach
from zolite.engine.engine import Engine
from zolite.export.readers import TOKENS, Forward, Reader, forward_of
from zolite.export.source import Trained
from zolite.export.writer import Writer
from zolite.model import load as models
from zolite.model.quant import activations

BATCH = 8  # rows a forward: whole logits are large
ROWS, PROMPTS = 32, 3  # rows whose losses are compared; prompts that are continued
NOTHING = 1e-5  # nats a token: below, an export is the bare model

# Nats a token that rounding activations so may move a row's loss by (docs/log.md).
ROUNDING = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class Measured:
    losses: list[float]  # nats a token of each row's right answer
    texts: list[list[int]]  # the prompts and what follows, greedily


@dataclass(frozen=True)
class Report:
    """Losses are nats a token, means over the rows where there is one number."""

    reader: str
    weights: str  # what zolite's own forward had
    split: str
    rows: int
    loss_session: float
    loss_export: float
    loss_base: float  # without the adapter
    effect: float  # mean distance of a row's loss in the export from that without the adapter
    apart: float  # and from the session's
    allowed: float
    same_texts: int
    texts: list[dict[str, str]]  # prompt, session, export


def check(trained: Trained, folder: Path, writer: Writer, dtype: str) -> list[Report]:
    """What each reader of a format makes of an export. Raises where it is another model than the session's."""
    split, rows = held_out(trained)
    device, sessions, reports = place(trained), {}, []
    for reader in writer.readers:
        if not reader.serves(trained):
            continue
        quant = trained.recipe.model.quant if reader.quantized else "float32"
        if quant not in sessions:
            sessions[quant] = by_zolite(trained, quant, device, rows)
        with torch.inference_mode():
            export = measured(reader.open(trained, folder, device), rows)
        gc.collect()
        computed = str(activations(quant, device)).removeprefix("torch.")
        report = _compared(trained, rows, *sessions[quant], export)
        about = {"reader": _versions(reader), "weights": quant, "split": split}
        allowed = ROUNDING[computed] + writer.rounding[dtype] + reader.rounding
        reports.append(_judged(replace(report, **about, allowed=allowed)))  # type: ignore[arg-type]
    return reports


def held_out(trained: Trained) -> tuple[str, tuple[Example, ...]]:
    """Some rows that were not trained on: test's, or dev's where there is no test."""
    recipe = trained.recipe
    try:
        dataset = tables.load(Path(recipe.data.path), recipe.data.template)
    except UsageError as error:
        raise UsageError(
            error.message, "an export is checked on these rows; --no-verify writes it unchecked"
        ) from error
    split = "test" if "test" in dataset.splits else "dev"
    all_, labels = dataset.splits[split], tuple(trained.facts["labels"])
    some = all_[:: max(1, len(all_) // ROWS)][:ROWS]
    data, chat = recipe.data, chat_of(recipe.data, trained.facts)
    tokenizer = filled(models.tokenizer(trained.source, paths()["cache"]), chat)
    rows = encode(some, dataset.kind, labels, tokenizer, data.template, data.context, split).examples
    return split, tuple(map(_right_alone, rows))


def _right_alone(row: Example) -> Example:
    """A row without its wrong answers, whose losses would cost as much each and say the same."""
    asked = [q for q in row.queries if q.candidate == row.answer]
    used = sorted({q.sequence for q in asked})
    queries = tuple(replace(q, sequence=used.index(q.sequence), candidate=0) for q in asked)
    return Example(tuple(row.sequences[i] for i in used), queries, 0, 1)


def place(trained: Trained) -> torch.device:
    """The session's device, or the CPU, whichever holds the model in float32."""
    size = 2 * sum(file.stat().st_size for file in trained.origin.glob("*.safetensors"))
    try:
        wanted = models.pick_device(trained.recipe.model.device)
    except UsageError:  # it was trained on another machine
        wanted = torch.device("cpu")
    for device in (wanted, torch.device("cpu")):
        if device_memory.budget_bytes(device) > 1.1 * size:
            return device
    free = human_bytes(device_memory.budget_bytes(torch.device("cpu")))
    raise DoesNotFit(
        f"checking the export takes the model in float32, {human_bytes(size)}; {free} of memory are free",
        "--no-verify writes it unchecked",
    )


@torch.inference_mode()
def by_zolite(
    trained: Trained, quant: str, device: torch.device, rows: Sequence[Example]
) -> tuple[Measured, list[float]]:
    """The session's adapter in zolite's own forward, and the losses without it."""
    changes = {"model.quant": quant, "adapter.space": "lora", "train.copies": 1}  # every factor is given, A's too
    recipe = recipes.resolve(recipes.override(trained.recipe, changes))
    loaded = models.load(trained.source, quant, device, paths()["cache"])
    adapter = attach(loaded, recipe)
    engine = Engine.of(loaded, adapter, recipe)
    for block in adapter.space.blocks:
        block.of(adapter.space.theta).copy_(trained.factors[block.name])
    losses = _losses(engine, rows)
    texts = continued(forward_of(loaded.model), prompts_of(rows))  # its layers read what the losses were measured at
    adapter.space.theta.zero_()
    return Measured(losses, texts), _losses(engine, rows)


def _losses(engine: Engine, rows: Sequence[Example]) -> list[float]:
    parts = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    scores = [s for part in parts for s in engine.scores(part).cpu()]
    return [-float(s[row.answer]) for s, row in zip(scores, rows, strict=True)]


def measured(forward: Forward, rows: Sequence[Example]) -> Measured:
    losses = [-float(s[row.answer]) for s, row in zip(_scores(forward, rows), rows, strict=True)]
    return Measured(losses, continued(forward, prompts_of(rows)))


def prompts_of(rows: Sequence[Example]) -> list[list[int]]:
    """The first few rows, up to where their answers begin."""
    return [list(row.sequences[0][: min(q.position for q in row.queries) + 1]) for row in rows[:PROMPTS]]


def continued(forward: Forward, prompts: Sequence[Sequence[int]], tokens: int = TOKENS) -> list[list[int]]:
    """The likeliest token after each prompt, appended, and again."""
    texts = [list(prompt) for prompt in prompts]
    for text in texts:
        for _ in range(tokens):
            text.append(int(forward([text])[0][-1].argmax()))
    return texts


@torch.inference_mode()
def accuracy(model: Any, rows: Sequence[Example]) -> float:
    """Share of rows whose right candidate has the highest mean token log-probability."""
    scores = _scores(forward_of(model), rows)
    return sum(int(s.argmax()) == row.answer for s, row in zip(scores, rows, strict=True)) / len(rows)


def _scores(forward: Forward, rows: Sequence[Example]) -> list[Tensor]:
    """Each row's candidates' scores (C,), from logits of whole sequences."""
    scores = []
    for i in range(0, len(rows), BATCH):
        batch = rows[i : i + BATCH]
        logits = iter(forward([s for row in batch for s in row.sequences]))
        for row in batch:
            own, total = [next(logits) for _ in row.sequences], torch.zeros(row.candidates)
            for q in row.queries:
                total[q.candidate] += own[q.sequence][q.position].float().log_softmax(dim=-1)[q.token].cpu()
            scores.append(total / torch.tensor([q.candidate for q in row.queries]).bincount())
    return scores


def _compared(
    trained: Trained, rows: Sequence[Example], session: Measured, base: list[float], export: Measured
) -> Report:
    tokenizer, prompts = models.tokenizer(trained.source, paths()["cache"]), prompts_of(rows)

    def answer(text: list[int], prompt: list[int]) -> str:
        return str(tokenizer.decode(text[len(prompt) :]))

    both = list(zip(prompts, session.texts, export.texts, strict=True))
    return Report(
        reader="",
        weights="",
        split="",
        rows=len(rows),
        loss_session=fmean(session.losses),
        loss_export=fmean(export.losses),
        loss_base=fmean(base),
        effect=fmean(abs(a - b) for a, b in zip(export.losses, base, strict=True)),
        apart=fmean(abs(a - b) for a, b in zip(export.losses, session.losses, strict=True)),
        allowed=0.0,
        same_texts=sum(a == b for _, a, b in both),
        texts=[
            {"prompt": str(tokenizer.decode(p)), "session": answer(a, p), "export": answer(b, p)} for p, a, b in both
        ],
    )


def _judged(report: Report) -> Report:
    if report.effect < NOTHING:
        raise ZoliteError(
            f"the adapter changes nothing: with and without it {report.reader} has the same losses on all rows",
            "train it longer or at a higher rate; --no-verify writes it all the same",
        )
    if not report.apart <= report.allowed:  # not a number is not alike
        raise ZoliteError(
            f"{report.reader} has other losses than the session: {report.loss_export:.4g} and {report.loss_session:.4g}"
            f" nats a token on average, rows {report.apart:.2g} apart where rounding explains {report.allowed:.2g}",
            "nothing was written; please report this, with the model's name (--no-verify writes it all the same)",
        )
    return report


def summary(report: Report) -> list[str]:
    """A report in a line or two; its numbers are in export.json."""
    r = report
    lines = [
        f"checked with {r.reader}: the session's losses on {r.rows} {r.split} rows, the same text on {r.same_texts} of "
        f"{len(r.texts)} prompts"
    ]
    if r.effect < r.allowed:
        lines.append("that proves little: the adapter changes losses by less than rounding may")
    return lines


def _versions(reader: Reader) -> str:
    return " + ".join(f"{name} {importlib.metadata.version(name)}" for name in reader.packages)
