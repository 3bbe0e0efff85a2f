"""What zolite is measured against: MeZO as published, and first-order LoRA, both on bitsandbytes' own products.

Both train LoRA's A and B of rank 8 on q_proj and v_proj and take transformers' loss: logits at every position, in
float32, cross-entropy where labels are not −100. Their batches lie ready on the device.

Weights are zolite's own codes, without a copy, multiplied as a script with load_in_8bit or load_in_4bit would:
`bitsandbytes.matmul` (LLM.int8(), outlier threshold 0) and `bitsandbytes.matmul_4bit`, whose autograd functions expand
the codes in the backward pass.
"""

import contextlib
import math
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import bitsandbytes as bnb
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zolite.data.examples import Example
from zolite.model import quant
from zolite.model.load import Loaded, select
from zolite.tools.bench import TARGETS, Step

RANK, ALPHA = 8, 16.0
LR = 1e-6  # nothing is learned here: it must only stay finite
EPS = 1e-3  # MeZO's published value

warnings.filterwarnings("ignore", "`gradient_checkpointing_", FutureWarning)  # transformers 5.17 has no other name


class Bits8(nn.Module):
    """As bitsandbytes' Linear8bitLt: LLM.int8(), which rounds activations to int8 too."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.codes.shape
        scales = layer.scales.float().reshape(-1) * 127
        self.state = bnb.MatmulLtState(CB=layer.codes, SCB=scales)
        self.state.has_fp16_weights = False

    def forward(self, x: Tensor) -> Tensor:
        self.state.is_training = self.training
        return bnb.matmul(x, self.state.CB, state=self.state)


class Bits4(nn.Module):
    """As bitsandbytes' Linear4bit."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.out_features, layer.in_features
        self.weight = layer.packed

    def forward(self, x: Tensor) -> Tensor:
        return bnb.matmul_4bit(x, self.weight, quant_state=self.weight.quant_state)


class Lora(nn.Module):
    """y = base(x) + α/r · B A x; A starts from Kaiming's uniform, B at zero."""

    def __init__(self, base: Any, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.base, bound = base, 1 / math.sqrt(base.in_features)
        self.a = nn.Parameter(torch.empty(RANK, base.in_features, dtype=dtype, device=device).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.zeros(base.out_features, RANK, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(x, self.a.to(x.dtype))
        return self.base(x) + F.linear(low, self.b.to(x.dtype)) * (ALPHA / RANK)


@contextlib.contextmanager
def restored(model: Any) -> Iterator[None]:
    """Whatever was put in the place of modules, or of their forwards, is gone afterwards."""
    before = [(module, dict(module._modules)) for module in model.modules()]
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()
        for module, children in before:
            vars(module).pop("forward", None)  # one that checkpoints
            module._modules.clear()
            module._modules.update(children)
        model.eval()


def adapt_(loaded: Loaded, dtype: torch.dtype) -> list[nn.Parameter]:
    """Put bitsandbytes' products and LoRA in; the trained parameters."""
    names, targets = quant.linear_names(loaded.model), select(loaded.model, TARGETS)
    theirs = {quant.Int8Linear: Bits8, quant.Nf4Linear: Bits4}
    for name in names:
        layer = loaded.model.get_submodule(name)
        layer = theirs[type(layer)](layer) if type(layer) in theirs else layer
        quant.replace_(loaded.model, name, Lora(layer, dtype, loaded.device) if name in targets else layer)
    loaded.model.eval()  # new modules begin in training mode
    return [p for p in loaded.model.parameters() if p.requires_grad]


@dataclass(frozen=True)
class Batch:
    """What transformers' models take: ids (B, T), and what each position predicts, or −100, (B, T)."""

    ids: Tensor
    labels: Tensor

    @classmethod
    def of(cls, rows: Sequence[Example], device: torch.device) -> "Batch":
        ids = torch.tensor([row.sequences[0] for row in rows])
        labels = torch.full_like(ids, -100)
        for i, row in enumerate(rows):
            labels[i, [q.position for q in row.queries]] = torch.tensor([q.token for q in row.queries])
        return cls(ids.to(device), labels.to(device))


def batches(loaded: Loaded, rows: Sequence[Example], batch: int) -> list[Batch]:
    return [Batch.of(rows[i : i + batch], loaded.device) for i in range(0, len(rows), batch)]


def full_loss(model: Any, batch: Batch) -> Tensor:
    """Mean cross-entropy over the answers' tokens. Labels are shifted already: every position predicts the next."""
    output = model(input_ids=batch.ids, labels=batch.labels, shift_labels=batch.labels, use_cache=False)
    return output.loss


@dataclass
class Mezo:
    """A step as in the authors' `zo_step` and `zo_update`: three perturbations by one seed, then the update."""

    model: Any
    parameters: list[nn.Parameter]
    batches: list[Batch]
    lr: float = LR
    eps: float = EPS

    def __call__(self, step: int) -> tuple[float, float]:
        """Both losses."""
        seed, batch = random.randrange(10**9), self.batches[step % len(self.batches)]
        self.perturb(seed, self.eps)
        plus = self.loss(batch)
        self.perturb(seed, -2 * self.eps)
        minus = self.loss(batch)
        projected_gradient = ((plus - minus) / (2 * self.eps)).item()
        self.perturb(seed, self.eps)
        self.perturb(seed, -self.lr * projected_gradient)
        return plus.item(), minus.item()

    def perturb(self, seed: int, scale: float) -> None:
        """Every parameter along its part of the seed's direction."""
        torch.manual_seed(seed)
        for p in self.parameters:
            z = torch.normal(mean=0, std=1, size=p.data.size(), device=p.data.device, dtype=p.data.dtype)
            p.data = p.data + scale * z

    @torch.inference_mode()
    def loss(self, batch: Batch) -> Tensor:
        return full_loss(self.model, batch)


def textbook(loaded: Loaded, rows: Sequence[Example], batch: int, **options: float) -> Mezo:
    """Adapters in the activations' dtype, as the authors' code has them."""
    dtype = loaded.model.get_output_embeddings().weight.dtype
    return Mezo(loaded.model, adapt_(loaded, dtype), batches(loaded, rows, batch), **options)


def first_order(loaded: Loaded, rows: Sequence[Example], batch: int, checkpointed: bool = False) -> Step:
    """AdamW on adapters in float32, cast where they are used, as peft under autocast does; there is no dropout."""
    model, ready = loaded.model, batches(loaded, rows, batch)
    optimizer = torch.optim.AdamW(adapt_(loaded, torch.float32), lr=LR)
    model.train()
    if checkpointed:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def step(number: int) -> Tensor:
        optimizer.zero_grad()
        loss = full_loss(model, ready[number % len(ready)])
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
