"""Try a session: what the model says without its adapter and with it, side by side, token by token.

    with open_("first", "best") as talk:
        for said in talk.reply("Where is my parcel?"):
            ...                                  # Piece, Piece, …, and at last Answer

A prompt is made as the rows were that were trained on, and what comes back is what any tool gets that takes the
likeliest token each time. The base model and the tuned one are two copies of one batch, so a token of both costs one
forward.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
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
from zolite.data.examples import Example, Tokens, tokenized
from zolite.engine.adapter import attach
from zolite.engine.engine import Engine
from zolite.model import devices
from zolite.model import load as models
from zolite.model.special_tokens import ends_of
from zolite.sessions import session as sessions
from zolite.sessions.session import Session
from zolite.sessions.steps import chosen
from zolite.tools.prompt import Asked, Message, Prompt, prompt_of
from zolite.training.generate import last_logits, padded, places
from zolite.training.replay import factors_at
from zolite.zo.space import Space

TOKENS = {"chat": 256, "text": 64}  # of an answer, where no other number is asked for
SIDES = ("base", "tuned")


@dataclass(frozen=True)
class Piece:
    """More of an answer; `side` is base or tuned."""

    side: str
    text: str


@dataclass(frozen=True)
class Answer:
    """Both answers whole, and by side what is told of them."""

    base: str
    tuned: str
    tokens: int
    seconds: float
    finish: dict[str, str]  # stop: it ended by itself; length: it was cut
    notes: dict[str, str]  # what a person should know: that it was cut, that it is no label
    label: dict[str, str]  # the label that was said, "" for none of them; empty where rows have no labels
    shares: dict[str, dict[str, float]]  # each label's among them all, the likeliest first; empty if not asked for


@dataclass
class _Side:
    name: str
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    ended: bool = False

    def hear(self, token: int, ends: frozenset[int], tokenizer: Any) -> Iterator[Piece]:
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
    system: str = ""  # the message that a conversation begins with
    step: int = 0
    past: dict[str, list[Message]] = field(default_factory=lambda: {side: [] for side in SIDES})

    @torch.inference_mode()
    def turn_to(self, which: str) -> int:
        """Take the adapter after another step: a number, last or best. No step's numbers change while it is open."""
        self.step, factors = factors_at(self.session, chosen(self.session, which))
        self.engine.adapter.put_(factors)
        return self.step

    def begin(self, system: str | None = None) -> None:
        """A new conversation, with another system message where one is given; "" is none."""
        if system:
            self.prompt.check_system(self.tokenizer, system)
        self.system = self.system if system is None else system
        self.past = {side: [] for side in SIDES}

    @torch.inference_mode()
    def reply(self, asked: Asked, tokens: int | None = None, shares: bool = False) -> Iterator[Piece | Answer]:
        """The likeliest token after the prompt, appended, and again, until it ends or there are `tokens`.

        A conversation goes on with it; each side remembers its own answers. `shares`: of labels how likely each is. An
        encoder says its likeliest tokens at the masks, as many as the likeliest label has, and always the shares.
        Raises UsageError where the rows of training could not be so, or the model's context has no room.
        """
        began, given = time.monotonic(), self.prompt.given(asked)
        if self.engine.loaded.encoder:
            yield from self._filled(given, began)
            return
        tokens = tokens or TOKENS["chat" if self.prompt.chat else "text"]
        prompts, sides = [self._tokens(side, given) for side in SIDES], [_Side(name) for name in SIDES]
        room = self._context() - max(map(len, prompts))
        yield from self._continued(prompts, min(tokens, room), sides)
        if self.prompt.chat:
            for side in sides:
                turn = {"role": "user", "content": str(given["prompt"])}, {"role": "assistant", "content": side.text}
                self.past[side.name] += turn
        found = self._shares(given) if shares and self.prompt.labels else {}
        cut = f"cut at {tokens:,} tokens" if tokens < room else f"cut where the context of {self._context():,} ends"
        yield self._answer(sides, cut, time.monotonic() - began, found)

    def _answer(self, sides: Sequence[_Side], cut: str, seconds: float, shares: dict[str, dict[str, float]]) -> Answer:
        labels, texts = self.prompt.labels, {side.name: side.text for side in sides}
        said = {name: text.strip() if text.strip() in labels else "" for name, text in texts.items()}
        return Answer(
            **texts,
            tokens=max(len(side.tokens) for side in sides),
            seconds=seconds,
            finish={side.name: "stop" if side.ended else "length" for side in sides},
            notes={side.name: _note(side, labels, cut) for side in sides},
            label=said if labels else {},
            shares=shares,
        )

    def _continued(self, prompts: Sequence[Tokens], tokens: int, sides: Sequence[_Side]) -> Iterator[Piece]:
        """Both sides at once, in two copies of one batch."""
        ids, mask = padded(prompts, self.engine.loaded.device)
        ends, past = ends_of(self.engine.loaded.model, self.tokenizer), None
        base, tuned = self.space.copies
        base.zero_()  # with B at zero an adapter adds nothing
        tuned.copy_(self.space.theta)
        self.engine.adapter.active.copies = 2
        model = self.engine.loaded.model
        last = last_logits(model)
        for _ in range(tokens):
            with _room(self.engine.loaded):
                out = model(input_ids=ids, past_key_values=past, use_cache=True, **places(mask, ids.shape[1]), **last)
            ids, past = out.logits[:, -1].argmax(dim=-1, keepdim=True), out.past_key_values
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            for side, token in zip(sides, ids[:, 0].tolist(), strict=True):
                yield from side.hear(token, ends, self.tokenizer)
            if all(side.ended for side in sides):
                return

    def _filled(self, given: Mapping[str, Any], began: float) -> Iterator[Piece | Answer]:
        """An encoder's answer."""
        (row,), sides = self._row(given), [_Side(name) for name in SIDES]
        shares = self._compared((row,))
        for side in sides:
            best = self.prompt.labels.index(next(iter(shares[side.name])))
            masks = [query for query in row.queries if query.candidate == best]
            with self._as(side.name):
                ids, first = row.sequences[masks[0].sequence], min(query.position for query in masks)
                (said,) = self.engine.next_tokens([ids], [first])
            for token in said[: len(masks)]:
                yield from side.hear(token, frozenset(), self.tokenizer)
            side.text, side.ended = side.text.strip(), True
        yield self._answer(sides, "", time.monotonic() - began, shares)

    def _shares(self, given: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """As accuracy is measured; none where the prompt is longer than those that were trained on could be."""
        try:
            return self._compared(self._row(given))
        except UsageError:
            return {}

    def _row(self, given: Mapping[str, Any]) -> Sequence[Example]:
        data, labels, kind = self.recipe.data, self.prompt.labels, self.prompt.kind.name
        return encode((self.prompt.row(given),), kind, labels, self.tokenizer, data.template, data.context).examples

    def _compared(self, row: Sequence[Example]) -> dict[str, dict[str, float]]:
        found = {}
        for side in SIDES:
            with self._as(side):
                shares = self.engine.scores(row)[0].softmax(dim=0).tolist()
            ranked = sorted(zip(self.prompt.labels, shares, strict=True), key=lambda each: -each[1])
            found[side] = dict(ranked)
        return found

    @contextmanager
    def _as(self, side: str) -> Iterator[None]:
        """θ is a side's own, inside."""
        tuned = self.space.theta.clone()
        try:
            if side == "base":
                self.space.theta.zero_()
            with _room(self.engine.loaded):
                yield
        finally:
            self.space.theta.copy_(tuned)

    @property
    def space(self) -> Space:
        return self.engine.adapter.space

    def _tokens(self, side: str, given: Mapping[str, Any]) -> Tokens:
        """The prompt as training had it."""
        chat, past = self.prompt.chat, self.past[side]
        text = self.prompt.turn(self.tokenizer, self.system, past, given) if chat else self.prompt.text(given)
        (ids,) = tokenized(self.tokenizer, [text], special=not chat)  # a chat template spells them itself
        if not ids or len(ids) >= self._context():
            what = f"a prompt of {len(ids):,} tokens, where the model has a context of {self._context():,}"
            begin = "begin a new conversation (/new), or say less" if past else "say less"
            raise UsageError(what, begin if ids else "say something")
        return ids

    def _context(self) -> int:
        return int(getattr(self.engine.loaded.model.config, "max_position_embeddings", 2**31))


@contextmanager
def open_(name: str, which: str = "last", system: str | None = None) -> Iterator[Talk]:
    """A session's model, loaded for talking. `system`: None for the message that all rows began with, "" for none."""
    with sessions.open_(name) as session:
        chosen(session, which)  # before a model is loaded in vain
        changes = {"adapter.space": "lora", "adapter.start": "", "train.copies": 2}  # every factor is given, A's too
        recipe = recipes.resolve(recipes.override(session.recipe, changes))
        source, device = models.source_of(recipe.model), devices.pick(recipe.model.device)
        tokenizer = filled(models.tokenizer(source, paths()["cache"]), chat_of(recipe.data, session.facts))
        prompt = prompt_of(session, bool(tokenizer.chat_template))
        if system:
            prompt.check_system(tokenizer, system)
        loaded = models.load(source, recipe.model.quant, device, paths()["cache"])
        engine = Engine.of(loaded, attach(loaded, recipe), recipe)
        talk = Talk(session, recipe, engine, tokenizer, prompt, prompt.system if system is None else system)
        talk.turn_to(which)
        yield talk


def _note(side: _Side, labels: Sequence[str], cut: str) -> str:
    """What a text alone does not tell."""
    kept = "white space alone" if side.text else "special tokens alone" if side.tokens else "nothing"
    blank = [] if side.text.strip() else [kept]
    stranger = [f"not one of the {len(labels)} labels"] if labels and side.text.strip() not in labels else []
    return ", ".join(blank + stranger + ([] if side.ended else [cut]))


@contextmanager
def _room(loaded: models.Loaded) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DoesNotFit(
            f"{loaded.source.name} loaded, but {loaded.device} has no memory left to answer with",
            "pause or stop what else uses the device, or say less",
        ) from error
