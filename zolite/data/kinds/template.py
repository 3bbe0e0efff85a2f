"""Templates of prompts: text with columns in braces. Where the answer's column is named too, it is the last one.

{text}\\nCategory: {label}          {Category (final)}: any column's name stands in braces as it is
{"a {b}"} {{not a column}}         a name with braces or quotes is a JSON string; doubled braces are braces
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from zolite.common.errors import UsageError

HINT = 'for example --template "{text}\\nCategory: {label}", or for prompts --template "{instruction}\\n{input}\\n"'
LABEL = "label"  # a template that names this column is of rows with labels
_PARTS = re.compile(r'\{\{|\}\}|\{"(?:[^"\\]|\\.)*"\}|\{[^{}]*\}|[^{}]+|.', re.DOTALL)


@dataclass(frozen=True)
class Template:
    """A template cut where the answer begins."""

    before: tuple[tuple[str, str], ...]
    """(literal text, the column after it)"""
    end: str
    """literal text between the last of them and the answer"""
    gap: str
    """white space in front of the answer, which belongs to it: tokens begin with a space rather than end with one"""
    after: tuple[tuple[str, str], ...] = ()
    """as `before`, behind the answer, where only an encoder can have something"""
    last: str = ""
    """literal text behind the last of those"""

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the prompt, each once."""
        return tuple(dict.fromkeys(name for _, name in (*self.before, *self.after)))

    @property
    def around(self) -> bool:
        """Is there text behind the answer?"""
        return bool(self.after or self.last)

    def prompt(self, values: Mapping[str, str]) -> str:
        return _filled(self.before, values) + self.end

    def behind(self, values: Mapping[str, str]) -> str:
        """What follows the answer."""
        return _filled(self.after, values) + self.last


def _filled(parts: tuple[tuple[str, str], ...], values: Mapping[str, str]) -> str:
    return "".join(text + values[name] for text, name in parts)


@functools.cache
def parsed(template: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """((literal text, the column after it), …), the text behind the last column; UsageError where braces do not fit."""
    found: list[tuple[str, str]] = []
    literal = ""
    for part in _PARTS.findall(template):
        if part in ("{{", "}}"):
            literal += part[0]
        elif part in ("{", "}"):
            what = f"data.template {template!r} has a single {part!r}: {part * 2} is that character, {{name}} a column"
            raise UsageError(what, HINT)
        elif part[0] == "{":
            found.append((literal, _name(part, template)))
            literal = ""
        else:
            literal += part
    return tuple(found), literal


def _name(part: str, template: str) -> str:
    inside = part[1:-1]
    if not inside:
        raise UsageError(f"data.template {template!r} has {{}}, which names no column", HINT)
    try:
        return str(json.loads(inside)) if inside[0] == '"' else inside
    except ValueError:
        raise UsageError(f"data.template {template!r} has {part}, which is not a JSON string", HINT) from None


def spelled(name: str) -> str:
    """A column in braces, as a template names it."""
    return "{" + (json.dumps(name, ensure_ascii=False) if set(name) & set('{}"') or not name else name) + "}"


def of_prompts(template: str) -> bool:
    """Is it a template of prompts? One that names {label} is of rows with labels."""
    return bool(template) and all(name != LABEL for _, name in parsed(template)[0])


@functools.cache
def answering(template: str, answers: frozenset[str]) -> Template:
    """The template of a prompt. A last column that is one of `answers` is where the answer stands.

    Raises UsageError where text follows the answer, or the prompt has no column.
    """
    found, tail = parsed(template)
    if not found or found[-1][1] not in answers:
        named = Template(found, tail, "")
    elif tail.strip():
        raise UsageError(f"data.template {template!r} has text behind the answer {spelled(found[-1][1])}", HINT)
    else:
        last = found[-1][0]
        named = Template(found[:-1], last.rstrip(), last[len(last.rstrip()) :])
    if not named.before:
        raise UsageError(f"data.template {template!r} names no column of a prompt", HINT)
    return named


@functools.cache
def labelled(template: str) -> Template:
    """The template of rows with labels; UsageError where {label} does not stand in it once, beside another column."""
    found, tail = parsed(template)
    names = [name for _, name in found]
    if names.count(LABEL) != 1:
        raise UsageError(f"data.template {template!r} does not have {{label}} once", HINT)
    if len(found) == 1:
        raise UsageError(f"data.template {template!r} names no column besides label", HINT)
    at = names.index(LABEL)
    text, after = found[at][0], found[at + 1 :]
    end = text.rstrip()
    return Template(found[:at], end, text[len(end) :], after, tail if after or tail.strip() else "")
