"""Is an export what was trained? What it says and its losses, as other programs read it, beside the session's."""

import gc
import importlib.metadata
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from zolite.common.errors import DoesNotFit, UsageError, ZoliteError
from zolite.common.paths import paths
from zolite.common.text import human_bytes
from zolite.config import recipe as recipes
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.examples import Example, Tokens, spoken
from zolite.engine import device_memory
from zolite.engine.adapter import attach
from zolite.engine.engine import Engine
from zolite.export.readers import BATCH, Logits, Opened, Reader, forward_of, scores
from zolite.export.source import Trained, begins_by_itself, ends, longest_label, tokenizer_of
from zolite.export.writer import Writer
from zolite.model import devices
from zolite.model import load as models
from zolite.model.quant import activations

ROWS = 32  # that are compared
PROMPTS, TOKENS = 3, 8  # of rows without labels: prompts that are continued, and by how many tokens
ANSWER = 16  # tokens of a row's answer whose losses are compared: llama.cpp tells them one by one
NOTHING = 1e-5  # nats a token: below, an export is the bare model
FLIPS = 1 / 16  # of the rows may be answered otherwise by rounding alone: two of 32

# Nats a token that rounding activations so may move a row's loss by (docs/log.md).
ROUNDING = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class Asked:
    """Held-out rows with one answer each, and what follows their prompts where it is a label."""

    split: str
    rows: tuple[Example, ...]
    labels: tuple[str, ...]
    right: tuple[str, ...]  # each row's label; () where rows have none
    tokens: int  # said after a prompt, at most: of a label, its end and one more, which shows that it did not end
    # 0 of an encoder, which says nothing

    @property
    def prompts(self) -> list[Tokens]:
        """Of all rows with labels, of a few others: up to where their answers begin."""
        some = self.rows if self.right else self.rows[: PROMPTS if self.tokens else 0]
        return [row.sequences[0][: min(q.position for q in row.queries) + 1] for row in some]


@dataclass(frozen=True)
class Measured:
    losses: list[float]  # nats a token of each row's right answer
    said: list[Tokens]  # after each prompt, greedily
    alike: int  # prompts whose tokens are those that were trained on


@dataclass(frozen=True)
class Said:
    """Of the prompts of rows with labels: those answered with a label and then the end, and with the right one."""

    label: int
    right: int


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
    prompts: int  # that were answered
    prompts_alike: int  # of which this program makes the tokens that were trained on
    said_session: Said | None  # in the number format that was trained in; None where rows have no labels
    said_export: Said | None
    said_allowed: int  # rows fewer that rounding explains
    same_texts: int
    texts: list[dict[str, str]]  # prompt, session, export: of the first few


def check(trained: Trained, folder: Path, writer: Writer, dtype: str) -> list[Report]:
    """What each reader of a format makes of an export. Raises where it is another model than the session's."""
    asked, device = held_out(trained), place(trained)
    own, sessions, reports = trained.recipe.model.quant, {}, []
    for reader in writer.readers:
        if not reader.serves(trained):
            continue
        quant = own if reader.quantized else "float32"
        for needed in {quant, own} if asked.right else {quant}:
            if needed not in sessions:
                sessions[needed] = by_zolite(trained, needed, device, asked)
        with torch.inference_mode():
            export = measured(reader.open(trained, folder, device), asked, tokenizer_of(trained))
        gc.collect()
        computed = str(activations(quant, device)).removeprefix("torch.")
        allowed = ROUNDING[computed] + writer.rounding[dtype] + reader.rounding
        report = _compared(asked, *sessions[quant], export, tokenizer_of(trained))
        if asked.right:
            ours, theirs = (said(asked, m.said, tokenizer_of(trained)) for m in (sessions[own][0], export))
            report = replace(report, said_session=ours, said_export=theirs)
        reports.append(_judged(replace(report, reader=_versions(reader), weights=quant, allowed=allowed)))
    return reports


