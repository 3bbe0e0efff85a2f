"""Claims about talking to a session: what is said is the likeliest, of the bare model and of the tuned one."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from zolite.cli import chat as chat_commands
from zolite.common.errors import UsageError
from zolite.config.recipe import Recipe
from zolite.export import export as exports
from zolite.export.readers import reloaded
from zolite.sessions import session as sessions
from zolite.tools.chat import Answer, Piece, Talk, open_, prompt_of
from zolite.training.resume import begin

MakeRecipe = Callable[..., Recipe]


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


def whole(talk: Talk, text: str, tokens: int = 12) -> Answer:
    *_, answer = talk.reply(text, tokens)
    assert isinstance(answer, Answer)
    return answer


def greedy(model: Any, talk: Talk, text: str, tokens: int) -> str:
    """The naive way: the whole text again for each token."""
    ids = [int(i) for i in talk.tokenizer(text)["input_ids"]]
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
    from transformers import AutoModelForCausalLM

    exports.export(talk.session, tmp_path / "out", verify=False)
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    said = whole(talk, "Say ox:")
    assert said.base == greedy(base, talk, "Say ox:", 12)
    assert said.tuned == greedy(reloaded(base, tmp_path / "out"), talk, "Say ox:", 12)
    assert said.base != said.tuned


@pytest.mark.parametrize("kind", ["lora-core", "linear_probe"])
def test_adapters_that_are_more_than_what_is_trained(
    trained: Callable[..., str], separable: str, tiny: Path, tmp_path: Path, kind: str
) -> None:
    """Frozen bases around a core, and A's that a linear probe gave, are heard as the exported adapter has them."""
    from transformers import AutoModelForCausalLM

    changes = {"adapter__space": "lora-core"} if kind == "lora-core" else {"adapter__readout": True}
    with open_(trained(separable, **changes)) as talk:
        exports.export(talk.session, tmp_path / "out", verify=False)
        base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
        tuned = reloaded(base, tmp_path / "out")
        ids = talk.tokenizer(["number 3: river\nCategory:"], return_tensors="pt")["input_ids"]
        tokens = [talk.tokenizer(f" {label}", add_special_tokens=False)["input_ids"][0] for label in ("no", "yes")]
        share = tuned(input_ids=ids).logits[0, -1].log_softmax(dim=-1)[tokens].softmax(dim=0)[1]
        said = whole(talk, "number 3: river")
        assert f"yes {share.item():.0%}" in said.tuned and said.base != said.tuned


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
    """A prompt as long as the context is refused, with both numbers."""
    with pytest.raises(UsageError, match=r"301 tokens.* 256"):
        whole(talk, "x" * 300)
    assert whole(talk, "x" * 250, 99).tokens <= 5  # and an answer ends with the context


def test_labels(trained: Callable[..., str], folder: Callable[..., Path], tiny: Path) -> None:
    """On rows with labels the answer is their probabilities, as the loss has them; base is those of the bare model."""
    from transformers import AutoModelForCausalLM

    with open_(trained(str(folder("label")))) as talk:
        said = whole(talk, "warm river")
        ids = talk.tokenizer(["warm river\nCategory:"], return_tensors="pt")["input_ids"]
        base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
        tokens = [talk.tokenizer(f" {label}", add_special_tokens=False)["input_ids"][0] for label in ("no", "yes")]
        share = base(input_ids=ids).logits[0, -1].log_softmax(dim=-1)[tokens].softmax(dim=0)[1]
        assert f"yes {share.item():.0%}" in said.base and said.base != said.tuned
        assert whole(talk, "warm river").tuned == said.tuned
        assert talk.turn_to("0") == 0 and whole(talk, "warm river").tuned == said.base
        with pytest.raises(UsageError, match="no room"):
            whole(talk, "x" * 300)


def test_prompts(trained: Callable[..., str], folder: Callable[..., Path], tokenizer: Any, recipe: MakeRecipe) -> None:
    """A text is put into the chat template where conversations were trained on, and else is the prompt."""
    with sessions.open_(trained(str(folder("label")))) as session:
        assert prompt_of(session, tokenizer).column == "text"
        several = recipe(data__template="{a} or {b}? {label}")
        session.chapters = (sessions.Chapter(0, several, {"labels": ["no", "yes"]}),)
        assert prompt_of(session, tokenizer).labels == ()
        session.chapters = (sessions.Chapter(0, recipe(data__path=str(folder("messages"))), {"labels": []}),)
        prompt = prompt_of(session, tokenizer)
        assert prompt.fill("ox") == "<|im_start|>user\nox<|im_end|>\n<|im_start|>assistant\n"
        assert not prompt.special


def test_lines_of_json(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    """A line in, lines out; a line that is none is refused and the next is answered."""
    lines = ['{"prompt": "ox", "tokens": 3}', "nonsense", '{"prompt": 7}', '{"step": 0}', '{"step": 99}', "[]"]
    chat_commands._answer_json(talk, io.StringIO("\n".join(lines) + "\n"), 8)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rest = [line for line in said if line["event"] != "piece"]
    assert [line["event"] for line in rest] == ["ready", "answer", "error", "error", "ready", "error", "error"]
    assert rest[1]["tokens"] <= 3 and rest[4]["step"] == 0
    assert all(line["message"] and line["hint"] for line in rest if line["event"] == "error")
    assert {line["side"] for line in said if line["event"] == "piece"} <= {"base", "tuned"}


def test_people(talk: Talk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a pipe each prompt gets a line of the base and one of the tuned; an empty line ends."""
    monkeypatch.setattr("sys.stdin", io.StringIO("ox\nblue\n\nnever\n"))
    chat_commands._answer_people(talk, 4)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["base", "tuned"] * 2


def test_unknown_session_loads_nothing() -> None:
    """A session or step that is not there is refused before a model is loaded."""
    with pytest.raises(UsageError, match="no session"), open_("nowhere"):
        pass
