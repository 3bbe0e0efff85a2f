"""Claims about conversations: whatever a template does, what is trained stands behind what a user's tool sends."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from zolite.common.errors import UsageError
from zolite.config.recipe import DataPart
from zolite.data import rows as tables
from zolite.data.chat_template import Chat, chat_of, filled, rendered
from zolite.data.encode import Encoded, encode, fingerprint
from zolite.data.examples import Example
from zolite.data.kinds.kind import Row
from zolite.data.preview import report

TEMPLATE = DataPart.template
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "<s><|im_start|>system\n\nCutting Knowledge Date: December 2023\nToday Date: "
    "{{ strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' }}\n\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% set messages = messages[1:] %}{% endif %}"
    "<|im_end|>{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
GEMMA = (
    "<s>{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
MISTRAL = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}"
    "{% else %}{% set system = '' %}{% endif %}<s>{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}{% if loop.last and tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]"
    "{% endif %}[INST] {% if loop.last and system %}{{ system }}\n\n{% endif %}{{ m.content }}[/INST]"
    "{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)
QWEN3 = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% set parts = m.content.split('</think>') %}{% set thoughts = m.reasoning_content or "
    "(parts[0].split('<think>')[-1].strip('\n') if parts | length > 1 else '') %}"
    "{% if loop.index0 > ns.last %}<think>\n{{ thoughts }}\n</think>\n\n{% endif %}{{ parts[-1].lstrip('\n') }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
THINKING = QWEN3[: QWEN3.index("{% if enable_thinking")] + "<think>\n{% endif %}"  # as Qwen3's of 2507
R1 = (
    "<s>{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>{{ m.content.split('</think>')[-1] }}"
    "<|im_end|>{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|><think>\n{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|im_end|>{% endif %}"
)
OTHER_PROMPT = CHATML.replace(">assistant", ">bot")
LAST_ALONE = CHATML.replace("m.content }}", "m.content if loop.last else '' }}")

TEMPLATES = {
    "ChatML": CHATML, "marked": MARKED, "Llama 3": LLAMA3, "Gemma": GEMMA, "Mistral": MISTRAL, "Qwen3": QWEN3,
    "Qwen3 thinking": THINKING, "R1": R1, "Phi": PHI, "another prompt": OTHER_PROMPT, "last alone": LAST_ALONE,
}  # fmt: skip
SYSTEM = ("ChatML", "marked", "Llama 3", "Mistral", "Qwen3", "R1", "Phi")
"""Those that take a system message."""


def by_bytes(template: str) -> PreTrainedTokenizerFast:
    """One token a byte, but two new lines are one token, as they are of most models."""
    from tokenizers import pre_tokenizers

    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("Ċ", "Ċ"), ("Ġ", "a")]
    vocab |= {a + b: len(vocab) + i for i, (a, b) in enumerate(merges)}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
    inner.add_tokens(["<think>", "</think>"])
    inner.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="<|im_end|>")
    made.chat_template = template
    return made


def by_metaspace(template: str) -> PreTrainedTokenizerFast:
    """As Llama 2's: spaces are ▁, and one stands before every text."""
    letters = ["▁", *map(chr, range(32, 127)), "\n", "é"]
    pieces = ["<unk>", "<s>", "<|im_end|>", *(f"<0x{i:02X}>" for i in range(256)), *letters, "▁a", "▁b", "\n\n"]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    merges = [("▁", "a"), ("▁", "b"), ("\n", "\n")]
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    inner.decoder = decoders.Sequence(parts)
    inner.add_special_tokens(["<unk>", "<s>", "<|im_end|>"])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="<|im_end|>", unk_token="<unk>")
    made.chat_template = template
    return made


FAMILIES = {"bytes": by_bytes, "metaspace": by_metaspace}

words = st.text("ab é<.\n", min_size=1, max_size=6).filter(lambda text: text.strip())


