"""The proof at load: are a decoder's hidden states and a head what a model says, and does it read forwards alone?

    proof = prove(model, name)              of a decoder
    proof = prove_encoder(model, name)      of a model that fills in masks
    proof.own_logits      how wide the model's own logits are, if losses are to be made of those; else 0
    proof.uncalled        linear layers whose weights the model takes without calling them: no adapter can be put there

zolite asks for logits only where an answer is predicted, from `Head` over the decoder's last hidden states. That is not
what every model does: some cap, scale or project behind its head in ways of their own. And padding on the right, rows
beside each other and candidates that share a prompt all stand on this: no token sees a later one, and no row another.
So on two short rows both are measured, in the weights as they are, whatever the architecture is called.

How close is close. The two sets of logits come from the same hidden states in the same batch. zolite's are accumulated
and kept in float32; the model's are rounded to its dtype, once by the product and once by each of at most three
operations behind it. A rounding is off by 0.2 eps, root mean square, four of them by 0.4 eps, and 1 eps is the bound.
In float32 what remains is the order of sums, some 1e-6. Where a model differs from itself as much, as with atomics on a
GPU, that is no difference. A false alarm only costs time: the model's own forward is always right.

Of an encoder zolite takes the model's own logits, at the masks alone. What is to be shown is that those of some places
are what the model says of all places there, that padding changes nothing, and which layers see each row by itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zolite.common.errors import ZoliteError
from zolite.data.examples import PADDING
from zolite.model.loss import Head, generic, mask_logits, own_logits
from zolite.model.quant import linear_names

TOKENS = 16  # a row
KEPT = 10  # tokens of the first row that stay when all others change
LEAST = 1e-4  # relative, of logits in float32
LEAK, LEAK16 = 1e-3, 5e-2  # relative, in float32 and in 16 bits: what rounding in other shapes may do to a row


@dataclass(frozen=True)
class Proof:
    own_logits: int
    uncalled: frozenset[str]


@torch.inference_mode()
def prove(model: Any, name: str) -> Proof:
    """What holds for a model with its frozen weights, before adapters.

    Raises ZoliteError where there are no logits, where they are not finite, and where they are not a decoder's. Takes
    four or five forwards of two rows of 16 tokens.
    """
    ids, changed = _rows(model)
    with _called(model) as called:
        theirs = _logits(model, name, ids)
    _refuse_broken(model, name, theirs)
    _refuse_leaks(
        model, name, theirs[:KEPT], _logits(model, name, changed)[:KEPT], _logits(model, name, ids[:1, :KEPT])
    )
    alike = _alike(model, ids, theirs, lambda: _logits(model, name, ids))
    return Proof(0 if alike else theirs.shape[1], _uncalled(model, called))


@torch.inference_mode()
def prove_encoder(model: Any, name: str) -> Proof:
    """The same of a model that fills in masks.

    Raises ZoliteError where its logits are not finite, or where zolite would not measure what it says.
    """
    ids, _ = _rows(model)
    padded, places = ids.clone(), torch.arange(ids.numel() - 1, -1, -3, device=ids.device)
    padded[0, KEPT:], mine = PADDING, places[places < KEPT]
    with _called(model, ids) as called:
        theirs = _all_filled(model, name, ids)
    _refuse_broken(model, name, theirs)
    some = _made(name, lambda: mask_logits(model)(ids, places))
    beside = _made(name, lambda: mask_logits(model)(padded, mine))
    if (apart := _apart(some, theirs[places])) > max(LEAST, torch.finfo(_dtype(model)).eps):
        raise _unfilled(name, f"what it says at some places alone differs by {apart:.1%} from what it says of all")
    if (leak := _apart(beside, _all_filled(model, name, ids[:1, :KEPT])[mine])) > _leak(model):
        raise _unfilled(name, f"padding behind a text changes what it says of it by {leak:.1%}")
    return Proof(theirs.shape[1], _uncalled(model, called))


def _alike(model: Any, ids: Tensor, theirs: Tensor, again: Callable[[], Tensor]) -> bool:
    """Are head and decoder what the model says?"""
    try:
        ours = Head.of(model)(generic(model)(ids, torch.arange(ids.numel(), device=ids.device)))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001 - get_decoder and the head are conventions that an architecture need not keep
        return False
    if ours.shape != theirs.shape:
        return False
    apart = _apart(ours, theirs)
    return apart <= max(LEAST, torch.finfo(_dtype(model)).eps) or apart <= 2 * _apart(again(), theirs)


Kind = tuple[type, str]
"""Of a layer: the class of the module that has it, and its name there."""


@contextmanager
def _called(model: nn.Module, ids: Tensor | None = None) -> Iterator[set[Kind]]:
    """The kinds of linear layers that are called inside and answer as such. By kinds: two rows miss some experts.

    With `ids` (2, T) those are left out that answer once for all rows, as of places that are alike for all of them:
    there the points of one forward could not differ.
    """
    called: set[Kind] = set()
    shared: set[Kind] = set()

    def note(kind: Kind, layer: Any, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.shape[-1] == layer.out_features:
            called.add(kind)
            if ids is not None and (len(output) == 1 or output.numel() != ids.numel() * layer.out_features):
                shared.add(kind)

    kinds = {name: _kind(model, name) for name in linear_names(model)}
    handles = [model.get_submodule(n).register_forward_hook(partial(note, kind)) for n, kind in kinds.items()]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()
        called -= shared


SCANS = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Architectures whose kernels on a GPU take the weight of `out_proj` uncalled; peft puts no adapter there either."""


