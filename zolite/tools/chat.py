"""Try a session: what the model answers without its adapter and with it, side by side, token by token.

    with open_("first", "best") as talk:
        for answer in talk.reply("Where is my parcel?"):
            ...                                  # Piece, Piece, …, and at last Answer

The base model and the tuned one are two copies of one batch, so a token of both costs one forward. Of a session on rows
with labels the answer is how likely the labels are.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from zolite.common.errors import DoesNotFit, UsageError
from zolite.common.paths import paths
from zolite.config import recipe as recipes
from zolite.config.recipe import ResolvedRecipe
from zolite.data.chat_template import chat_of, filled
from zolite.data.encode import encode
from zolite.data.examples import tokenized
from zolite.data.kinds.kind import Row
from zolite.data.kinds.registry import KINDS
from zolite.engine.adapter import attach
from zolite.engine.engine import Engine
from zolite.export.source import kind_of
from zolite.model import load as models
from zolite.sessions import session as sessions
from zolite.sessions.session import Session
from zolite.sessions.steps import chosen
from zolite.training.replay import factors_at
from zolite.zo.space import Space

TOKENS = 64  # of an answer, where no other number is asked for
SHOWN = 3  # labels, the likeliest first


@dataclass(frozen=True)
class Piece:
    """More of an answer; `side` is base or tuned."""

    side: str
    text: str


@dataclass(frozen=True)
class Answer:
    """Both answers whole."""

    base: str
    tuned: str
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Prompt:
    """What is put around a text, as the rows were that were trained on."""

    fill: Callable[[str], str]
    special: bool = True  # the tokenizer's own beginning goes before it
    labels: tuple[str, ...] = ()  # one of them is the answer, where the text is the column `column` of a row
    column: str = ""
    kind: str = ""  # of that row


@dataclass
class _Side:
    name: str
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    ended: bool = False

    def hear(self, token: int, ends: set[int], tokenizer: Any) -> Iterator[Piece]:
        """Take in a token. Half a character waits for its other half."""
        self.ended = self.ended or token in ends
        if self.ended:
            return
        self.tokens.append(token)
        text = str(tokenizer.decode(self.tokens, skip_special_tokens=True))
        if not text.endswith("\ufffd") and len(text) > len(self.text):
            yield Piece(self.name, text[len(self.text) :])
            self.text = text


@dataclass
class Talk:
    """A session's model with two copies: no adapter, and the adapter after `step`."""

    session: Session
    recipe: ResolvedRecipe
    engine: Engine
    tokenizer: Any
    prompt: Prompt
    step: int = 0

    @torch.inference_mode()
    def turn_to(self, which: str) -> int:
        """Take the adapter after another step: a number, last or best. No step's numbers change while it is open."""
        self.step, factors = factors_at(self.session, chosen(self.session, which))
        self.engine.adapter.put_(factors)
        return self.step

    @torch.inference_mode()
    def reply(self, text: str, tokens: int = TOKENS) -> Iterator[Piece | Answer]:
        """Of labels how likely each is; else the likeliest token after the prompt, appended, and again."""
        began = time.monotonic()
        sides = (_Side("base"), _Side("tuned"))
        yield from self._labelled(text, sides) if self.prompt.labels else self._continued(text, tokens, sides)
        count = max(len(side.tokens) for side in sides)
        yield Answer(sides[0].text, sides[1].text, count, time.monotonic() - began)

    def _labelled(self, text: str, sides: tuple[_Side, _Side]) -> Iterator[Piece]:
        """As accuracy is measured: by the mean log-probability of each label's tokens."""
        data, labels = self.recipe.data, self.prompt.labels
        row = Row(1, {self.prompt.column: text, KINDS[self.prompt.kind].label_column: labels[0]})
        examples = encode((row,), self.prompt.kind, labels, self.tokenizer, data.template, data.context).examples
        tuned = self.space.theta.clone()
        for side, theta in zip(sides, (torch.zeros_like(tuned), tuned), strict=True):
            self.space.theta.copy_(theta)
            with _room(self.engine.loaded):
                shares = self.engine.scores(examples)[0].softmax(dim=0).tolist()
            ranked = sorted(zip(shares, labels, strict=True), reverse=True)[:SHOWN]
            side.text = ", ".join(f"{label} {share:.0%}" for share, label in ranked)
            yield Piece(side.name, side.text)

    def _continued(self, text: str, tokens: int, sides: tuple[_Side, _Side]) -> Iterator[Piece]:
        """Both sides at once, in two copies of one batch."""
        ids, ends, past = self._start(text), self._ends(), None
        base, tuned = self.space.copies
        base.zero_()  # with B at zero an adapter adds nothing
        tuned.copy_(self.space.theta)
        self.engine.adapter.active.copies = 2
        model = self.engine.loaded.model
        for _ in range(min(tokens, self._context() - ids.shape[1])):
            with _room(self.engine.loaded):
                out = model(input_ids=ids, past_key_values=past, use_cache=True)
            ids, past = out.logits[:, -1].argmax(dim=-1, keepdim=True), out.past_key_values
            for side, token in zip(sides, ids[:, 0].tolist(), strict=True):
                yield from side.hear(token, ends, self.tokenizer)
            if all(side.ended for side in sides):
                return

    @property
    def space(self) -> Space:
        return self.engine.adapter.space

    def _start(self, text: str) -> torch.Tensor:
        """The prompt (2, T), once for either side."""
        (ids,) = tokenized(self.tokenizer, [self.prompt.fill(text)], self.prompt.special)
        if not ids or len(ids) >= self._context():
            what = f"a prompt of {len(ids):,} tokens, where the model has a context of {self._context():,}"
            raise UsageError(what, "say less" if ids else "say something")
        return torch.tensor([ids, ids], device=self.engine.loaded.device)

    def _context(self) -> int:
        return int(getattr(self.engine.loaded.model.config, "max_position_embeddings", 2**31))

    def _ends(self) -> set[int]:
        """Tokens that end a text, as the model's generation settings and its tokenizer have them."""
        known = getattr(self.engine.loaded.model, "generation_config", None)
        ids = getattr(known, "eos_token_id", None)
        more = [ids] if isinstance(ids, int) else ids or []
        return {i for i in (*more, self.tokenizer.eos_token_id) if i is not None}


