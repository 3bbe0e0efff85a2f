"""Claims about losses: what is computed at a few positions, in chunks, is the objective by its definition."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from zolite.data import rows as tables
from zolite.data.batch import collate
from zolite.data.template import Example, answer_of, encode, prompt_of
from zolite.model import load as models
from zolite.model import loss
from zolite.model.loss import candidate_scores, loss_sums, token_logprobs

CPU = torch.device("cpu")
TEMPLATE = "{text}\nKind: {label}"
LABELS = {
    "one token each": ("yes", "no"),  # with the space before it, one token
    "many tokens": ("up", "upwards", "sideways", "upper left"),  # of different lengths, one the start of others
}


@dataclass(frozen=True)
class Case:
    """Rows as examples, and as the tokens that they were made of."""

    examples: tuple[Example, ...]
    prompts: list[list[int]]
    answers: list[list[list[int]]]  # of each row, its candidates
    right: list[int]


@pytest.fixture(scope="session")
def model(tiny: Path) -> Any:
    return models.load(models.resolve(str(tiny)), "float32", CPU, tiny.parent).model


@pytest.fixture
def case(folder: Callable[..., Path], tokenizer: Any) -> Callable[[str], Case]:
    """case("one token each" | "many tokens" | "completions")."""

    def ids(text: str, special: bool = False) -> list[int]:
        return list(tokenizer(text, add_special_tokens=special)["input_ids"])

    def labelled(labels: Sequence[str]) -> Case:
        data = tables.load(folder("label", labels=tuple(labels)), TEMPLATE)
        rows = data.splits["train"][:7]
        answers = [ids(answer_of(label, TEMPLATE)) for label in data.labels]
        return Case(
            encode(rows, "label", data.labels, tokenizer, TEMPLATE, 128).examples,
            [ids(prompt_of(row, TEMPLATE), special=True) for row in rows],
            [answers for _ in rows],
            [data.labels.index(row.columns["label"]) for row in rows],
        )

    def completions() -> Case:
        data = tables.load(folder("completion"), TEMPLATE)
        rows = data.splits["train"][:7]
        return Case(
            encode(rows, "completion", (), tokenizer, TEMPLATE, 128).examples,
            [ids(row.columns["prompt"], special=True) for row in rows],
            [[[*ids(row.columns["completion"]), tokenizer.eos_token_id]] for row in rows],
            [0 for _ in rows],
        )

    return lambda what: completions() if what == "completions" else labelled(LABELS[what])


def naive_sum(naive: ModuleType, model: Any, case: Case) -> float:
    """The summed objective of all rows."""
    each = zip(case.prompts, case.answers, case.right, strict=True)
    if len(case.answers[0]) > 1:
        return sum(naive.label_loss(model, p, answers, right) for p, answers, right in each)
    return sum(naive.token_losses(model, p, answers[0]) for p, answers, _ in each)


EVERY_CASE = [*LABELS, "completions"]


@pytest.mark.parametrize("what", EVERY_CASE)
@pytest.mark.parametrize("points", [1, 3])
@torch.inference_mode()
def test_losses_and_scores_follow_their_definition(
    case: Callable[[str], Case], model: Any, naive: ModuleType, what: str, points: int
) -> None:
    """Sums and scores equal a loop over rows, candidates and tokens with whole logits, at every point."""
    rows = case(what)
    batch = collate(rows.examples, CPU)
    sums, scores = loss_sums(model, batch, points), candidate_scores(model, batch, points)
    assert sums.dtype == scores.dtype == torch.float32
    assert sums.tolist() == pytest.approx([naive_sum(naive, model, rows)] * points, rel=1e-5)
    wanted = [
        [naive.mean_logprob(model, p, a) for a in answers]
        for p, answers in zip(rows.prompts, rows.answers, strict=True)
    ]
    for k in range(points):
        torch.testing.assert_close(scores[k], torch.tensor(wanted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("what", EVERY_CASE)
def test_the_weight_counts_rows_with_labels_and_tokens_elsewhere(case: Callable[[str], Case], what: str) -> None:
    """A sum of losses is divided by the rows where they have labels, else by the answers' tokens, the end included."""
    rows = case(what)
    tokens = sum(len(answers[0]) for answers in rows.answers)
    assert collate(rows.examples, CPU).weight == (tokens if what == "completions" else len(rows.examples))


@pytest.mark.parametrize("what", EVERY_CASE)
@torch.inference_mode()
def test_chunks_change_nothing(
    case: Callable[[str], Case], model: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Logits of one position at a time give what all at once give, up to float32 rounding."""
    batch = collate(case(what).examples, CPU)
    heads: list[int] = []
    head = loss.Head.__call__

    def counted(self: loss.Head, hidden: torch.Tensor) -> torch.Tensor:
        heads.append(hidden.shape[1])
        return head(self, hidden)

    monkeypatch.setattr(loss.Head, "__call__", counted)
    whole = token_logprobs(model, batch, 2)
    positions = len(batch.spans) - 1
    assert heads == [positions]
    for at_once in (1, 3):
        heads.clear()
        monkeypatch.setattr(loss, "CHUNK_NUMBERS", at_once * 2 * 300)
        parts = token_logprobs(model, batch, 2)
        assert max(heads) == at_once and sum(heads) == positions
        torch.testing.assert_close(parts, whole, rtol=2e-6, atol=2e-6)
    monkeypatch.setattr(loss, "CHUNK_NUMBERS", 1)  # less than one position's
    torch.testing.assert_close(token_logprobs(model, batch, 2), whole, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("what", EVERY_CASE)
@torch.inference_mode()
def test_padding_changes_nothing(case: Callable[[str], Case], model: Any, what: str) -> None:
    """A row scores the same alone and between longer ones."""
    rows = case(what).examples
    assert len({len(s) for row in rows for s in row.sequences}) > 1  # there is padding
    together = candidate_scores(model, collate(rows, CPU), 1)[0]
    for i, row in enumerate(rows):
        alone = candidate_scores(model, collate([row], CPU), 1)[0, 0]
        torch.testing.assert_close(together[i], alone, rtol=1e-5, atol=1e-5)


SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


def special_head(what: str) -> Any:
    """A small model of an architecture whose head does more than multiply."""
    torch.manual_seed(6)
    if what == "softcap":
        made = Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=16, final_logit_softcapping=2.0))
    elif what == "multiplied":
        made = CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25))
    elif what == "divided":
        made = GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=4.0))
    else:
        made = PhiForCausalLM(PhiConfig(**SMALL))
        torch.nn.init.normal_(made.lm_head.bias)
    return made.eval()


@pytest.mark.parametrize("what", ["softcap", "multiplied", "divided", "bias"])
@torch.inference_mode()
def test_special_heads_are_heeded(case: Callable[[str], Case], naive: ModuleType, what: str) -> None:
    """Gemma's soft cap, Cohere's factor, Granite's divisor, Phi's bias: losses are those of the model's logits."""
    model, rows = special_head(what), case("many tokens")
    got = loss_sums(model, collate(rows.examples, CPU), 1)
    assert float(got) == pytest.approx(naive_sum(naive, model, rows), rel=1e-5)
    head = loss.Head.of(model)
    bare = loss.Head(torch.nn.Linear(32, 300, bias=False), None, 1.0)
    bare.module.weight = model.get_output_embeddings().weight
    hidden = loss.hidden_states(model, torch.tensor([[5, 6, 7]]))
    assert (head(hidden) - bare(hidden)).abs().max() > 0.1  # the special part does something here
