"""Scores a session's adapter, or a model as it is, on rows; the base model without the adapter beside it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from zolite.common.errors import UsageError
from zolite.common.events import Evaluated, Noted
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.examples import Example, answers_of
from zolite.data.kinds.kind import Row
from zolite.data.kinds.registry import KINDS
from zolite.data.rows import Dataset
from zolite.engine.batch import sample
from zolite.engine.engine import Engine
from zolite.model.devices import speed
from zolite.monitor.classification import Choices, Report, choices_of, report_of
from zolite.monitor.text_scores import Answer, Measured, TextReport, mean, perplexity, score_of
from zolite.monitor.text_scores import report_of as text_report
from zolite.training import few_shot
from zolite.training.evaluate import Prediction, figures, predictions, row_nats
from zolite.training.generate import positions, write
from zolite.training.greedy import Verbalizer
from zolite.training.out_of_memory import in_parts
from zolite.training.questions import Question, decoded, most_tokens, questions
from zolite.training.target import Target, opened

FEW_SHOT_TOKENS = 2048  # of a row with examples before it, where the model has as many positions
# Rows that are answered in text, where no other number is asked for: each token of an answer is a forward.
ANSWERED = {"cuda": 200, "cpu": 40}
AT_ONCE = {"cuda": 16, "cpu": 4}  # times the tokens of an evaluation's forward, in a batch of answers


@dataclass(frozen=True)
class Scored:
    """One model on the rows. What their shape does not have is None or empty."""

    event: Evaluated
    predictions: Sequence[Prediction] = ()  # of rows with candidates, one each
    report: Report | None = None  # of labels
    choices: Choices | None = None  # of candidates, by log-likelihood
    loss: Measured | None = None  # nats a token, of rows without candidates
    answers: Sequence[Answer] = ()  # to Scores.questions
    texts: TextReport | None = None  # of the answers

    @property
    def figures(self) -> dict[str, Measured]:
        """Every figure of candidates or of texts that has an interval, by its name."""
        c, t = self.choices, self.texts
        found: dict[str, Measured] = {}
        if self.loss:
            found |= {"loss": self.loss, "perplexity": perplexity(self.loss)}
        if t:
            texts = {"exact_match": t.exact_match, "f1": t.f1, "rouge_l": t.rouge_l, "bleu": t.bleu}
            found |= {name: figure for name, figure in texts.items() if figure}
        if c:
            found |= {"acc": Measured(c.acc, c.acc_interval), "acc_norm": Measured(c.acc_norm, c.acc_norm_interval)}
        return found


@dataclass(frozen=True)
class FewShot:
    """The base model with examples from train before each prompt."""

    scored: Scored
    count: int  # examples that were asked for
    fitted: tuple[int, ...]  # how many each row had room for


@dataclass(frozen=True)
class Scores:
    """A target on rows. `base`: the same weights without the adapter; None where a model was asked for, or nobody."""

    target: str
    labels: tuple[str, ...]
    rows: Sequence[Row]
    prompts: tuple[str, ...]  # as they are put into tokens
    tuned: Scored
    base: Scored | None
    few_shot: FewShot | None = None
    questions: tuple[Question, ...] = ()  # rows that were answered in text


@dataclass(frozen=True)
class Wanted:
    """What is scored beside the target."""

    base: bool = True  # without examples, where the target is a session
    few_shot: int = 0  # examples before the base model's prompts; 0: not with examples
    answers: int | None = None  # rows that are answered in text, at most; None: as many as the device has time for
    each_row: bool = False  # each row's part is asked for, and not the figures alone


@dataclass(frozen=True)
class _Sheet:
    """What is put to a model: rows as tokens, and of some of them what they should be answered with."""

    split: str
    examples: Sequence[Example]
    questions: tuple[Question, ...]
    most: int  # new tokens of an answer
    words: Verbalizer
    tokenizer: Any


def score(target: str, data: Path, changes: dict[str, Any]) -> Evaluated:
    """`target` names a session if there is one of that name, else a model."""
    return scores(target, data, changes, Wanted(base=False, answers=0)).tuned.event


def scores(target: str, data: Path, changes: dict[str, Any], wanted: Wanted | None = None) -> Scores:
    """The same with all that was found."""
    found, wanted, path = Target.of(target, changes), wanted or Wanted(), data.expanduser()
    dataset = tables.of_for_eval(replace(found.recipe.data, path=str(path)), found.labels)
    if wanted.each_row and not _has_answers(dataset, found.recipe.data.template):
        raise UsageError(f"the rows at {data} are plain text, and nothing is chosen or answered", "leave out --out")
    return _scored(found, dataset, wanted, _shots(found, dataset, path, wanted.few_shot))


def _shots(target: Target, dataset: Dataset, data: Path, count: int) -> tuple[Row, ...]:
    """Examples from the folder's train rows; where one file was given, from those that the session was trained on."""
    if not count:
        return ()
    where = data if data.is_dir() else target.trained_on
    if where is None:
        raise UsageError(f"{data} has no train rows to take examples from", "give a folder with train and test rows")
    other = tables.of(replace(target.recipe.data, path=str(where)))
    if other.kind != dataset.kind:
        raise UsageError(f"train has {other.kind} rows, {data} has {dataset.kind} rows", "give rows of one shape")
    (asked,) = dataset.splits.values()
    return few_shot.chosen(other.splits["train"], count, asked)


