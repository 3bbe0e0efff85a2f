"""What an export writes: a session's adapter at a step, and the model that it is for."""

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zolite.common import weight_headers
from zolite.common.errors import UsageError, ZoliteError
from zolite.common.events import Evaluated
from zolite.common.paths import paths
from zolite.config.architectures import ARCHITECTURES, TURNED, LlamaCpp
from zolite.config.recipe import ResolvedRecipe
from zolite.data import rows as tables
from zolite.data.chat_template import chat_of, filled
from zolite.data.examples import fills_masks
from zolite.data.kinds import completion, label
from zolite.data.kinds.kind import Kind, Prompt
from zolite.data.kinds.registry import KINDS
from zolite.model import load as models
from zolite.model import special_tokens
from zolite.sessions.session import Chapter, Session
from zolite.sessions.steps import chosen
from zolite.training.replay import factors_at


@dataclass(frozen=True)
class Trained:
    name: str  # the session's
    recipe: ResolvedRecipe
    facts: dict[str, Any]
    scores: list[Evaluated]  # of that step
    steps: tuple[int, ...]  # several: the factors are their mean
    factors: dict[str, Tensor]  # by block name ("model.layers.0.….a"), float32
    source: models.Source
    origin: Path  # the base model's config and tokenizer, and its 16-bit weights unless it is a GGUF file

    @property
    def scale(self) -> float:
        part = self.recipe.adapter
        return part.alpha / part.rank

    @functools.cached_property
    def layers(self) -> dict[str, tuple[Tensor, Tensor]]:
        """A (r, in) and B (out, r) by the layer's full name."""
        names = sorted({name.rpartition(".")[0] for name in self.factors})
        return {name: (self.factors[f"{name}.a"], self.factors[f"{name}.b"]) for name in names}

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The base model's config.json."""
        read: dict[str, Any] = json.loads((self.origin / "config.json").read_bytes())
        return read

    @functools.cached_property
    def dataset(self) -> tables.Dataset | None:
        """The rows, as they lie there now; None where they are gone or others."""
        try:
            return tables.of(self.recipe.data)
        except UsageError:
            return None

    @functools.cached_property
    def kind(self) -> Kind:
        """Of the rows that were trained on."""
        return kind_of(self.recipe, self.facts["labels"])

    @functools.cached_property
    def prompt(self) -> Prompt:
        """How the model is prompted, as it was in training."""
        prompt = self.kind.prompt(self.recipe.data.template)
        return prompt if prompt.plain is None else prompt.of_model(bool(tokenizer_of(self).chat_template))

    @functools.cached_property
    def encoder(self) -> bool:
        """Is it a model that fills in masks, and writes no text?"""
        return fills_masks(tokenizer_of(self))

    @property
    def architecture(self) -> str:
        """As transformers calls its class."""
        return str((self.config.get("architectures") or ["an architecture without a name"])[0])

    @property
    def llama_cpp(self) -> LlamaCpp | None:
        """What llama.cpp knows of the architecture; None where zolite cannot say."""
        known = ARCHITECTURES.get(str(self.config.get("model_type")))
        return known.llama_cpp if known else None

    @property
    def turned(self) -> bool:
        """Do weights lie in its files as (in, out), unlike those of linear layers?"""
        return self.config.get("model_type") in TURNED

    @property
    def adapter_bytes(self) -> int:
        """Of all factors in float32."""
        return sum(4 * t.numel() for t in self.factors.values())

    @property
    def gguf(self) -> Path | None:
        """The base model's own GGUF file, if it comes from one."""
        return self.source.gguf

    @property
    def base_bytes(self) -> int:
        """Of the base model's weights: as they lie in its files, of a GGUF file in 16 bits."""
        if self.gguf:
            return 2 * sum(math.prod(shape) for shape in weight_headers.gguf(self.gguf).tensors.values())
        return sum(file.stat().st_size for file in self.origin.glob("*.safetensors"))


def kind_of(recipe: ResolvedRecipe, labels: Sequence[str]) -> Kind:
    """Of the rows that a session was trained on, as they lie there now; `labels` are those that it recorded."""
    try:
        found = tables.of(recipe.data)
    except UsageError:  # they are gone or others
        found = None
    if found is not None and bool(found.labels) == bool(labels):
        return KINDS[found.kind]
    return label.KIND if labels else completion.KIND  # the latter takes prompts as they are typed


def tokenizer_of(trained: Trained) -> Any:
    """The model's tokenizer, its chat template with the session's arguments and date."""
    return filled(models.tokenizer(trained.source, paths()["cache"]), chat_of(trained.recipe.data, trained.facts))


def ends(trained: Trained, tokenizer: Any) -> list[int]:
    """Tokens that end a text, as the model's generation settings, its tokenizer and its chat template have them."""
    file = trained.origin / "generation_config.json"
    ids = json.loads(file.read_bytes()).get("eos_token_id") if file.is_file() else None
    return sorted(special_tokens.ends(tokenizer, ids))


def begins_by_itself(tokenizer: Any) -> bool:
    """Whether a text that is typed gets a token in front of it that nobody typed."""
    return tokenizer.bos_token_id is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]


def longest_label(trained: Trained, tokenizer: Any) -> int:
    """Tokens of the session's longest label."""
    return max(len(tokenizer(f" {label}", add_special_tokens=False).input_ids) for label in trained.facts["labels"])


def trained(session: Session, which: str) -> Trained:
    """`which` is last, best, a step, or several with commas between, whose numbers are averaged."""
    found = dict(factors_at(session, chosen(session, what.strip())) for what in which.split(","))
    steps, parts = tuple(sorted(found)), list(found.values())
    chapter = _chapter(session, steps)
    mean = {name: torch.stack([p[name] for p in parts]).mean(dim=0) for name in parts[0]}
    source, known = models.source_of(chapter.recipe.model), chapter.facts["model"]
    if source.path and models.fingerprint_of(source.path) != known:
        raise ZoliteError(
            f"the weights at {source.path} are no longer those that session {session.name} was trained on",
            "put the model back as it was",
        )
    origin = models.original(source, known.rpartition("@")[2], paths()["cache"])
    scores = [e for e in session.journal.evaluations() if steps == (e.step,)]
    return Trained(session.name, chapter.recipe, chapter.facts, scores, steps, mean, source, origin)


def _chapter(session: Session, steps: tuple[int, ...]) -> Chapter:
    """The recipe that a step was taken with; steps of different adapters have no mean."""
    own = [[c for c in session.chapters if c.since < step or c is session.chapters[0]][-1] for step in steps]
    if any(chapter.recipe.adapter != own[0].recipe.adapter for chapter in own):
        raise UsageError(
            f"steps {', '.join(map(str, steps))} of session {session.name} were taken with different adapters",
            "export one of them",
        )
    return own[-1]


def delta(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """What a layer's weight (out, in) gains, float32."""
    return torch.mm(b, a).mul_(scale)
