"""Claims about what a model says: it is plain greedy text, whatever is tried first and however rows are batched."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from zolite.config.recipe import Recipe
from zolite.data.examples import Example, Query
from zolite.model import load as models
from zolite.training.evaluate import evaluate, predictions
from zolite.training.greedy import Said, Verbalizer, answers_of, say
from zolite.training.prepare import prepare

Make = Callable[..., Recipe]
Next = Callable[[tuple[int, ...]], int]
LETTERS = "ab c"  # tokens 0 to 3; 4 and 5 are ends
ENDS = frozenset({4, 5})


def text_of(ids: Sequence[int]) -> str:
    return "".join(LETTERS[i] for i in ids)


def naive(next_: Next, prompt: tuple[int, ...], most: int, ends: frozenset[int]) -> tuple[list[int], bool]:
    """Token by token: (what is said, whether it ended)."""
    said: list[int] = []
    for _ in range(most):
        token = next_((*prompt, *said))
        if token in ends:
            return said, True
        said.append(token)
    return said, False


class Scripted:
    """In an engine's place: the next token is a function of all before."""

    def __init__(self, next_: Next) -> None:
        self.next, self.largest, self.forwards = next_, 0, 0

    def next_tokens(self, sequences: Sequence[Sequence[int]], first: Sequence[int]) -> list[list[int]]:
        self.forwards += 1
        self.largest = max(self.largest, len(sequences) * max(map(len, sequences)))
        return [
            [self.next(tuple(ids[: i + 1])) for i in range(start, len(ids))]
            for ids, start in zip(sequences, first, strict=True)
        ]


def example(prompt: tuple[int, ...], answers: Sequence[Sequence[int]], right: int) -> Example:
    queries = [
        Query(c, len(prompt) - 1 + j, token, c) for c, answer in enumerate(answers) for j, token in enumerate(answer)
    ]
    sequences = tuple((*prompt, *answer[:-1]) for answer in answers)
    return Example(
        sequences, tuple(queries), right, len(answers), "accuracy", (*prompt, *answers[right], 4), len(prompt)
    )


WORDS = st.text("abc ", min_size=1, max_size=4).map(str.strip).filter(bool)


@given(
    labels=st.lists(WORDS, min_size=2, max_size=4, unique=True),
    prompts=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple), min_size=1, max_size=5),
    loyal=st.lists(st.booleans(), min_size=12, max_size=12),
    seed=st.integers(0, 99),
    tokens=st.sampled_from([1, 16, 4096]),
    rank=st.randoms(use_true_random=False),
)
def test_it_is_plain_greedy_text(
    labels: list[str], prompts: list[tuple[int, ...]], loyal: list[bool], seed: int, tokens: int, rank: Any
) -> None:
    """On models that say a label, a label and more, half of one, white space, or anything at all."""
    known = Verbalizer(tuple(labels), ENDS, text_of)
    answers = [[LETTERS.index(letter) for letter in label] for label in labels]

    def next_(ids: tuple[int, ...]) -> int:
        """Mostly along a label, which the prompt chooses, and now and then elsewhere."""
        drawn = int.from_bytes(hashlib.blake2b(bytes([seed, *ids]), digest_size=4).digest())
        prompt = next(p for p in sorted(prompts, key=len, reverse=True) if ids[: len(p)] == p)
        answer, at = answers[hash(prompt) % len(answers)], len(ids) - len(prompt)
        if loyal[drawn % 12]:
            return answer[at] if at < len(answer) else 4
        return drawn // 12 % 6

    rows = [example(prompt, answers, i % len(labels)) for i, prompt in enumerate(prompts)]
    ranks = [rank.sample(range(len(labels)), len(labels)) for _ in rows]
    engine = Scripted(next_)
    found = say(engine, rows, ranks, known, tokens)  # type: ignore[arg-type]
    longest = max(map(len, answers))
    for row, each in zip(rows, found, strict=True):
        said, ended = naive(next_, row.text[: row.begins], longest + 1, ENDS)
        assert each.label == (known.number(text_of(said)) if ended else None)
        assert text_of(said).startswith(each.text) and (each.label is None or each.text == text_of(said))
    assert engine.largest <= max(tokens, max(len(row.text) for row in rows) + longest)


@pytest.mark.parametrize(("says", "label"), [("ab", 0), ("cb", None)])
def test_one_forward_is_enough(says: str, label: int | None) -> None:
    """Where a label is said that was tried first, and where the first token is that of no label."""
    engine = Scripted(lambda ids: LETTERS.index(says[len(ids) - 1]) if len(ids) <= len(says) else 4)
    row = example((3,), [[0, 1], [1]], 0)
    (found,) = say(engine, [row], [[0, 1]], Verbalizer(("ab", "b"), ENDS, text_of), 64)  # type: ignore[arg-type]
    assert found.label == label and engine.forwards == 1


@pytest.mark.parametrize(
    ("text", "number"), [("yes", 1), (" yes\n", 1), ("no", 0), ("Yes", None), ("yes.", None), ("", None), ("ye", None)]
)
def test_a_text_is_a_label(text: str, number: int | None) -> None:
    """If it is the label's own text, but for white space around it."""
    assert Verbalizer(("no", "yes"), ENDS, text_of).number(text) == number