def _scored(target: Target, dataset: Dataset, wanted: Wanted, shots: tuple[Row, ...]) -> Scores:
    words, r = target.words(), target.recipe.data
    tokenizer = words.tokenizer
    ((split, rows),) = dataset.splits.items()
    file = dataset.files[split]
    encoded = encode(rows, dataset.kind, dataset.labels, tokenizer, r.template, r.context, file, *words.limits)
    engine = opened(target, FEW_SHOT_TOKENS if shots else 0)
    verbalizer = Verbalizer.of(dataset.labels, tokenizer, engine.loaded.model)
    most = ANSWERED[speed(engine.loaded.device)] if wanted.answers is None else wanted.answers
    plain = partial(_sheet, dataset, r.template, Path(file).stem, verbalizer, tokenizer, most)
    sheet, base, few = plain(encoded.examples, encoded.origins), None, None
    tuned = _measured(engine, sheet, target.step)
    with engine.as_base():
        if target.fill is not None and wanted.base:
            base = _measured(engine, sheet, 0)
        if shots:
            room = max(r.context, min(FEW_SHOT_TOKENS, positions(engine.loaded.model)))
            how = few_shot.Rendering(dataset.kind, dataset.labels, r.template, tokenizer, room)
            put = few_shot.with_shots(rows, encoded.examples, encoded.origins, shots, how)
            few = FewShot(_measured(engine, plain(put.examples, put.origins), 0), len(shots), put.fitted)
    prompts = tuple(_prompt(row, dataset.kind, r.template) for row in rows)
    return Scores(target.name, dataset.labels, rows, prompts, tuned, base, few, sheet.questions)


def _sheet(
    dataset: Dataset,
    template: str,
    split: str,
    words: Verbalizer,
    tokenizer: Any,
    most: int,
    examples: Sequence[Example],
    origins: Sequence[int],
) -> _Sheet:
    """Rows with labels are not answered in text: what is said of them is a label, or not."""
    (rows,) = dataset.splits.values()
    asked: list[Question] = []
    if most and not dataset.labels:
        every = questions(rows, examples, origins, dataset.kind, template, tokenizer, words.ends)
        asked = sample(list(every), most)
    return _Sheet(split, examples, tuple(asked), most_tokens(asked, tokenizer) if asked else 0, words, tokenizer)


def _measured(engine: Engine, sheet: _Sheet, step: int) -> Scored:
    """At theta, as evaluations of a run are; in smaller forwards where the memory is short."""
    *_, found = in_parts(partial(_of_rows, engine, sheet, step), sheet.examples, step)
    assert not isinstance(found, Noted)  # those come before, and say that it took smaller forwards
    return found


def _of_rows(engine: Engine, sheet: _Sheet, step: int, tokens: int) -> Scored:
    began, rows = time.monotonic(), sheet.examples
    found = (_chosen if rows[0].candidates > 1 else _read)(engine, sheet, tokens)
    seconds = time.monotonic() - began
    values = figures(found.predictions) if found.loss is None else {"value": found.loss.value}
    event = Evaluated(step, sheet.split, rows[0].metric, rows=len(rows), seconds=seconds, **values)
    answers = _answers(engine, sheet, tokens) if sheet.questions else ()
    return Scored(
        event,
        found.predictions,
        found.report,
        found.choices,
        found.loss,
        answers,
        text_report(answers) if answers else None,
    )


