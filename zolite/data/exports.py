"""Records as programs and publishers nest them, as the plain rows that they hold: one record may hold several.

plain(record)     rows, or what is wrong in the place of one; most records are themselves
name_of(record)   what it is an export of, or ""
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from zolite.data.readers.reader import Record

Held = Iterator[Record | str]
ROLES = {"prompter": "user", "human": "user"}


@dataclass(frozen=True)
class Export:
    name: str
    keys: frozenset[str]
    """that every record has"""
    fits: Callable[[Record], bool]
    rows: Callable[[Record], Held]


def plain(record: Record) -> Held:
    for export in _likely(tuple(record)):
        if export.fits(record):
            yield from export.rows(record)
            return
    yield record


@functools.lru_cache(64)
def _likely(keys: tuple[str, ...]) -> tuple[Export, ...]:
    return tuple(export for export in EXPORTS if export.keys <= set(keys))


def name_of(record: Record) -> str:
    found = (export.name for export in EXPORTS if export.keys <= record.keys() and export.fits(record))
    return next(found, "")


# ---- questions


def _squad(record: Record) -> Held:
    for paragraph in _objects(record["paragraphs"]):
        for asked in _objects(paragraph.get("qas")):
            answers = [answer.get("text") for answer in _objects(asked.get("answers"))]
            yield {"context": paragraph.get("context"), "question": asked.get("question"), "answers": answers}


def _arc(record: Record) -> Held:
    choices = _objects(record["question"].get("choices"))
    listed = {key: [choice.get(key) for choice in choices] for key in ("text", "label")}
    yield record | {"question": record["question"].get("stem"), "choices": listed}


# ---- labels


def _label_studio(record: Record) -> Held:
    """What annotators chose, of a task's first annotation that was not cancelled."""
    given = next((each for each in _objects(record["annotations"]) if not each.get("was_cancelled")), {})
    values = [each.get("value") for each in _objects(given.get("result"))]
    chosen = [value["choices"] for value in values if isinstance(value, dict) and value.get("choices")]
    if not chosen:
        yield f"the task has {'an annotation without' if given else 'no annotation, and so no'} choices"
    else:
        yield record["data"] | {"label": chosen[0]}


# ---- conversations


def _chatgpt(record: Record) -> Held:
    """The messages from the last one that was shown back to the first."""
    nodes, at, found = record["mapping"], record["current_node"], list[dict[str, str]]()
    for _ in range(len(nodes)):
        node = nodes.get(at) or {}
        message = node.get("message") or {}
        role, content = (message.get("author") or {}).get("role"), message.get("content") or {}
        text = "".join(part for part in content.get("parts") or () if isinstance(part, str))
        if role in ("system", "user", "assistant") and text.strip():
            found.append({"role": role, "content": text})
        at = node.get("parent")
    yield {"messages": found[::-1]} if found else "the conversation has no text"


def _assistant_tree(record: Record) -> Held:
    """Along the best reply to each message."""
    at, found = record["prompt"], list[dict[str, Any]]()
    while isinstance(at, dict):
        role = at.get("role")
        found.append({"role": ROLES.get(str(role), role), "content": at.get("text")})
        replies = _objects(at.get("replies"))
        at = min(replies, key=lambda each: float("inf") if each.get("rank") is None else each["rank"], default=None)
    yield {"messages": found}


def _turns(record: Record) -> Held:
    yield {"messages": [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(record["data"])]}


def _translation(record: Record) -> Held:
    yield {key: value for key, value in record.items() if key != "translation"} | record["translation"]


def _objects(value: Any) -> Sequence[Record]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _is(key: str, kind: type) -> Callable[[Record], bool]:
    return lambda record: isinstance(record[key], kind)


EXPORTS = (
    Export("SQuAD's own JSON", frozenset({"paragraphs"}), _is("paragraphs", list), _squad),
    Export("ARC's own JSON", frozenset({"question", "answerKey"}), _is("question", dict), _arc),
    Export("Label Studio", frozenset({"data", "annotations"}), _is("data", dict), _label_studio),
    Export("ChatGPT's export", frozenset({"mapping", "current_node"}), _is("mapping", dict), _chatgpt),
    Export("OpenAssistant's trees", frozenset({"prompt", "message_tree_id"}), _is("prompt", dict), _assistant_tree),
    Export(
        "turns in a list",
        frozenset({"data"}),
        lambda r: r.keys() <= {"id", "data"} and isinstance(r["data"], list) and {*map(type, r["data"])} == {str},
        _turns,
    ),
    Export("translations", frozenset({"translation"}), _is("translation", dict), _translation),
)