def _uncalled(model: Any, called: set[Kind]) -> frozenset[str]:
    taken = ("out_proj",) if model.config.model_type in SCANS else ()
    kinds = {name: _kind(model, name) for name in linear_names(model)}
    return frozenset(name for name, kind in kinds.items() if kind not in called or kind[1] in taken)


def _kind(model: nn.Module, name: str) -> Kind:
    parent, _, leaf = name.rpartition(".")
    return type(model.get_submodule(parent)), leaf


def _rows(model: Any) -> tuple[Tensor, Tensor]:
    """Two rows, (2, T), and others that share the first KEPT tokens of the first row alone."""
    table = model.get_input_embeddings()
    words = int(getattr(table, "num_embeddings", 0) or model.config.get_text_config().vocab_size)
    drawn = torch.Generator().manual_seed(0)
    ids, changed = torch.randint(words // 8, words, (2, 2, TOKENS), generator=drawn)  # special tokens are mostly first
    changed[0, :KEPT] = ids[0, :KEPT]
    device = table.weight.device
    return ids.to(device), changed.to(device)


def _logits(model: Any, name: str, ids: Tensor) -> Tensor:
    """(2 · T, V) float32."""
    return _made(name, lambda: own_logits(model)(ids, torch.arange(ids.numel(), device=ids.device)))


def _all_filled(model: Any, name: str, ids: Tensor) -> Tensor:
    """The same of an encoder, as its own forward has them of rows without padding."""
    return _made(name, lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.flatten(0, 1))


def _made(name: str, logits: Callable[[], Tensor]) -> Tensor:
    """In float32."""
    try:
        return logits().float()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ZoliteError(
            f"{name} does not turn two rows of text into logits: {type(error).__name__}: {said}",
            "another version of transformers may run it; zolite trains models that read text alone and write it",
        ) from error


def _refuse_broken(model: nn.Module, name: str, logits: Tensor) -> None:
    if bool(logits.isfinite().all()):
        return
    weights = [n for n, p in model.named_parameters() if p.is_floating_point() and not bool(p.isfinite().all())]
    if weights:
        raise ZoliteError(
            f"{len(weights)} weights of {name} hold numbers that are not finite: {', '.join(weights[:3])}",
            "the files are broken, or were saved in a format too narrow for them: download the model again",
        )
    raise not_finite(f"the logits of {name}", _dtype(model))


def not_finite(what: str, dtype: torch.dtype) -> ZoliteError:
    """What to do about numbers that are infinite, or none, before the first step."""
    name = str(dtype).removeprefix("torch.")
    wider = "take --quant bf16, which computes in bfloat16, as wide as float32 (so does nf4)"
    hint = wider if dtype == torch.float16 else "try --quant float32; if that fails too the weights are broken"
    broken = "its weights are broken: download the model again"
    return ZoliteError(f"{what} are not finite in {name}", broken if dtype == torch.float32 else hint)


def _refuse_leaks(model: nn.Module, name: str, row: Tensor, beside: Tensor, alone: Tensor) -> None:
    """Of the same tokens (KEPT, V): as they were, with other tokens behind and beside them, and with none."""
    bound = _leak(model)
    if (leak := _apart(beside, row)) > bound:
        raise reads_both_ways(name, f"later tokens change what it says of earlier ones by {leak:.1%}")
    if (leak := _apart(alone, row)) > bound:
        raise reads_both_ways(name, f"what it says of a text changes by {leak:.1%} with the length of its batch")


def _leak(model: nn.Module) -> float:
    return LEAK if _dtype(model) == torch.float32 else LEAK16


def _unfilled(name: str, why: str) -> ZoliteError:
    return ZoliteError(
        f"zolite cannot measure {name}, an encoder, as it is: {why}",
        "take another one, such as FacebookAI/roberta-base; or train this one by backpropagation (transformers' "
        "AutoModelForSequenceClassification with its Trainer)",
    )


def _dtype(model: nn.Module) -> torch.dtype:
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def reads_both_ways(name: str, why: str) -> ZoliteError:
    return ZoliteError(
        f"{name} is no decoder: {why}",
        "zolite trains models that write text, such as Qwen/Qwen3-0.6B or builtin:smollm2-135m, and encoders that "
        "transformers loads for masked language models, such as FacebookAI/roberta-base",
    )


def _apart(a: Tensor, b: Tensor) -> float:
    """Root mean square of the difference over that of b."""
    return float((a - b).norm() / b.norm().clamp(min=1e-30))