def row(*texts: str, system: str = "", line: int = 1, **more: Any) -> Row:
    """Texts by user and assistant in alternation, behind a system message where there is one."""
    first = ({"role": "system", "content": system},) if system else ()
    turns = ({"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts))
    return Row(line, {}, (*first, *turns), **more)


def coded(rows: Sequence[Row], tokenizer: Any, context: int = 4096) -> Encoded:
    return encode(rows, "messages", (), tokenizer, "", context)


def trained(example: Example) -> list[int]:
    """Indices of the tokens that are predicted, each of which stands in the sequence too, but for the last."""
    asked = sorted(query.position + 1 for query in example.queries)
    assert [example.text[i] for i in asked] == [q.token for q in sorted(example.queries, key=lambda q: q.position)]
    assert example.sequences == (example.text[:-1],)
    return asked


def runs(indices: Sequence[int]) -> list[list[int]]:
    """Parted where one does not follow the other."""
    found: list[list[int]] = []
    for i in indices:
        if not found or found[-1][-1] + 1 != i:
            found.append([])
        found[-1].append(i)
    return found


def sent(tokenizer: Any, messages: Sequence[dict[str, Any]], **given: Any) -> tuple[int, ...]:
    """The tokens of the prompt that a user's tool sends behind these messages."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True, **given)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def assert_behind_their_prompts(
    encoded: Encoded, messages: Sequence[dict[str, Any]], tokenizer: Any, **given: Any
) -> None:
    """Each turn of the assistant's is trained once, right behind the tokens of its own prompt."""
    prompts = [sent(tokenizer, messages[:i], **given) for i, m in enumerate(messages) if m["role"] == "assistant"]
    found = [(e.text[: run[0]], e.text[run[0] : run[-1] + 1]) for e in encoded.examples for run in runs(trained(e))]
    assert [prompt for prompt, _ in found] == prompts
    answers = [m["content"].strip() for m in messages if m["role"] == "assistant"]
    for (_, tokens), answer in zip(found, answers, strict=True):
        text = tokenizer.decode(tokens)
        assert answer.split("</think>")[-1].strip() in text and "<|im_end|>" in text


# ---- the law


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", TEMPLATES)
@settings(deadline=None, max_examples=25)
@given(turns=st.lists(st.tuples(words, words), min_size=1, max_size=3), system=st.sampled_from(["", "be kind"]))
def test_answers_stand_behind_what_a_tool_sends(
    name: str, family: str, turns: list[tuple[str, str]], system: str
) -> None:
    """Of every template and tokenizer: the tokens before an answer are those of that turn's own prompt."""
    tokenizer = FAMILIES[family](TEMPLATES[name])
    made = row(*(text for turn in turns for text in turn), system=system if name in SYSTEM else "")
    assert_behind_their_prompts(coded([made], tokenizer), made.messages, tokenizer)


@pytest.mark.parametrize("name", TEMPLATES)
def test_one_sequence_where_it_can_be(name: str) -> None:
    """Conversations become one example a turn under templates that render a turn in two ways, and under no others."""
    apart = {"Qwen3", "Qwen3 thinking", "R1", "Phi", "another prompt", "last alone"}
    found = coded([row("a", "b", "c", "d")], by_bytes(TEMPLATES[name]))
    assert len(found.examples) == (2 if name in apart else 1) and tuple(found.origins) == (0,) * len(found.examples)
    assert bool(found.notes) == (name in apart)
    alone = {"Qwen3 thinking", "R1", "another prompt", "last alone"}
    assert len(coded([row("a", "b")], by_bytes(TEMPLATES[name])).examples) == 1
    assert bool(coded([row("a", "b")], by_bytes(TEMPLATES[name])).notes) == (name in alone)


def test_mistral_moves_the_system_text() -> None:
    """To the last question, so that turns of such a conversation do not share a prompt."""
    assert len(coded([row("a", "b", "c", "d", system="s")], by_bytes(MISTRAL)).examples) == 2


# ---- thoughts


def answers(made: Row, tokenizer: Any) -> list[str]:
    return [
        tokenizer.decode([example.text[i] for i in trained(example)]) for example in coded([made], tokenizer).examples
    ]


@pytest.mark.parametrize(
    ("template", "content", "answer"),
    [
        (QWEN3, "hi", "<think>\n\n</think>\n\nhi<|im_end|>\n"),
        (QWEN3, "<think>\nwell\n</think>\n\nhi", "<think>\nwell\n</think>\n\nhi<|im_end|>\n"),
        (THINKING, "hi", "\n</think>\n\nhi<|im_end|>\n"),
        (THINKING, "<think>\nwell\n</think>\n\nhi", "well\n</think>\n\nhi<|im_end|>\n"),
        (R1, "hi", "</think>\n\nhi<|im_end|>"),
        (R1, "<think>\nwell\n</think>\n\nhi", "well\n</think>\n\nhi<|im_end|>"),
    ],
)
def test_thoughts_are_closed(template: str, content: str, answer: str) -> None:
    """Behind a prompt that opens <think> an answer closes it, by the thoughts of the row where it has some."""
    assert answers(row("a", content), by_bytes(template)) == [answer]


def test_thoughts_in_a_field_of_their_own() -> None:
    """`reasoning_content` is what stands between the marks, also where the template leaves it out."""
    said = {"role": "assistant", "content": "hi", "reasoning_content": "well"}
    made = Row(1, {}, ({"role": "user", "content": "a"}, said))
    assert answers(made, by_bytes(QWEN3)) == ["<think>\nwell\n</think>\n\nhi<|im_end|>\n"]
    assert answers(made, by_bytes(THINKING)) == ["well\n</think>\n\nhi<|im_end|>\n"]
    assert answers(made, by_bytes(R1)) == ["well\n</think>\n\nhi<|im_end|>"]


@pytest.mark.parametrize("key", ["thinking", "reasoning"])
def test_thoughts_have_several_names(key: str) -> None:
    """They are read under each, and said to be left out where the template knows none."""
    made = Row(1, {}, ({"role": "user", "content": "a"}, {"role": "assistant", "content": "hi", key: "well"}))
    assert answers(made, by_bytes(QWEN3)) == ["<think>\nwell\n</think>\n\nhi<|im_end|>\n"]
    assert coded([made], by_bytes(QWEN3)).notes == ()
    assert f"have {key!r} in messages" in coded([made], by_bytes(CHATML)).notes[0]


def test_a_border_inside_a_token_is_said() -> None:
    """Where an answer begins with what a tokenizer joins to the prompt's end, the prompt keeps its own tokens."""
    found = coded([row("a", "\nb"), row("a", "b")], by_bytes(CHATML))
    assert len(found.notes) == 1 and found.notes[0].startswith("1 of 2 rows have an answer whose first token")


# ---- arguments and dates


def test_arguments_reach_the_template() -> None:
    """enable_thinking=false puts the empty thoughts into the prompt, and the answer alone is trained."""
    tokenizer = filled(by_bytes(QWEN3), chat_of(DataPart(template_args="enable_thinking=false"), {}))
    made = row("a", "b", "c", "d")
    assert answers(made, tokenizer) == ["b<|im_end|>\n", "d<|im_end|>\n"]
    assert_behind_their_prompts(coded([made], tokenizer), made.messages, by_bytes(QWEN3), enable_thinking=False)
    assert rendered(tokenizer, made.messages[:1]).endswith("assistant\n<think>\n\n</think>\n\n")
    assert by_bytes(QWEN3).chat_template == tokenizer.chat_template  # nothing of it is written into an export


def test_an_argument_that_no_template_has_is_refused() -> None:
    """Of a template that does not speak of it, and of a model without one."""
    chat = Chat({"enable_thinkin": False})
    with pytest.raises(UsageError, match="chat template has no argument enable_thinkin"):
        filled(by_bytes(QWEN3), chat)
    bare = by_bytes(QWEN3)
    bare.chat_template = None
    with pytest.raises(UsageError, match="has no chat template"):
        filled(bare, chat)


def test_a_template_is_told_one_date() -> None:
    """The session's, whatever the day; who does not ask for it has the present one, before and after."""
    plain = by_bytes(LLAMA3)
    talk = row("a").messages
    then = [filled(plain, Chat(now=datetime(1987, 6, day))) for day in (5, 6)]
    assert ["05 Jun 1987" in rendered(then[0], talk), "06 Jun 1987" in rendered(then[1], talk)] == [True, True]
    assert "1987" not in rendered(plain, talk)
    made = [row("a", "b")]
    one, same, other = (fingerprint({"train": coded(made, t).examples}) for t in (then[0], then[0], then[1]))
    assert one == same != other


# ---- marks and weights


def test_marks_say_what_is_trained() -> None:
    """Of a template with {% generation %} marks the new line behind the end is not the assistant's."""
    assert answers(row("a", "b", "c", "d"), by_bytes(MARKED)) == ["b<|im_end|>d<|im_end|>"]
    assert answers(row("a", "b", "c", "d"), by_bytes(CHATML)) == ["b<|im_end|>\nd<|im_end|>\n"]


@pytest.mark.parametrize("template", [CHATML, MARKED, QWEN3])
def test_a_message_of_no_weight_is_read_and_not_trained(template: str) -> None:
    """It stands in the prompt of what follows."""
    made = row("a", "bad", "c", "good")
    light = Row(1, {}, tuple(m | ({"weight": 0} if m["content"] == "bad" else {}) for m in made.messages))
    (said,) = answers(light, by_bytes(template))
    assert "good" in said and "bad" not in said
    (example,) = coded([light], by_bytes(template)).examples
    assert example.text[: example.begins] == sent(by_bytes(template), made.messages[:3])


# ---- tools

TOOLED = (
    "{% if tools %}<|im_start|>system\nTools:{% for t in tools %} {{ t.function.name }}{% endfor %}<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }}({{ c.function.arguments | tojson }})</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRICT = TOOLED.replace("c.function.arguments | tojson", "'' + c.function.arguments").replace(
    "m.content }}", "'' + m.content }}"
)
TOOLS = [{"type": "function", "function": {"name": "tide", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"type": "function", "function": {"name": "tide", "arguments": {"port": "Brest"}}}
TEXT_CALL = {"id": "1", "type": "function", "function": {"name": "tide", "arguments": '{"port": "Brest"}'}}


def tooled(call: Any, tools: Any = TOOLS, **content: Any) -> dict[str, Any]:
    talk = [
        {"role": "user", "content": "tide?"},
        {"role": "assistant", "tool_calls": call} | content,
        {"role": "tool", "content": "4.2"},
        {"role": "assistant", "content": "4.2 m"},
    ]
    return {"messages": talk, "tools": tools}


def written(folder: Path, records: Sequence[Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("template", [TOOLED, STRICT])
@pytest.mark.parametrize(
    "record",
    [
        tooled([CALL], content=""),
        tooled([CALL], content=None),
        tooled([CALL]),
        tooled([TEXT_CALL], content=None),
        tooled(json.dumps([CALL]), json.dumps(TOOLS), content=None),
        tooled([CALL["function"]], content=None),
    ],
)
def test_tools_and_calls_reach_the_template(record: dict[str, Any], template: str, tmp_path: Path) -> None:
    """In every spelling in which data sets have them, and under templates that take one spelling alone."""
    data = tables.load(written(tmp_path, [record] * 2), TEMPLATE)
    tokenizer = by_bytes(template)
    example = coded(data.splits["train"], tokenizer).examples[0]
    call = '<call>tide({"port": "Brest"})</call>'
    talk = {"system": "Tools: tide", "user": "tide?", "assistant": call, "tool": "4.2"}
    text = "".join(f"<|im_start|>{role}\n{said}<|im_end|>\n" for role, said in talk.items())
    assert tokenizer.decode(example.text) == text + "<|im_start|>assistant\n4.2 m<|im_end|>\n"
    for i, run in zip((1, 3), runs(trained(example)), strict=True):
        spelled = [
            m | {"content": m.get("content") or ""}
            for m in tooled([CALL if template == TOOLED else TEXT_CALL])["messages"]
        ]
        assert example.text[: run[0]] == sent(tokenizer, spelled[:i], tools=TOOLS)
    assert [tokenizer.decode([example.text[i] for i in run]) for run in runs(trained(example))] == [
        f"{call}<|im_end|>\n",
        "4.2 m<|im_end|>\n",
    ]


def test_tools_are_shown(tmp_path: Path) -> None:
    """By letters too, before there is a model; the calls are what is trained."""
    found = report(written(tmp_path, [tooled([CALL], content=None)] * 2), TEMPLATE)
    assert not found.problems and found.notes == ("dev: 1 of 2 rows held out of rows.jsonl",)
    shown = found.first[0].pieces
    assert any("tide" in piece.text and "tools" in piece.text and not piece.trained for piece in shown)
    assert any("Brest" in piece.text and piece.trained for piece in shown)


def test_tools_change_the_fingerprint(tmp_path: Path) -> None:
    """As everything does that is trained on; a row without tools has the fingerprint that it always had."""
    plain = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    sums = [
        tables.load(written(tmp_path, [record] * 2), TEMPLATE).fingerprint
        for record in (plain, plain | {"tools": TOOLS}, plain | {"tools": None}, plain | {"tools": []})
    ]
    assert sums[0] == sums[2] == sums[3] != sums[1]


def test_columns_that_nobody_reads_are_named(tmp_path: Path) -> None:
    """Of the record by the reader, of messages by the template that does not read them."""
    talk = [{"role": "user", "content": "a", "name": "Ann"}, {"role": "assistant", "content": "b"}]
    path = written(tmp_path, [{"messages": talk, "source": "x", "functions": []}] * 3)
    _, said = report(path, TEMPLATE).notes  # behind which rows are dev
    assert said == "columns that are not read: 'functions' of 3 rows, 'source' of 3 rows"
    notes = report(path, TEMPLATE, "m", by_bytes(CHATML)).notes
    assert "train: 2 of 2 rows have 'name' in messages, which the model's chat template does not read" in notes
    assert len(report(path, TEMPLATE, "m", by_bytes(CHATML + "{# name #}")).notes) == 2


# ---- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tools": "text"}, "line 1: column 'tools' is text, not a list"),
        ({"tools": {"name": "x"}}, "line 1: column 'tools' is an object, not a list"),
        ({"tools": ["x"]}, "line 1: column 'tools' has text, not an object"),
        ({"messages": tooled(3)["messages"]}, "line 1: message 2: 'tool_calls' is a number, not a list"),
        ({"messages": tooled([{}], content="")["messages"]}, "line 1: message 2: 'tool_calls' 1: it has no function"),
        (
            {"messages": tooled([{"function": {"name": "f", "arguments": "no"}}])["messages"]},
            "line 1: message 2: 'tool_calls' 1: 'arguments' is text, not an object or its JSON",
        ),
        ({"messages": tooled(None)["messages"]}, "line 1: message 2: 'content' is null, not text"),
        ({"messages": [{"role": "assistant", "content": "a", "weight": 0}]}, "line 1: none of 1 messages is an ass"),
        ({"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]}, "line 1: message 1: 'weight' is 0.5"),
    ],
)
def test_faulty_rows_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """With their line and their message."""
    with pytest.raises(UsageError) as caught:
        tables.load(written(tmp_path, [tooled([CALL]) | change] * 2), TEMPLATE)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("template", "made", "message"),
    [
        (GEMMA, row("a", "b", system="s"), "template refuses it: System role not supported"),
        (
            GEMMA,
            Row(1, {}, (*row("a", "b").messages, *row("c", "d").messages[1:])),
            "template refuses it: Conversation roles must alternate",
        ),
        (CHATML, row("a", "b", tools=tuple(TOOLS)), "template does not read 'tools'"),
        (
            CHATML,
            Row(1, {}, (*row("a").messages, {"role": "assistant", "content": "", "tool_calls": [CALL]})),
            "template does not read 'tool_calls'",
        ),
        (
            CHATML.replace("m.content }}", "m.content if m.role == 'user' else '' }}"),
            row("a", "b"),
            "template leaves out",
        ),
    ],
)
def test_a_template_that_will_not_do_is_named(template: str, made: Row, message: str) -> None:
    """By what it did, and not as a fault of the rows."""
    with pytest.raises(UsageError, match=f"line 1: the model's chat {message}") as caught:
        coded([made], by_bytes(template))
    assert "correct" not in caught.value.hint and caught.value.hint


def test_turns_without_room_are_left_out() -> None:
    """Of a conversation of one example a turn, the context may end before the last ones: it is counted as cut."""
    tokenizer, made = by_bytes(QWEN3), row("a", "b", "c" * 80, "d")
    found = coded([made], tokenizer, 80)
    assert (len(found.examples), found.cut) == (1, 1)
    assert (len(coded([made], tokenizer, 400).examples), coded([made], tokenizer, 400).cut) == (2, 0)
    with pytest.raises(UsageError, match="leave it no room at context 8") as caught:
        coded([made], tokenizer, 8)
    need = int(caught.value.hint.split("data.context=")[1].split()[0])
    assert len(coded([made], tokenizer, need).examples) == 1
