"""Rows of published tasks as their prompts want them: what no template can say, such as a missing question mark.

Prompts and words are in profiles/tasks. A record is as the hub has it, or with names for labels in the place of
numbers; a column that a record does not have is left to the checks of rows.
"""

from collections.abc import Callable

from zolite.data.readers.reader import Record


def made(task: str, record: Record) -> Record:
    """The record with the columns that the task's template and kind read. `task` is a name in profiles/tasks, or ""."""
    return record | MADE[task](record) if task in MADE else record


def _sst2(record: Record) -> Record:
    return _with(record, "sentence", str.strip)


def _boolq(record: Record) -> Record:
    """A question with a capital and its mark; the hub calls the label answer."""
    label = {"label": record["answer"]} if "label" not in record and "answer" in record else {}
    return label | _with(record, "question", lambda text: _capital(text if text.endswith("?") else f"{text}?"))


def _wsc(record: Record) -> Record:
    return _with(record, "span2_text", str.lower)


def _copa(record: Record) -> Record:
    """The premise goes on with so or because, and then with a choice."""
    words = {"cause": "because", "effect": "so"}
    choices = {name: _small(record[name]) for name in ("choice1", "choice2") if isinstance(record.get(name), str)}
    asked = record.get("question")
    more = {"conjunction": words[asked]} if isinstance(asked, str) and asked in words else {}
    answer = {"answer": record["label"]} if "label" in record else {}
    return more | answer | {"choices": choices} | _with(record, "premise", lambda text: text.rstrip().removesuffix("."))


def _record(record: Record) -> Record:
    """Each entity in the place of the sentence's gap. Of several right ones the first counts."""
    query, entities, answers = (record.get(name) for name in ("query", "entities", "answers"))
    if not (isinstance(query, str) and isinstance(entities, list) and isinstance(answers, list) and answers):
        return {}
    filled = [query.replace("@placeholder", str(each)) for each in dict.fromkeys([*entities, answers[0]])]
    made = {"choices": filled, "answer": query.replace("@placeholder", str(answers[0]))}
    return made | _with(record, "passage", lambda text: text.replace("@highlight\n", "- "))


def _squad(record: Record) -> Record:
    return _with(record, "question", str.strip)


def _drop(record: Record) -> Record:
    names = {"context": "passage", "answer": "answers_spans"}
    moved = {name: record[own] for name, own in names.items() if own in record and name not in record}
    return moved | _with(record, "question", str.strip)


MADE: dict[str, Callable[[Record], Record]] = {
    "sst2": _sst2,
    "boolq": _boolq,
    "wsc": _wsc,
    "copa": _copa,
    "record": _record,
    "squad": _squad,
    "drop": _drop,
}
"""Of the tasks whose prompts want it."""


def _with(record: Record, column: str, change: Callable[[str], str]) -> Record:
    """The column changed, where it is a text."""
    value = record.get(column)
    return {column: change(value)} if isinstance(value, str) and value else {}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _small(text: str) -> str:
    """With a first word in small letters, but for I."""
    first, space, rest = text.partition(" ")
    return text if first == "I" else first.lower() + space + rest
