"""Claims about templates: any column can be named, and those of older versions mean what they meant."""

from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.common.errors import UsageError
from zolite.data.kinds.template import answering, labelled, of_prompts, parsed, spelled


def test_templates_are_read() -> None:
    """Doubled braces are braces, and whitespace after the label is nothing."""
    found = labelled("{{{a b}}} {text}\n{{x}}: {label}\n")
    assert (found.before, found.end, found.gap) == ((("{", "a b"), ("} ", "text")), "\n{x}:", " ")
    assert labelled("{a} {b} {a} {label}").columns == ("a", "b")


@given(st.lists(st.tuples(st.text(), st.text(min_size=1)), min_size=1), st.text())
def test_any_column_can_be_named(parts: list[tuple[str, str]], tail: str) -> None:
    """A template of any names with any text between them is read back as it was made."""
    made = "".join(_doubled(text) + spelled(name) for text, name in parts) + _doubled(tail)
    assert parsed(made) == (tuple(parts), tail)


@given(st.text(st.sampled_from("ab {}\n()"), max_size=12))
def test_old_templates_mean_what_they_meant(template: str) -> None:
    """What str.format reads as plain fields is read the same."""
    try:
        old = list(Formatter().parse(template))
    except ValueError:
        return
    if any(name == "" or spec or conversion for _, name, spec, conversion in old):
        return
    found, tail = parsed(template)
    text = "".join(f"{literal}<{name}>" for literal, name in found) + tail
    assert text == "".join(literal + (f"<{name}>" if name is not None else "") for literal, name, *_ in old)


def test_a_prompt_may_name_its_answer() -> None:
    """Then the white space before it belongs to it; else the prompt is the template as it is."""
    named = answering("Q: {question}\nA: {answer}", frozenset({"answer"}))
    assert (named.columns, named.end, named.gap) == (("question",), "\nA:", " ")
    whole = answering("{instruction}\n{input}\n", frozenset({"answer"}))
    assert (whole.columns, whole.end, whole.gap) == (("instruction", "input"), "\n", "")
    assert whole.prompt({"instruction": "Say", "input": "a"}) == "Say\na\n"
    assert of_prompts("{instruction}") and not of_prompts("{a}{label}") and not of_prompts("")


@pytest.mark.parametrize("template", ["", "text alone", "{answer}", "{question} {answer} and on"])
def test_prompts_without_a_column_are_refused(template: str) -> None:
    """And text behind the answer."""
    with pytest.raises(UsageError, match=r"data\.template"):
        answering(template, frozenset({"answer"}))


def _doubled(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
