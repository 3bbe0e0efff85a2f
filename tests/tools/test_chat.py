"""Claims about talking to a session: what is said is the likeliest, of the bare model and of the tuned one."""

import copy
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from zolite.cli import chat as chat_commands
from zolite.common.errors import UsageError
from zolite.config.recipe import Recipe
from zolite.data.kinds.kind import Row
from zolite.data.kinds.registry import KINDS
from zolite.export import export as exports
from zolite.export.readers import reloaded
from zolite.sessions import session as sessions
from zolite.tools.chat import Answer, Piece, Talk, _Side, open_
from zolite.tools.prompt import Prompt, prompt_of, system_of
from zolite.training.resume import begin

MakeRecipe = Callable[..., Recipe]
SIDES = ("base", "tuned")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


@pytest.fixture
def trained(recipe: MakeRecipe) -> Callable[..., str]:
    """trained("label") is a session with a few large steps on rows of that kind."""

    def make(path: str = "", **changes: Any) -> str:
        given = {"data__path": path} if path else {}
        for _ in begin(recipe(train__lr=0.5, train__steps=4, **given, **changes), "run", lambda: False):
            pass
        return "run"

    return make


@pytest.fixture
def talk(trained: Callable[..., str], folder: Callable[..., Path]) -> Iterator[Talk]:
    """A session on completions, opened for talking."""
    with open_(trained(str(folder("completion")))) as opened:
        yield opened


@pytest.fixture
def conversation(trained: Callable[..., str], folder: Callable[..., Path]) -> str:
    """A session on conversations that all begin with one system message."""
    where = folder("messages")
    for file in where.iterdir():
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        begun = [{"messages": [{"role": "system", "content": "Be brief."}, *row["messages"]]} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in begun))
    return trained(str(where))


def whole(talk: Talk, asked: str | Mapping[str, Any], tokens: int = 12, shares: bool = False) -> Answer:
    *_, answer = talk.reply(asked, tokens, shares)
    assert isinstance(answer, Answer)
    return answer


def models_of(talk: Talk, tiny: Path, tmp_path: Path) -> dict[str, Any]:
    """By side transformers' own model, and that model with the exported adapter."""
    from transformers import AutoModelForCausalLM

    exports.export(talk.session, tmp_path / "out", verify=False)
    base, other = (AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval() for _ in range(2))
    return {"base": base, "tuned": reloaded(other, tmp_path / "out")}


def greedy(model: Any, talk: Talk, text: str, tokens: int, special: bool = True) -> str:
    """The naive way: the whole text again for each token."""
    ids = [int(i) for i in talk.tokenizer(text, add_special_tokens=special)["input_ids"]]
    start = len(ids)
    with torch.inference_mode():
        for _ in range(tokens):
            token = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            if token == talk.tokenizer.eos_token_id:
                break
            ids.append(token)
    return str(talk.tokenizer.decode(ids[start:], skip_special_tokens=True)).rstrip("\ufffd")


def test_both_sides(talk: Talk, tiny: Path, tmp_path: Path) -> None:
    """Base is transformers' own model, tuned that model with the exported adapter, both read token by token."""
    said = whole(talk, "Say ox:")
    for side, model in models_of(talk, tiny, tmp_path).items():
        assert getattr(said, side) == greedy(model, talk, "Say ox:", 12)
    assert said.base != said.tuned


def share_of_yes(model: Any, talk: Talk, text: str) -> float:
    """Of the labels no and yes, one token each."""
    ids = talk.tokenizer([text], return_tensors="pt")["input_ids"]
    tokens = [talk.tokenizer(f" {label}", add_special_tokens=False)["input_ids"][0] for label in ("no", "yes")]
    with torch.inference_mode():
        return float(model(input_ids=ids).logits[0, -1][tokens].softmax(dim=0)[1])