def test_text_is_given_up_where_no_label_is_left() -> None:
    known = Verbalizer(("a long way", "über"), ENDS, text_of)
    for text in ("", " ", "a", "a ", " a  lo", "a long way", "\ufffd", "ü"):
        assert known.may_become_label(text)
    for text in ("b", "a long way down", "a short", "U"):
        assert not known.may_become_label(text)


# ---- on models


def bigrams(tiny: Path, tokenizer: PreTrainedTokenizerFast, after: dict[str, str], folder: Path) -> Path:
    """A model in which one token decides the next: those of `after`, and "x" behind all others."""
    model = LlamaForCausalLM.from_pretrained(tiny)
    model.config.tie_word_embeddings = False
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    model.model.norm.weight.data.fill_(1.0)
    embedded = torch.nn.functional.normalize(torch.randn(300, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    head = torch.full((300, 64), 0.0)
    ids: dict[str, int] = tokenizer.get_vocab()
    for before, i in ids.items():
        head[ids[after.get(before, "x")]] += embedded[i] * (20.0 if before in after else 1.0)
    model.model.embed_tokens.weight = torch.nn.Parameter(embedded)
    model.lm_head.weight = torch.nn.Parameter(head)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


END = "<|im_end|>"
STORIES = {
    "a label": ({":": "Ġyes", "Ġyes": END}, "yes"),
    "a label and more": ({":": "Ġyes", "Ġyes": "Ġno", "Ġno": END}, ""),
    "a label without an end": ({":": "Ġyes", "Ġyes": "Ċ"}, ""),
    "another word": ({":": "T", "T": END}, ""),
    "a label of several tokens": ({":": "Ġ", "Ġ": "o", "o": "x", "x": END}, "ox"),
    "a label by other tokens": ({":": "Ġ", "Ġ": "y", "y": "e", "e": "s", "s": END}, "yes"),
    "an end at once": ({":": END}, ""),
    "white space": ({":": "Ġ", "Ġ": END}, ""),
}


@pytest.mark.parametrize("story", STORIES)
def test_what_a_model_says_is_counted(
    recipe: Make, folder: Callable[..., Path], tiny: Path, tokenizer: Any, tmp_path: Path, story: str
) -> None:
    """The share of rows whose text is a label, the share that it is right for, and the text itself."""
    after, label = STORIES[story]
    model = bigrams(tiny, tokenizer, after, tmp_path / "model")
    data = folder(labels=("no", "yes", "ox", "river"))
    run = prepare(recipe(model__name=str(model), data__path=str(data), data__template="{text}:{label}"))
    if story != "a label by other tokens":
        run = prepare(recipe(model__name=str(model), data__path=str(data), data__template="{text}: {label}"))
    rows = run.examples["dev"]
    found = evaluate(run.engine, rows, "dev", 0, verbalizer=run.verbalizer)
    labels = run.verbalizer.labels if run.verbalizer else ()
    wanted = sum(label == labels[row.answer] for row in rows) / len(rows)
    assert (found.says, found.said_right) == (float(bool(label)), wanted)
    for each in predictions(run.engine, rows, verbalizer=run.verbalizer):
        assert each.said is not None and (each.said.text.strip() == label or not label)


@pytest.mark.parametrize("labels", [("yes", "no"), ("a river", "a sea of blue", "no")])
@pytest.mark.parametrize("at_once", [1, 4096])
def test_transformers_says_the_same(
    recipe: Make, folder: Callable[..., Path], labels: tuple[str, ...], at_once: int
) -> None:
    """Rows of different lengths, each alone in transformers' own greedy text."""
    run = prepare(recipe(data__path=str(folder(labels=labels, dev=12))))
    plain = models.plain(models.resolve(run.recipe.model.name), "float32", torch.device("cpu"), Path("unused"))
    known, rows = run.verbalizer, run.examples["dev"]
    assert known is not None and len({row.begins for row in rows}) > 1
    longest = max(len(answer) for answer in answers_of(rows[0]))
    # Texts of a random model as labels too: then some of what it says is one.
    own = [_generated(plain, row, longest, known) for row in rows[:4]]
    known = Verbalizer((*known.labels, *dict.fromkeys(t.strip() for t, _ in own)), known.ends, known.decode)
    for row, said in zip(rows, _said(run.engine, rows, known, at_once), strict=True):
        text, ended = _generated(plain, row, longest, known)
        assert text.startswith(said.text) and said.label == (known.number(text) if ended else None)


def _generated(plain: Any, row: Example, longest: int, known: Verbalizer) -> tuple[str, bool]:
    prompt = torch.tensor([row.text[: row.begins]])
    out = plain.generate(prompt, do_sample=False, max_new_tokens=longest + 1, eos_token_id=sorted(known.ends))
    said = out[0, prompt.shape[1] :].tolist()
    ended = said[-1] in known.ends
    return known.decode(said[:-1] if ended else said), ended


def _said(engine: Any, rows: Sequence[Example], known: Verbalizer, tokens: int) -> list[Said]:
    with torch.inference_mode():
        return say(engine, rows, [list(range(row.candidates)) for row in rows], known, tokens)
