"""What a run says while it runs: plain dataclasses, one JSON object a line."""

import json
import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, TypeVar, get_type_hints

from zolite.common.text import json_text

D = TypeVar("D")
LARGEST = 2**63


@dataclass(frozen=True)
class Working:
    """What is being done before a run's first step, or between two: said before it begins, and every other second."""

    phase: str  # such as "reading rows"
    done: int
    total: int  # 0 where it is not known
    seconds: float = 0.0  # since it began
    left: float = math.nan  # seconds that the rest takes; not a number where that is not known


@dataclass(frozen=True)
class Started:
    """The session is open, the model is loaded, step `step` comes next."""

    session: str
    step: int
    steps: int
    device: str
    trainable: int  # numbers trained
    budget_bytes: int  # memory that was free for this run when it began, the model included


@dataclass(frozen=True)
class StepDone:
    """One optimisation step, numbered from 1. `loss` is the mean over the points measured."""

    step: int
    loss: float
    lr: float
    seconds: float  # wall time of this step, averaged over the journal batch it came in
    memory_bytes: int
    peak_bytes: int
    padding: float = 0.0  # share of the batch's tokens that only fill up its sequences
    skipped: bool = False  # the loss was not finite, so nothing was added
    smooth: float = math.nan  # the loss's running mean over some 20 steps


@dataclass(frozen=True)
class Evaluated:
    """`metric` is "accuracy" (0 to 1) where rows have labels, "loss" (nats a token) elsewhere.

    Accuracy is of the best among the labels. What the model writes by itself, greedily, is `says` and `said_right`.
    These and `majority` are not numbers where rows have no labels, or where nobody measured them.
    """

    step: int
    split: str
    metric: str
    value: float
    rows: int
    seconds: float
    says: float = math.nan  # share of rows (0 to 1) whose text is a label and nothing else, and ends there
    said_right: float = math.nan  # and the right one
    majority: float = math.nan  # accuracy of always choosing the label that most of the rows have


@dataclass(frozen=True)
class Sampled:
    """What the model writes, greedily, for one of a few rows of dev, always the same ones. " …" ends what was cut."""

    step: int
    row: int  # which of them, from 1
    prompt: str  # its end
    before: str  # without the adapter
    now: str
    reference: str  # the right answer


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on disk, whole."""

    step: int
    path: str
    digest: str = ""  # of its numbers; of old journals it is not known


@dataclass(frozen=True)
class Noted:
    """Something a person should know. `level` is "info", "warning", or "detail" for what only an expert asks for."""

    level: str
    message: str


@dataclass(frozen=True)
class Paused:
    """The run was asked to wait, and does, with a checkpoint of this step."""

    step: int


@dataclass(frozen=True)
class Continued:
    """The run goes on after a pause."""

    step: int


@dataclass(frozen=True)
class Exported:
    """An adapter was written."""

    step: int
    path: str


@dataclass(frozen=True)
class Finished:
    """The run ended. `reason` is "done", "interrupted" or "diverged"; "ready" where its later steps were taken back, or
    a fork begins: no run ended there, and the next one goes on.
    """

    step: int
    reason: str
    seconds: float
    skipped: int
    peak_bytes: int


@dataclass(frozen=True)
class Concluded:
    """Whether a run that is done was worth it: made of its other events, so that every view says the same.

    Scores are as in Evaluated, of one split at one metric. Texts of several lines are one string.
    """

    step: int  # its last
    best: int  # the step that `after` is of
    verdict: str  # "better", "perhaps", "same", "worse" or "unknown"
    text: str  # the same in a sentence
    split: str = ""
    metric: str = ""
    rows: int = 0
    before: float = math.nan
    after: float = math.nan
    low: float = math.nan  # 95 % interval of an accuracy `after`
    high: float = math.nan
    majority: float = math.nan
    advice: str = ""  # what to try where it is not better, a line each
    commands: str = ""  # what comes next, a line each: the command, two spaces, #, what it does


Event = (
    Working
    | Started
    | StepDone
    | Evaluated
    | Sampled
    | Saved
    | Noted
    | Paused
    | Continued
    | Exported
    | Finished
    | Concluded
)

TYPES: dict[str, type[Event]] = {
    t.__name__.lower(): t
    for t in (
        Working,
        Started,
        StepDone,
        Evaluated,
        Sampled,
        Saved,
        Noted,
        Paused,
        Continued,
        Exported,
        Finished,
        Concluded,
    )
}


def to_json(event: Event) -> str:
    """One line: {"event": "stepdone", …}. JSON knows no NaN: numbers that are not finite become null."""
    fields = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(event).items()}
    return json_text({"event": type(event).__name__.lower(), **fields})


def from_json(line: str) -> Event:
    """The inverse of `to_json`; null becomes NaN. Raises ValueError for what is no event."""
    try:
        fields: dict[str, Any] = json.loads(line)
        known: dict[str, Any] = {k: math.nan if v is None else v for k, v in fields.items()}
        return typed(TYPES[known.pop("event")](**known))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{str(line)[:40]!r} is no event") from error


def typed(row: D) -> D:
    """A dataclass of plain fields as it is, if its values are of the types it says; ValueError if not."""
    kind_of_row: Any = type(row)
    for name, kind in _kinds(kind_of_row).items():
        value = getattr(row, name)
        right = isinstance(value, int | float if kind is float else kind) and not (kind is int and value is True)
        if not right or (isinstance(value, int) and abs(value) >= LARGEST):
            raise ValueError(f"{name} is {str(value)[:40]!r}, which is no {kind.__name__}")
    return row


@cache
def _kinds(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