@pytest.mark.parametrize("kind", ["lora-core", "linear_probe"])
def test_adapters_that_are_more_than_what_is_trained(
    trained: Callable[..., str], separable: str, tiny: Path, tmp_path: Path, kind: str
) -> None:
    """Frozen bases around a core, and A's that a linear probe gave, are heard as the exported adapter has them."""
    changes = {"adapter__space": "lora-core"} if kind == "lora-core" else {"adapter__readout": True}
    with open_(trained(separable, **changes)) as talk:
        said = whole(talk, "number 3: river", shares=True)
        for side, model in models_of(talk, tiny, tmp_path).items():
            text = "number 3: river\nCategory:"
            assert said.shares[side]["yes"] == pytest.approx(share_of_yes(model, talk, text), abs=1e-4)
            assert getattr(said, side) == greedy(model, talk, text, 12)
        assert said.shares["base"] != said.shares["tuned"]


def test_pieces_make_the_answer(talk: Talk) -> None:
    """The pieces of a side, put together, are its answer; asked twice, it is the same."""
    pieces: dict[str, str] = {"base": "", "tuned": ""}
    for said in talk.reply("warm", 20):
        if isinstance(said, Piece):
            pieces[said.side] += said.text
    again = whole(talk, "warm", 20)
    assert (pieces["base"], pieces["tuned"]) == (again.base, again.tuned)


def test_any_step(talk: Talk) -> None:
    """At step 0, where B is zero, both sides say the same; turned back to the last step they say what they said."""
    before = whole(talk, "river")
    assert talk.turn_to("0") == 0
    start = whole(talk, "river")
    assert start.base == start.tuned == before.base
    talk.turn_to("last")
    assert whole(talk, "river").tuned == before.tuned


def test_too_long(talk: Talk) -> None:
    """A prompt as long as the context is refused, with both numbers; an answer ends with the context, and says so."""
    with pytest.raises(UsageError, match=r"301 tokens.* 256"):
        whole(talk, "x" * 300)
    said = whole(talk, "x" * 250, 99)
    assert said.tokens <= 5
    assert all("context of 256" in said.notes[side] for side in said.finish if said.finish[side] == "length")
    assert "length" in said.finish.values()


def test_labels(trained: Callable[..., str], folder: Callable[..., Path], tiny: Path, tmp_path: Path) -> None:
    """On rows with labels too the answer is what follows the filled template, whatever it is; how likely each label is
    among them comes only where it is asked for, as the loss has it.
    """
    with open_(trained(str(folder("label")))) as talk:
        said, text = whole(talk, "warm river", shares=True), "warm river\nCategory:"
        for side, model in models_of(talk, tiny, tmp_path).items():
            assert getattr(said, side) == greedy(model, talk, text, 12)
            assert said.shares[side]["yes"] == pytest.approx(share_of_yes(model, talk, text), abs=1e-4)
            assert list(said.shares[side].values()) == sorted(said.shares[side].values(), reverse=True)
        assert whole(talk, {"text": "warm river"}).tuned == said.tuned and whole(talk, "warm river").shares == {}
        assert talk.turn_to("0") == 0
        start = whole(talk, "warm river", shares=True)
        assert start.tuned == start.base == said.base and start.shares["tuned"] == said.shares["base"]
        with pytest.raises(UsageError, match="blank"):
            whole(talk, "  ")
        with pytest.raises(UsageError, match=r"system message.*rows with labels"):
            talk.begin("Be brief.")
        assert whole(talk, "x" * 150, shares=True).shares == {}  # longer than any row that it was trained on


@pytest.mark.parametrize(
    ("text", "ended", "label", "note"),
    [
        (" yes", True, "yes", ""),
        ("yes\n", True, "yes", ""),
        (" yes", False, "yes", "cut at 9 tokens"),
        (" yes yes", False, "", "not one of the 2 labels, cut at 9 tokens"),
        (" Yes", True, "", "not one of the 2 labels"),
        ("\n ", True, "", "white space alone, not one of the 2 labels"),
        ("", True, "", "nothing, not one of the 2 labels"),
        ("", False, "", "special tokens alone, not one of the 2 labels, cut at 9 tokens"),
    ],
)  # fmt: skip
def test_what_is_a_label(text: str, ended: bool, label: str, note: str) -> None:
    """A label and nothing else is one; of everything else it is said that it is none."""
    sides = [_Side(name, [] if ended else [1], text, ended) for name in SIDES]
    prompt = Prompt(KINDS["label"], "{text} {label}", ("no", "yes"))
    answer = Talk(None, None, None, None, prompt)._answer(sides, "cut at 9 tokens", 0.0, {})  # type: ignore[arg-type]
    assert answer.label == {"base": label, "tuned": label}
    assert answer.notes == {"base": note, "tuned": note}
    assert answer.finish["base"] == ("stop" if ended else "length")
    free = Talk(None, None, None, None, Prompt(KINDS["completion"], ""))  # type: ignore[arg-type]
    plain = free._answer(sides, "cut at 9 tokens", 0.0, {})
    assert plain.label == {} and "labels" not in plain.notes["base"]


