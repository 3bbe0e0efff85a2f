"""Claims about losses: what is computed at a few positions, in chunks, is the objective by its definition."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from zolite.config import sizes
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.examples import Example, frame
from zolite.data.kinds.kind import Row
from zolite.data.kinds.label import answer_of, prompt_of
from zolite.engine.batch import Batch, collate
from zolite.model import load as models
from zolite.model.loss import Head, Tokens, candidate_scores, generic, likeliest, loss_sums

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
    asked: list[list[list[tuple[list[int], list[int]]]]]  # of each row, of each candidate: what follows on what
    right: list[int]


@pytest.fixture(scope="session")
def model(tiny: Path) -> Any:
    return models.load(models.resolve(str(tiny)), "float32", CPU, tiny.parent).model


@pytest.fixture
def case(folder: Callable[..., Path], tokenizer: Any) -> Callable[[str], Case]:
    """case("one token each" | "many tokens" | "completions" | "messages")."""

    def ids(text: str, special: bool = False) -> list[int]:
        return list(tokenizer(text, add_special_tokens=special)["input_ids"])

    def rows(kind: str, labels: Sequence[str] = ("yes", "no")) -> tuple[tables.Dataset, list[Any]]:
        data = tables.load(folder(kind, labels=tuple(labels)), TEMPLATE)
        return data, list(data.splits["train"][:7])

    def labelled(labels: Sequence[str]) -> Case:
        data, chosen = rows("label", labels)
        answers = [ids(answer_of(label, TEMPLATE)) for label in data.labels]
        return Case(
            encode(chosen, "label", data.labels, tokenizer, TEMPLATE, 128).examples,
            [[[(ids(prompt_of(row, TEMPLATE), special=True), answer)] for answer in answers] for row in chosen],
            [data.labels.index(row.columns["label"]) for row in chosen],
        )

    def completions() -> Case:
        _, chosen = rows("completion")
        ends = [[*ids(row.columns["completion"]), tokenizer.eos_token_id] for row in chosen]
        starts = [ids(row.columns["prompt"], special=True) for row in chosen]
        return Case(
            encode(chosen, "completion", (), tokenizer, TEMPLATE, 128).examples,
            [[[(start, end)]] for start, end in zip(starts, ends, strict=True)],
            [0 for _ in chosen],
        )

    def turns(messages: Sequence[dict[str, str]]) -> list[tuple[list[int], list[int]]]:
        text, found = "", []
        for message in messages:
            head = f"<|im_start|>{message['role']}\n"
            if message["role"] == "assistant":
                found.append((ids(text + head), ids(message["content"] + "<|im_end|>\n")))
            text += head + message["content"] + "<|im_end|>\n"
        return found

    def messages() -> Case:
        _, chosen = rows("messages")
        examples = encode(chosen, "messages", (), tokenizer, TEMPLATE, 128).examples
        return Case(examples, [[turns(row.messages)] for row in chosen], [0 for _ in chosen])

    others = {"completions": completions, "messages": messages}
    return lambda what: others[what]() if what in others else labelled(LABELS[what])


def naive_sum(naive: ModuleType, model: Any, case: Case) -> float:
    """The summed objective of all rows."""
    each = zip(case.asked, case.right, strict=True)
    if len(case.asked[0]) > 1:
        return sum(naive.label_loss(model, row[0][0][0], [c[0][1] for c in row], right) for row, right in each)
    return sum(naive.token_losses(model, *piece) for row, _ in each for piece in row[0])


def naive_score(naive: ModuleType, model: Any, pieces: Sequence[tuple[list[int], list[int]]]) -> float:
    """One candidate's mean token log-probability."""
    return -sum(naive.token_losses(model, *piece) for piece in pieces) / sum(len(answer) for _, answer in pieces)


def views(batch: Batch) -> Tokens:
    return Tokens.of(batch.layout, batch.flat)


def sums_of(model: Any, batch: Batch, points: int = 1) -> Tensor:
    return loss_sums(generic(model), Head.of(model), views(batch), points)


def scores_of(model: Any, batch: Batch, points: int = 1) -> Tensor:
    return candidate_scores(generic(model), Head.of(model), views(batch), points)