@contextmanager
def open_(name: str, which: str = "last") -> Iterator[Talk]:
    """A session's model, loaded for talking."""
    with sessions.open_(name) as session:
        chosen(session, which)  # before a model is loaded in vain
        changes = {"adapter.space": "lora", "adapter.start": "", "train.copies": 2}  # every factor is given, A's too
        recipe = recipes.resolve(recipes.override(session.recipe, changes))
        source, device = models.resolve(recipe.model.name), models.pick_device(recipe.model.device)
        tokenizer = filled(models.tokenizer(source, paths()["cache"]), chat_of(recipe.data, session.facts))
        prompt = prompt_of(session, tokenizer)
        loaded = models.load(source, recipe.model.quant, device, paths()["cache"])
        talk = Talk(session, recipe, Engine.of(loaded, attach(loaded, recipe), recipe), tokenizer, prompt)
        talk.turn_to(which)
        yield talk


def prompt_of(session: Session, tokenizer: Any) -> Prompt:
    """Of a session's rows: its template, the model's chat template, or nothing."""
    labels, template = session.facts["labels"], session.recipe.data.template
    kind = kind_of(session.recipe, labels)
    asked = kind.prompt(template)
    if asked.chat:
        return Prompt(lambda text: _turn(tokenizer, text), special=False)
    if asked.column and labels:
        return Prompt(lambda text: text, labels=tuple(labels), column=asked.column, kind=kind.name)
    return Prompt(lambda text: asked.before + text + asked.after)


def _turn(tokenizer: Any, text: str) -> str:
    talk = [{"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True))


@contextmanager
def _room(loaded: models.Loaded) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DoesNotFit(
            f"{loaded.source.name} loaded, but {loaded.device} has no memory left to answer with",
            "pause or stop what else uses the device, or say less",
        ) from error