def held_out(trained: Trained) -> Asked:
    """Some rows that were not trained on: test's, or dev's where there is no test."""
    recipe = trained.recipe
    try:
        dataset = tables.of(recipe.data)
    except UsageError as error:
        raise UsageError(
            error.message, "an export is checked on these rows; --no-verify writes it unchecked"
        ) from error
    split = "test" if "test" in dataset.splits else "dev"
    all_, labels = dataset.splits[split], tuple(trained.facts["labels"])
    some = all_[:: max(1, len(all_) // ROWS)][:ROWS]
    tokenizer, data = tokenizer_of(trained), recipe.data
    rows = encode(some, dataset.kind, labels, tokenizer, data.template, data.context, split).examples
    if not labels or trained.encoder:
        tokens = 0 if trained.encoder else TOKENS
        return Asked(split, tuple(_short(_right_alone(row)) for row in rows), (), (), tokens)
    right = tuple(labels[row.answer] for row in rows)
    return Asked(
        split, tuple(_short(spoken(row)) for row in rows), labels, right, longest_label(trained, tokenizer) + 2
    )


def _right_alone(row: Example) -> Example:
    """A row without its wrong answers, whose losses would cost as much each and say the same."""
    asked = [q for q in row.queries if q.candidate == row.answer]
    used = sorted({q.sequence for q in asked})
    queries = tuple(replace(q, sequence=used.index(q.sequence), candidate=0) for q in asked)
    return Example(tuple(row.sequences[i] for i in used), queries, 0, 1)


def _short(row: Example) -> Example:
    """A row whose one answer is cut behind its first tokens."""
    return replace(row, queries=row.queries[:ANSWER])


def place(trained: Trained) -> torch.device:
    """The session's device, or the CPU, whichever holds the model in float32."""
    size = 2 * trained.base_bytes
    try:
        wanted = devices.pick(trained.recipe.model.device)
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
def by_zolite(trained: Trained, quant: str, device: torch.device, asked: Asked) -> tuple[Measured, list[float]]:
    """The session's adapter in zolite's own forward, and the losses without it."""
    changes = {"model.quant": quant, "adapter.space": "lora", "train.copies": 1}  # every factor is given, A's too
    recipe = recipes.resolve(recipes.override(trained.recipe, changes))
    loaded = models.load(trained.source, quant, device, paths()["cache"])
    adapter = attach(loaded, recipe)
    engine = Engine.of(loaded, adapter, recipe)
    for block in adapter.space.blocks:
        block.of(adapter.space.theta).copy_(trained.factors[block.name])
    losses = _losses(engine, asked.rows)
    stops = {*ends(trained, tokenizer_of(trained)), *(row.text[-1] for row in asked.rows if row.text)}
    said = Logits(forward_of(loaded.model), stops).generated(asked.prompts, asked.tokens)  # what the losses came from
    adapter.space.theta.zero_()
    return Measured(losses, said, len(said)), _losses(engine, asked.rows)


def _losses(engine: Engine, rows: Sequence[Example]) -> list[float]:
    parts = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    found = [s for part in parts for s in engine.scores(part).cpu()]
    return [-float(s[row.answer]) for s, row in zip(found, rows, strict=True)]


def measured(opened: Opened, asked: Asked, tokenizer: Any) -> Measured:
    """A program that is given texts is given the prompts' texts, and makes its own tokens of them."""
    typed = [opened.typed(_text(tokenizer, prompt)) for prompt in asked.prompts]
    prompts = [prompt if own is None else own for prompt, own in zip(asked.prompts, typed, strict=True)]
    alike = sum(a == b for a, b in zip(asked.prompts, prompts, strict=True))
    return Measured(opened.losses(asked.rows), opened.generated(prompts, asked.tokens), alike)


def _text(tokenizer: Any, prompt: Tokens) -> str:
    """As a user types it: without the token that a tokenizer puts there by itself."""
    text = str(tokenizer.decode(prompt, clean_up_tokenization_spaces=False))
    return text.removeprefix(tokenizer.bos_token) if begins_by_itself(tokenizer) else text


@torch.inference_mode()
def accuracy(model: Any, rows: Sequence[Example]) -> float:
    """Share of rows whose right candidate has the highest mean token log-probability."""
    found = scores(forward_of(model), rows)
    return sum(int(s.argmax()) == row.answer for s, row in zip(found, rows, strict=True)) / len(rows)


def said(asked: Asked, answers: Sequence[Tokens], tokenizer: Any) -> Said:
    """Of answers that ended, with the token that ended them: those that are a label and nothing else."""
    ended = [str(tokenizer.decode(a[:-1])).strip() if 0 < len(a) < asked.tokens else None for a in answers]
    return Said(
        label=sum(text in asked.labels for text in ended),
        right=sum(text == right for text, right in zip(ended, asked.right, strict=True)),
    )


def _compared(asked: Asked, session: Measured, base: list[float], export: Measured, tokenizer: Any) -> Report:
    triples = list(zip(asked.prompts, session.said, export.said, strict=True))[:PROMPTS]
    return Report(
        reader="",
        weights="",
        split=asked.split,
        rows=len(asked.rows),
        loss_session=fmean(session.losses),
        loss_export=fmean(export.losses),
        loss_base=fmean(base),
        effect=fmean(abs(a - b) for a, b in zip(export.losses, base, strict=True)),
        apart=fmean(abs(a - b) for a, b in zip(export.losses, session.losses, strict=True)),
        allowed=0.0,
        prompts=len(asked.prompts),
        prompts_alike=export.alike,
        said_session=None,
        said_export=None,
        said_allowed=math.ceil(FLIPS * len(asked.prompts)),
        same_texts=sum(a == b for _, a, b in triples),
        texts=[dict(zip(("prompt", "session", "export"), map(tokenizer.decode, t), strict=True)) for t in triples],
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
    ours, theirs = report.said_session, report.said_export
    if ours and theirs and max(ours.label - theirs.label, ours.right - theirs.right) > report.said_allowed:
        others = report.prompts - report.prompts_alike
        raise ZoliteError(
            f"{report.reader} answers worse than the session: of {report.prompts} {report.split} rows {theirs.label} "
            f"with a label and the end and {theirs.right} with the right one, the session {ours.label} and "
            f"{ours.right}, where rounding explains {report.said_allowed}"
            + (f"; it makes other tokens of {others} prompts than those trained on" if others else ""),
            "nothing was written; please report this, with the model's name (--no-verify writes it all the same)",
        )
    return report


def summary(report: Report) -> list[str]:
    """A report in a line or a few; its numbers are in export.json."""
    r = report
    losses = f", the session's losses on {r.rows} {r.split} rows" if r.prompts else ""
    lines = [f"checked with {r.reader}: {answers(r)}{losses}"]
    if r.prompts_alike < r.prompts:
        lines.append(f"it makes other tokens of {r.prompts - r.prompts_alike} of {r.prompts} prompts than trained on")
    if r.said_session and 2 * r.said_session.label < r.prompts:
        lines.append("greedy text is seldom a label: it is for programs that compare the labels' probabilities")
    if r.effect < r.allowed:
        lines.append("that proves little: the adapter changes losses by less than rounding may")
    return lines


def answers(r: Report) -> str:
    """What an export says, in half a sentence."""
    if not r.prompts:
        return f"the session's losses on {r.rows} {r.split} rows"
    if not (r.said_session and r.said_export):
        return f"the same text on {r.same_texts} of {len(r.texts)} prompts"
    return (
        f"it says a label and stops on {r.said_export.label} of {r.prompts} {r.split} rows, the right one on "
        f"{r.said_export.right} (the session {r.said_session.label} and {r.said_session.right})"
    )


def _versions(reader: Reader) -> str:
    return " + ".join(f"{name} {importlib.metadata.version(name)}" for name in reader.packages)