FAMILIES = ("gpt 2", "llama 3", "llama 2", "mistral, metaspace first", "gemma", "t5", "bert", "bytes, both ends")


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, families: Callable[[str], Any], tmp_path: Path) -> Path:
    """The folder of a tiny model with a tokenizer of that family."""
    tokenizer = families(request.param)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(1)  # global_state in conftest.py puts back what was
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@torch.inference_mode()
def test_losses_are_those_of_the_whole_text(family: Path, naive: ModuleType, tmp_path: Path) -> None:
    """Plain transformers on prompt + answer, tokenized as one text with what stands in front, has the same losses."""
    prompts, labels, completion = ("Is it here? Say it:", "Where is my parcel? Category:"), LABELS, " yes.\nno"
    tokenizer, plain = AutoTokenizer.from_pretrained(family), AutoModelForCausalLM.from_pretrained(family)
    source, labels = models.resolve(str(family)), ("maybe not", "no", "yes")
    ours, words = models.load(source, "float32", CPU, tmp_path).model, models.vocabulary(source, tmp_path)
    appended = len(frame(tokenizer)[1])
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]

    def parts(prompt: str, answer: str) -> tuple[list[int], list[int]]:
        start, text = (ids[: len(ids) - appended] for ids in tokenizer([prompt, prompt + answer])["input_ids"])
        assert text[: len(start)] == start
        return start, text[len(start) :]

    def batch(kind: str, *columns: dict[str, str]) -> Batch:
        rows = [Row(i, each) for i, each in enumerate(columns)]
        encoded = encode(rows, kind, labels, words.tokenizer, "{text} {label}", 128, table=words.table)
        return collate(encoded.examples)

    scores = scores_of(ours, batch("label", *({"text": p, "label": "no"} for p in prompts)))[0]
    right = [[naive_score(naive, plain, [parts(p, f" {label}")]) for label in labels] for p in prompts]
    torch.testing.assert_close(
        scores.log_softmax(dim=-1), torch.tensor(right).log_softmax(dim=-1), rtol=1e-5, atol=1e-5
    )
    sums = sums_of(ours, batch("completion", *({"prompt": p, "completion": completion} for p in prompts)))
    texts = [(start, rest + end) for start, rest in (parts(p, completion) for p in prompts)]
    assert sums.item() == pytest.approx(sum(naive.token_losses(plain, *text) for text in texts), rel=1e-5)


EVERY_CASE = [*LABELS, "completions", "messages"]


