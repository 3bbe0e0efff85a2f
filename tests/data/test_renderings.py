"""Claim: what is put together is what the template renders, whatever it does with texts. The twin is the template."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_turns import CHATML, GEMMA, LLAMA3, MISTRAL, PHI, TEMPLATES, by_bytes
from zolite.data.chat_template import Chat, filled, rendered
from zolite.data.examples import quick

BODY = "{% for m in messages %}<|im_start|>{{ m.role }}\n%s<|im_end|>\n{% endfor %}"
FOLLOWED = {
    "if blank": "{% if m.content %}{{ m.content }}{% else %}nothing{% endif %}",
    "if blank when stripped": "{{ m.content.strip() or 'nothing' }}",
    "thoughts": "{% if '</think>' not in m.content %}<think></think>{% endif %}{{ m.content.lstrip('\n') }}",
    "begins": "{{ 'A ' + m['content'] if m['content'].startswith('a') else m['content'] | trim + '!' }}",
    "equal": "{% if m.content == 'a' %}one{% elif m.content != 'b' %}{{ m.content }}{% else %}two{% endif %}",
    "a text": "{% if m.content is string and m.content is iterable %}{{ m.content }}{% else %}parts{% endif %}",
    "the one before": "{% if messages[loop.index0 - 1].content.endswith('\n') %}\n{% endif %}{{ m.content }}",
    "in a list": "{{ 'yes' if m.content in ['a', 'b'] else 'no' }}{{ m.content }}",
    "in a variable": "{% set text = '[' + m.content + ']' %}{{ text + text }}",
}
NOT_FOLLOWED = {
    "length": "{{ m.content if m.content | length > 2 else 'short' }}",
    "capitals": "{{ m.content | upper }}",
    "capitals, as a method": "{{ m.content.upper() }}",
    "first letter": "{{ m.content[0] }}",
    "last lines": "{{ m.content.split('\n')[-1] }}",
    "letters": "{% for letter in m.content %}{{ letter }}.{% endfor %}",
    "as a number": "{{ m.content | int(7) }}",
    "as JSON": "{{ m | tojson }}",
    "times": "{{ m.content * 2 }}",
    "formatted": "{{ '%s!' % m.content }}",
    "formatted by a method": "{{ '{}!'.format(m.content) }}",
    "joined by a tilde": "{{ ('a' ~ m.content).strip() }}",
    "joined by a filter": "{{ [m.content, 'a'] | join(' ') | trim }}",
    "as a key": "{{ {'a': 'one', 'b': 'two'}.get(m.content, 'other') }}",
    "of a text": "{{ 'yes' if m.content in 'abc' else 'no' }}",
    "compared": "{{ 'yes' if m.content > 'a' else 'no' }}",
    "two of them": "{{ 'same' if m.content == messages[0].content else 'other' }}{{ m.content }}",
    "both joined": "{{ 'yes' if 'ba' in messages[0].content + m.content else 'no' }}{{ m.content }}",
    "caught and stripped": "{% set text %}{{ m.content }}{% endset %}{{ text | trim }}",
    "in a macro": "{% macro said(text) %}{{ text }}{% endmacro %}{{ said(m.content) | trim }}",
    "filtered": "{% filter trim %}{{ m.content }}{% endfilter %}",
    "a number": "{{ 'yes' if m.content is lower else 'no' }}",
    "replaced": "{{ m.content | replace('a', 'b') }}",
}
ALL = TEMPLATES | {name: BODY.replace("%s", each) for name, each in (FOLLOWED | NOT_FOLLOWED).items()}
KNOWN = {"ChatML": CHATML, "Llama 3": LLAMA3, "Gemma": GEMMA, "Mistral": MISTRAL, "Phi": PHI}
TOKENIZERS = {name: by_bytes(template) for name, template in ALL.items()}

contents = st.sampled_from(
    ["", "a", "b", " a", "a\n", "</think>a", "<think>\nb</think>\n", "7", "ba", "A b", "{{ x }}"]
)
talks = st.lists(st.lists(contents | st.text(max_size=4), min_size=1, max_size=4), min_size=1, max_size=4)


def messages(texts: list[str]) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def said(tokenizer: Any, talk: list[dict[str, str]], prompt: bool) -> str:
    """The rendering, or what the template raises."""
    try:
        return rendered(tokenizer, talk, prompt=prompt)
    except Exception as error:  # noqa: BLE001 - a template may raise anything
        return repr(error)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15)
@given(talks=talks, prompt=st.booleans())
def test_it_is_what_the_template_renders(name: str, talks: list[list[str]], prompt: bool) -> None:
    tokenizer = filled(TOKENIZERS[name], Chat(now=datetime(2020, 2, 3)))
    remembering = quick(tokenizer)
    for talk in map(messages, [*talks, *talks]):
        assert said(remembering, talk, prompt) == said(tokenizer, talk, prompt)


@pytest.mark.parametrize("name", [*KNOWN, *FOLLOWED])
def test_templates_are_run_once_for_an_order_of_roles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = filled(TOKENIZERS[name], Chat(now=datetime(2020, 2, 3)))
    remembering = quick(tokenizer)
    first = rendered(remembering, messages(["one", "two"]), prompt=False)
    monkeypatch.setattr(remembering.apply_chat_template, "_apply", None)
    assert rendered(remembering, messages(["three", "four"]), prompt=False) == first.replace("one", "three").replace(
        "two", "four"
    )


@pytest.mark.parametrize("name", [*NOT_FOLLOWED, "marked", "Qwen3", "R1"])
def test_what_is_not_followed_is_rendered_by_the_template(name: str) -> None:
    remembering = quick(filled(TOKENIZERS[name], Chat(now=datetime(2020, 2, 3))))
    rendered(remembering, messages(["a", "b"]), prompt=False)
    assert not vars(remembering)["apply_chat_template"]._plans


def test_a_date_that_may_change_is_not_kept() -> None:
    remembering = quick(TOKENIZERS["Llama 3"])
    rendered(remembering, messages(["a", "b"]), prompt=False)
    assert not vars(remembering)["apply_chat_template"]._plans


def test_messages_with_more_than_texts_are_rendered_by_the_template() -> None:
    tokenizer = TOKENIZERS["ChatML"]
    remembering = quick(tokenizer)
    for talk in ([{"role": "user", "content": "a", "name": "b"}], [{"role": "user", "content": ["a"]}]):
        assert said(remembering, talk, prompt=True) == said(tokenizer, talk, prompt=True)
    assert not vars(remembering)["apply_chat_template"]._plans