@dataclass(frozen=True)
class _Found:
    """What forwards alone tell of the rows."""

    predictions: Sequence[Prediction] = ()
    report: Report | None = None
    choices: Choices | None = None
    loss: Measured | None = None


def _chosen(engine: Engine, sheet: _Sheet, tokens: int) -> _Found:
    """Of rows with candidates: which one is likeliest; of those with labels also what is said."""
    labels, rows = sheet.words.labels, sheet.examples
    found = predictions(engine, rows, tokens, sheet.words if labels else None)
    right = [p.right for p in found]
    sizes = [[len(decoded(ids, sheet.tokenizer).encode()) for ids in answers_of(row)] for row in rows]
    choices = choices_of(right, [p.sums for p in found], sizes)
    return _Found(found, report_of(labels, right, [p.ranked for p in found]) if labels else None, choices)


def _read(engine: Engine, sheet: _Sheet, tokens: int) -> _Found:
    """Of other rows: how surprising their answers are."""
    counts = [len(row.queries) for row in sheet.examples]
    return _Found(loss=mean(row_nats(engine, sheet.examples, tokens), counts))


def _answers(engine: Engine, sheet: _Sheet, tokens: int) -> list[Answer]:
    prompts = [question.prompt for question in sheet.questions]
    written = write(engine, prompts, sheet.most, sheet.words.ends, AT_ONCE[speed(engine.loaded.device)] * tokens)
    return [
        score_of(decoded(each.ids, sheet.tokenizer), question.references, each.ended)
        for each, question in zip(written, sheet.questions, strict=True)
    ]


def _has_answers(dataset: Dataset, template: str) -> bool:
    """Has any row a prompt?"""
    (rows,) = dataset.splits.values()
    return any(_prompt(row, dataset.kind, template).strip() for row in rows)


def _prompt(row: Row, kind: str, template: str) -> str:
    return "".join(piece.text for piece in KINDS[kind].pieces(row, template) if not piece.trained)


# --- row by row -------------------------------------------------------------------------------------------------------


def records(found: Scores) -> Iterator[dict[str, Any]]:
    """A row with candidates or an answer each: where it stands, its prompt, and what each model made of it.

    Of rows with labels: which was chosen with which shares, and what was said, to its end or to where it could be no
    label any more. Of others: what was written, beside its references. `base` and `few_shot` have the same of the base
    model, where it was scored.
    """
    beside = {"base": found.base, "few_shot": found.few_shot.scored if found.few_shot else None}
    others = {name: scored for name, scored in beside.items() if scored}
    for i, (at, about, how) in enumerate(_about(found)):
        row = {"line": found.rows[at].line, "prompt": found.prompts[at]} | about
        yield row | how(found.tuned, i) | {name: how(scored, i) for name, scored in others.items()}


Told = Callable[[Scored, int], dict[str, Any]]


def _about(found: Scores) -> Iterator[tuple[int, dict[str, Any], Told]]:
    """(place of a row, what it should be answered with, what tells of a model's part in it)."""
    for question in found.questions:
        yield question.row, {"references": list(question.references)}, lambda scored, i: _written(scored.answers[i])
    for at, prediction in enumerate(found.tuned.predictions if not found.questions else ()):
        if found.labels:
            yield at, {"label": found.labels[prediction.right]}, lambda s, i: _label(s.predictions[i], found.labels)
        else:
            yield at, {"right": prediction.right}, lambda s, i: _candidate(s.predictions[i])


def _label(prediction: Prediction, labels: Sequence[str]) -> dict[str, Any]:
    shares = {label: round(share, 6) for label, share in zip(labels, prediction.shares, strict=True)}
    said = {"said": prediction.said.text, "says_label": prediction.said.label is not None} if prediction.said else {}
    return {"ranked": labels[prediction.ranked], "probabilities": shares, **said}


def _candidate(prediction: Prediction) -> dict[str, Any]:
    return {"ranked": prediction.ranked, "log_likelihoods": [round(each, 6) for each in prediction.sums]}


def _written(answer: Answer) -> dict[str, Any]:
    told = {"exact_match": answer.exact, "f1": round(answer.f1, 6), "ended": answer.ended}
    return {"answer": answer.text, **told}