@pytest.mark.parametrize("what", EVERY_CASE)
@pytest.mark.parametrize("points", [1, 3])
@torch.inference_mode()
def test_losses_and_scores_follow_their_definition(
    case: Callable[[str], Case], model: Any, naive: ModuleType, what: str, points: int
) -> None:
    """Sums and scores equal a loop over rows, candidates and tokens with whole logits, at every point."""
    rows = case(what)
    batch = collate(rows.examples)
    sums, scores = sums_of(model, batch, points), scores_of(model, batch, points)
    assert sums.dtype == scores.dtype == torch.float32
    assert sums.tolist() == pytest.approx([naive_sum(naive, model, rows)] * points, rel=1e-5)
    wanted = torch.tensor([[naive_score(naive, model, pieces) for pieces in row] for row in rows.asked])
    assert batch.layout.single == (what == "one token each")
    if batch.layout.single:  # then scores are known up to a number a row
        scores, wanted = scores.log_softmax(dim=-1), wanted.log_softmax(dim=-1)
    for k in range(points):
        torch.testing.assert_close(scores[k], wanted, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_one_token_candidates_need_no_other_logits(
    case: Callable[[str], Case], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses and the softmax over candidates are those with the log-sum-exp, which is not computed; scores are not."""
    single = collate(case("one token each").examples)
    whole = dataclasses.replace(single, layout=dataclasses.replace(single.layout, single=False))
    sums, scores = sums_of(model, whole, 2), scores_of(model, whole, 2)
    assert (scores_of(model, single, 2) - scores).abs().min() > 1  # there was something to leave out
    monkeypatch.setattr(Head, "__call__", None)
    torch.testing.assert_close(sums_of(model, single, 2), sums, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        scores_of(model, single, 2).softmax(dim=-1), scores.softmax(dim=-1), rtol=2e-6, atol=1e-7
    )


@pytest.mark.parametrize("what", EVERY_CASE)
def test_the_weight_counts_rows_with_labels_and_tokens_elsewhere(case: Callable[[str], Case], what: str) -> None:
    """A sum of losses is divided by the rows where they have labels, else by the answers' tokens, the end included."""
    rows = case(what)
    tokens = sum(len(answer) for row in rows.asked for _, answer in row[0])
    wanted = len(rows.examples) if what in LABELS else tokens
    assert views(collate(rows.examples)).weight.tolist() == [wanted]


@pytest.mark.parametrize("what", EVERY_CASE)
@torch.inference_mode()
def test_chunks_change_nothing(
    case: Callable[[str], Case], model: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Logits of few words, or of one, give what all at once give; no more numbers than allowed are held."""
    batch = collate(case(what).examples)
    whole = sums_of(model, batch, 2)
    held, queries = list[tuple[int, int]](), list[int]()
    head, at = Head.__call__, Head.at

    def counted(self: Head, hidden: Tensor, words: slice) -> Tensor:
        logits = head(self, hidden, words)
        held.append((logits.numel(), logits.shape[1]))
        return logits

    def counted_at(self: Head, hidden: Tensor, tokens: Tensor) -> Tensor:
        queries.append(len(tokens))
        return at(self, hidden, tokens)

    monkeypatch.setattr(Head, "__call__", counted)
    monkeypatch.setattr(Head, "at", counted_at)
    monkeypatch.setattr(sizes, "COLUMNS", 4)
    for numbers in (900, 2100, 1):  # 300 words, 64 wide; one number is less than four words'
        held.clear()
        queries.clear()
        monkeypatch.setattr(sizes, "CHUNK_NUMBERS", numbers)
        torch.testing.assert_close(sums_of(model, batch, 2), whole, rtol=2e-6, atol=0)
        assert sum(words for _, words in held) == 300 * (not batch.layout.single)
        assert sum(queries) == 2 * batch.layout.queries
        assert all(count <= max(numbers, 4 * 2 * batch.layout.positions) for count, _ in held)
        assert max(queries) == max(1, min(numbers // 64, 2 * batch.layout.queries))


@pytest.mark.parametrize("what", EVERY_CASE)
@torch.inference_mode()
def test_padding_changes_nothing(case: Callable[[str], Case], model: Any, what: str) -> None:
    """A row scores the same alone and between longer ones; a batch loses the same in a larger bucket."""
    rows = case(what).examples
    assert len({len(s) for row in rows for s in row.sequences}) > 1  # there is padding
    batch = collate(rows)
    together, sums = scores_of(model, batch)[0], sums_of(model, batch)
    for i, row in enumerate(rows):
        alone = scores_of(model, collate([row]))[0, 0]
        torch.testing.assert_close(together[i], alone, rtol=1e-5, atol=1e-5)
    for tokens in (batch.layout.tokens + 1, 2 * batch.layout.tokens, 5 * batch.layout.tokens):
        larger = collate(rows, tokens=tokens)
        assert larger.layout.tokens == tokens
        assert larger.layout.positions >= batch.layout.positions
        torch.testing.assert_close(sums_of(model, larger), sums, rtol=1e-6, atol=0)


@pytest.mark.parametrize("what", EVERY_CASE)
@torch.inference_mode()
def test_what_fills_the_padding_is_not_read(case: Callable[[str], Case], model: Any, what: str) -> None:
    """Other tokens behind the sequences and other queries behind the real ones give the same bits."""
    rows = case(what).examples
    batch = collate(rows, tokens=100)
    sums = sums_of(model, batch)
    tokens, real = views(batch), sum(len(row.queries) for row in rows)
    for line, sequence in zip(tokens.ids[0], [s for row in rows for s in row.sequences], strict=True):
        line[len(sequence) :] = 9
    tokens.tokens[0, real:] = 8
    tokens.owners[0, real:] = 1
    tokens.positions[0, int(tokens.owners[0, :real].max()) + 1 :] = 3
    assert torch.equal(sums_of(model, batch), sums)
    tokens.ids[0, 0, 0] = 9
    assert not torch.equal(sums_of(model, batch), sums)  # it is the padding that is not read


@pytest.mark.parametrize("what", EVERY_CASE)
@torch.inference_mode()
def test_groups_are_separate_batches(case: Callable[[str], Case], model: Any, what: str) -> None:
    """The points of a group lose what a batch of its rows alone loses; so they do when the others are left out."""
    rows = case(what).examples[:6]
    batch = collate(rows, groups=3)
    apart = [collate(rows[i : i + 2]) for i in (0, 2, 4)]
    wanted = torch.cat([sums_of(model, one, 2) for one in apart])
    assert wanted.unique().numel() == 3
    torch.testing.assert_close(sums_of(model, batch, 6), wanted, rtol=1e-6, atol=0)
    scores = torch.cat([scores_of(model, one, 2) for one in apart])
    torch.testing.assert_close(scores_of(model, batch, 6), scores, rtol=1e-5, atol=1e-5)
    assert views(batch).weight.tolist() == [int(views(one).weight) for one in apart]
    some = views(batch).part(slice(1, 3))
    assert some.layout.groups == 2 and torch.equal(some.weight, views(batch).weight[1:])
    got = loss_sums(generic(model), Head.of(model), some, 4)
    torch.testing.assert_close(got, wanted[2:], rtol=1e-6, atol=0)


class Traced(TorchDispatchMode):
    """Writes down every operation with the shapes it sees, and refuses those that wait for the device."""

    WAITS = ("item", "_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "_unique2", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.WAITS, name
        indices = next((a for a in args if isinstance(a, list | tuple)), ())
        assert name != "index" or all(i is None or i.dtype != torch.bool for i in indices), (
            "a mask's count is waited for"
        )
        plain = [tuple(a.shape) if isinstance(a, Tensor) else a for a in args if not isinstance(a, list | tuple)]
        self.seen.append((name, plain))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("what", EVERY_CASE)
@torch.inference_mode()
def test_a_layout_says_all_that_the_host_knows(case: Callable[[str], Case], model: Any, what: str) -> None:
    """Batches of one layout run the same operations on the same shapes, none of which waits for the device."""
    rows, hidden = case(what).examples, torch.randn(4 * 128, 64)

    def decode(ids: Tensor, places: Tensor) -> Tensor:
        return hidden[places % len(hidden)] * ids[0, 0]

    traces, sums = [], []
    for chosen in (rows[:3], rows[1:4]):
        batch = collate(chosen, tokens=128)
        with Traced() as traced:
            sums.append(loss_sums(decode, Head.of(model), views(batch), 2))
        traces.append((batch.layout, traced.seen))
    assert traces[0] == traces[1] and hash(traces[0][0]) == hash(traces[1][0])
    assert len(traces[0][1]) > 20 and not torch.equal(*sums)


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


SPECIAL = ["softcap", "multiplied", "divided", "bias"]


@pytest.mark.parametrize("what", SPECIAL)
@torch.inference_mode()
def test_special_heads_are_heeded(case: Callable[[str], Case], naive: ModuleType, what: str) -> None:
    """Gemma's soft cap, Cohere's factor, Granite's divisor, Phi's bias: losses are those of the model's logits."""
    model = special_head(what)
    for rows in (case("many tokens"), case("one token each")):
        assert float(sums_of(model, collate(rows.examples))) == pytest.approx(naive_sum(naive, model, rows), rel=1e-5)


@pytest.mark.parametrize("what", SPECIAL)
@torch.inference_mode()
def test_logits_of_given_tokens_are_those_of_all(what: str) -> None:
    """Head.at picks out of what the head computes, its special part included; both are the model's own logits."""
    model, ids = special_head(what), torch.tensor([[5, 6, 7], [8, 9, 10]])
    head, tokens = Head.of(model), torch.tensor([[3, 299, 0], [17, 17, 5]])
    hidden = generic(model)(ids, torch.arange(6)).view(2, 3, -1)
    logits = head(hidden)
    torch.testing.assert_close(logits, model(input_ids=ids, use_cache=False).logits, rtol=1e-5, atol=1e-5)
    picked = head.at(hidden, tokens)
    assert picked.dtype == torch.float32 and picked.shape == (2, 3)
    torch.testing.assert_close(picked, logits.gather(2, tokens[..., None])[..., 0], rtol=1e-5, atol=1e-5)
    bare = Head(torch.nn.Linear(32, 300, bias=False), None, 1.0)
    bare.module.weight = model.get_output_embeddings().weight
    assert (picked - bare.at(hidden, tokens)).abs().max() > 0.1  # the special part does something here


@torch.inference_mode()
def test_logits_of_half_precision_weights_are_float32_sums() -> None:
    """No product or sum is rounded to the weights' dtype."""
    torch.manual_seed(2)
    head = Head(torch.nn.Linear(512, 50, bias=False).bfloat16(), None, 1.0)
    hidden, tokens = torch.randn(20, 512).bfloat16(), torch.arange(20)
    wanted = (hidden.double() * head.module.weight[tokens].double()).sum(dim=1)
    torch.testing.assert_close(head.at(hidden, tokens).double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("numbers", [1, 2**10, 2**21])
@pytest.mark.parametrize("what", SPECIAL)
def test_the_likeliest_token_is_that_of_all_logits(what: str, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of them are held at once."""
    head = Head.of(special_head(what))
    hidden = torch.randn(7, head.module.weight.shape[1], generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(sizes, "CHUNK_NUMBERS", numbers)
    with torch.inference_mode():
        assert torch.equal(likeliest(head, hidden), head(hidden).argmax(dim=1))