def test_several_columns(trained: Callable[..., str], tiny: Path, tmp_path: Path) -> None:
    """Of a template with several columns each is given, and the prompt is the template filled in with them."""
    where = tmp_path / "pairs"
    where.mkdir()
    rows = [{"a": f"ox {i}", "b": "river", "label": ("yes", "no")[i % 2]} for i in range(12)]
    for split in ("train", "dev"):
        (where / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_(trained(str(where), data__template="{a}. So {b}?\nIt is: {label}")) as talk:
        assert talk.prompt.columns == ("a", "b")
        said = whole(talk, {"b": "blue", "a": 7})
        for side, model in models_of(talk, tiny, tmp_path).items():
            assert getattr(said, side) == greedy(model, talk, "7. So blue?\nIt is:", 12)
        with pytest.raises(UsageError, match="columns 'a', 'b', and a text alone"):
            whole(talk, "blue")
        with pytest.raises(UsageError, match=r"no column 'b'; column 'c' is not among"):
            whole(talk, {"a": "ox", "c": "blue"})


def turns(system: str, *said: str) -> str:
    """ChatML, as the tiny model's template has it."""
    roles = ["user", "assistant"] * len(said)
    begin = [("system", system)] if system else []
    texts = [*begin, *zip(roles, said, strict=False)]
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in texts) + "<|im_start|>assistant\n"


def test_conversation(conversation: str, tiny: Path, tmp_path: Path) -> None:
    """Each side goes on from its own answers, behind the system message that all rows began with."""
    with open_(conversation) as talk:
        assert talk.system == "Be brief."
        models = models_of(talk, tiny, tmp_path)
        first = whole(talk, "ox")
        second = whole(talk, "and blue")
        for side, model in models.items():
            assert getattr(first, side) == greedy(model, talk, turns("Be brief.", "ox"), 12, False)
            heard = turns("Be brief.", "ox", getattr(first, side), "and blue")
            assert getattr(second, side) == greedy(model, talk, heard, 12, False)
        assert len({len(talk.tokenizer(getattr(first, side))["input_ids"]) for side in models}) == 2  # one is padded
        talk.begin()
        assert whole(talk, "ox") == replace(first, seconds=ANY)
        talk.begin("")
        bare = whole(talk, "ox")
        assert bare.tuned == greedy(models["tuned"], talk, turns("", "ox"), 12, False) != first.tuned


def test_a_turn_that_fails_is_forgotten(conversation: str) -> None:
    """A prompt without room leaves the conversation as it was; the hint says how to begin another."""
    with open_(conversation, system="") as talk:
        whole(talk, "ox", 3)
        before = json.dumps(talk.past)
        with pytest.raises(UsageError) as refused:
            whole(talk, "x" * 300)
        assert "/new" in refused.value.hint and json.dumps(talk.past) == before
        next(talk.reply("blue"))  # and so does an answer that is not heard to its end
        assert json.dumps(talk.past) == before


def test_a_template_that_refuses_a_system_message(conversation: str, tokenizer: Any) -> None:
    """It is refused with the template's own words, and the talk goes on."""
    with open_(conversation) as talk:
        talk.tokenizer = copy.deepcopy(tokenizer)
        talk.tokenizer.chat_template = (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
        )
        with pytest.raises(UsageError, match="no system role") as refused:
            talk.begin("Be brief.")
        assert "--system" in refused.value.hint
        talk.begin("")
        assert whole(talk, "ox").tokens


def test_prompts(trained: Callable[..., str], folder: Callable[..., Path], tokenizer: Any, recipe: MakeRecipe) -> None:
    """By the rows of the session: a row's columns, a conversation, or a text as it is typed, of which it is said where
    the rows are gone.
    """
    with sessions.open_(trained(str(folder("label")))) as session:
        assert prompt_of(session).columns == ("text",)

        def of(**changes: Any) -> Prompt:
            session.chapters = (sessions.Chapter(0, recipe(**changes), {"labels": []}),)
            return prompt_of(session)

        chat = of(data__path=str(folder("messages")))
        assert chat.turn(tokenizer, "", (), {"prompt": "ox"}) == turns("", "ox") and chat.chat
        assert (plain := of(data__path=str(folder("completion")))).columns == ("prompt",) and not plain.note
        assert plain.text({"prompt": " ox "}) == " ox "
        gone = of(data__path="/nowhere")
        assert not gone.chat and "/nowhere" in gone.note
        with pytest.raises(UsageError, match="plain prompts"):
            gone.check_system(tokenizer, "Be brief.")


@given(st.lists(st.sampled_from(["", "a", "b"]), max_size=4))
def test_the_system_message_of_rows(begin: Sequence[str]) -> None:
    """The one that all of them begin with, or none."""
    user = {"role": "user", "content": "a"}
    rows = [Row(1, {}, (*([{"role": "system", "content": text}] if text else []), user)) for text in begin]
    assert system_of(rows) == (begin[0] if begin and all(text == begin[0] for text in begin) else "")


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_lines_of_json(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    """A line in, lines out; a line that is none is refused and the next is answered."""
    wrong = ["nonsense", '{"prompt": 7}', '{"step": 99}', "[]", '{"prompt": "ox", "tokens": 0}', '{"system": "Be"}']
    wrong += ['{"prompt": "ox", "tokens": true}', '{"prompt": "ox", "columns": {}}', '{"columns": {}}', '{"new": 1}']
    chat_commands._answer_json(
        talk, io.StringIO("\n".join(['{"prompt": "ox", "tokens": 3}', *wrong, '{"step": 0}'])), 8
    )
    said = events(capsys)
    rest = [line for line in said if line["event"] != "piece"]
    assert [line["event"] for line in rest] == ["ready", "answer", *(["error"] * len(wrong)), "ready"]
    assert rest[0]["columns"] == ["prompt"] and not rest[0]["chat"]
    assert rest[1]["tokens"] <= 3 and rest[-1]["step"] == 0
    assert all(line["message"] and line["hint"] for line in rest if line["event"] == "error")
    pieces = {side: "".join(p["text"] for p in said if p["event"] == "piece" and p["side"] == side) for side in SIDES}
    assert pieces == {side: rest[1][side] for side in SIDES}


def test_a_conversation_in_json(conversation: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It goes on from line to line; "new" and another system message begin it again, the same one does not."""
    ox, system = {"prompt": "ox"}, "Be brief."
    lines: list[dict[str, Any]] = [ox, ox | {"system": system}, ox | {"new": True}, {"system": ""}, ox, ox]
    with open_(conversation) as talk:
        chat_commands._answer_json(talk, io.StringIO("\n".join(map(json.dumps, lines))), 8)
        past = talk.past
    said = events(capsys)
    ready = [line for line in said if line["event"] == "ready"]
    assert [line["system"] for line in ready] == [system, system, system, ""] and ready[0]["chat"]
    first, second, again, bare, _ = [line for line in said if line["event"] == "answer"]
    assert all(again[side] == first[side] for side in SIDES)
    assert [turn["content"] for turn in past["base"][::2]] == ["ox", "ox"]
    assert len({first["tuned"], second["tuned"], bare["tuned"]}) > 1


def test_people(talk: Talk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a pipe each prompt gets a line of the base and one of the tuned; an empty line ends."""
    monkeypatch.setattr("sys.stdin", io.StringIO("ox\nblue\n\nnever\n"))
    chat_commands._answer_people(talk, 4, verbose=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["base", "tuned"] * 2


def test_people_who_talk(conversation: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """The system message is named once, with how to leave it out; /new begins another conversation."""
    monkeypatch.setattr("sys.stdin", io.StringIO("ox\n/new\nox\n"))
    monkeypatch.setenv("COLUMNS", "200")
    with open_(conversation) as talk:
        chat_commands._answer_people(talk, 4, verbose=False)
    greeting, system, base, tuned, new, *again = capsys.readouterr().out.splitlines()
    assert "/new" in greeting and "Be brief." in system and '--system ""' in system
    assert again == [base, tuned] and "another conversation" in new


def test_people_at_a_terminal(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both answers stand beside each other with their notes; after an error or Ctrl-C the next prompt is answered."""
    screen, typed = io.StringIO(), iter(["x" * 300, "stop", "ox", ""])
    reply, stops = talk.reply, iter([False, True, False])  # while it answers

    def interrupted(*asked: Any) -> Iterator[Piece | Answer]:
        if next(stops):
            raise KeyboardInterrupt
        return reply(*asked)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda asked: next(typed))
    monkeypatch.setattr(chat_commands, "Terminal", lambda: Console(file=screen, force_terminal=True, width=80))
    with monkeypatch.context() as patched:
        patched.setattr(talk, "reply", interrupted)
        chat_commands._answer_people(talk, 4, verbose=False)
    said, again = screen.getvalue(), whole(talk, "ox", 4)
    assert said.index("say less") < said.index("stopped") < said.index("tuned")
    assert again.notes["base"] in said and again.tuned.strip() in said


@pytest.mark.parametrize(
    ("columns", "typed", "given"),
    [
        (("prompt",), " ox ", {"prompt": " ox "}),
        (("prompt",), '{"prompt": "ox"}', {"prompt": '{"prompt": "ox"}'}),
        (("text",), '{"text": "a\\nb"}', {"text": "a\nb"}),
        (("text",), '{"other": 1}', {"text": '{"other": 1}'}),
        (("a", "b"), "ox\nblue", {"a": "ox", "b": "blue"}),
        (("a", "b"), '{"b": 1}', {"b": 1}),
        (("a", "b"), "\nblue", None),
        (("a", "b"), "ox", {"a": "ox", "b": ""}),
    ],
)  # fmt: skip
def test_what_people_type(columns: tuple[str, ...], typed: str, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column a line, as it was typed, or a row as JSON; an empty line ends."""
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert chat_commands._given(columns, asking=False) == given


def test_unknown_session_loads_nothing() -> None:
    """A session or step that is not there is refused before a model is loaded."""
    with pytest.raises(UsageError, match="no session"), open_("nowhere"):
        pass


def test_an_encoder_says_what_it_has_at_its_masks(
    trained: Callable[..., str], encoders: Callable[[str], Path], folder: Callable[..., Path]
) -> None:
    """Of both models the likeliest tokens there, as many as the likeliest label has, and every label's share."""
    where = str(folder("label", labels=("yes", "a long way")))
    template = "{text} It was {label}."
    name = trained(where, model__name=str(encoders("roberta")), data__template=template, adapter__space="lora")
    with open_(name) as talk:
        *pieces, answer = talk.reply("blue river")
        (row,) = talk._row({"text": "blue river"})
        for side in SIDES:
            shares = answer.shares[side]
            asked = [q for q in row.queries if q.candidate == talk.prompt.labels.index(max(shares, key=shares.get))]
            model, ids = talk.engine.loaded.model, torch.tensor([row.sequences[asked[0].sequence]])
            with talk._as(side):
                talk.engine.at_theta()
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
            said = talk.tokenizer.decode(logits[[q.position for q in asked]].argmax(-1), skip_special_tokens=True)
            assert getattr(answer, side) == said.strip() and sum(shares.values()) == pytest.approx(1)
        assert {piece.side for piece in pieces} <= set(SIDES) and answer.finish == dict.fromkeys(SIDES, "stop")
