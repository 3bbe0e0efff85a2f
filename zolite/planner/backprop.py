"""What training with gradients needs: QLoRA, for people to choose it, and `zolite learn-optimizer`, which zolite runs.

    needed(hardware, spec, rank, tokens)             bytes of QLoRA with gradient checkpointing
    compared(hardware, spec, rank, rows)             that, and whether to take it
    learning(spec, recipe, device, batch)            bytes of learn-optimizer, by what for

QLoRA as transformers and peft do it: nf4 weights, a row at a time with gradients summed over the batch, AdamW in
float32. The 12 bytes a logit (float32 logits, their log-softmax and its gradient) are what a 1.7B took on one H100:
12.2 and 12.7 by benchmarks/results/step-nvidia-h100-80gb-hbm3.json. Checked at no other size.
"""

from dataclasses import dataclass

from zolite.config import sizes
from zolite.config.recipe import ResolvedRecipe
from zolite.config.weights import WEIGHT_FORMATS
from zolite.data.lengths import Rows
from zolite.planner.activations import FLOAT, Model
from zolite.planner.hardware import Hardware
from zolite.planner.memory import peak, trained_numbers, weights
from zolite.planner.model_spec import ModelSpec

LOGIT_BYTES = 12
ADAPTER_BYTES = 16  # a number, its gradient and Adam's two moments in float32
SAVED = (16, 7)  # bytes of D and of I that a layer saves for its backward pass, a row: 88 kB a row of a 1.7B measured
GRADIENTS = 1.25  # and what its gradients take beside them
VECTORS = 10  # learn-optimizer's in float32: θ, its start, velocity, noise, direction, two gradients, three sums
FITS = "it fits, and needs 10 to 100 times fewer steps, each about twice as expensive: take it unless rows get longer"


@dataclass(frozen=True)
class Backprop:
    model: str
    peak_bytes: int
    fits: bool
    recommended: bool
    why: str


def needed(hardware: Hardware, spec: ModelSpec, rank: int, tokens: int) -> int:
    """Bytes of the card, other processes included."""
    a = 2
    stored = int(spec.linear * WEIGHT_FORMATS["nf4"].bytes) + a * (spec.embedding + spec.head + spec.other)
    stored += a * spec.routed  # bitsandbytes quantizes linear layers alone
    adapter = ADAPTER_BYTES * rank * sum(each.count * (each.inputs + each.outputs) for each in spec.linears)
    layer = int(GRADIENTS * tokens * (SAVED[0] * spec.hidden + SAVED[1] * spec.intermediate))
    expanded = a * max(each.inputs * each.outputs for each in spec.linears)
    logits = LOGIT_BYTES * tokens * spec.vocabulary
    work = checkpoints(spec, tokens, a) + max(logits, layer + expanded)
    return hardware.context_bytes + hardware.others_bytes + stored + adapter + work


def checkpoints(spec: ModelSpec, tokens: int, activation: int) -> int:
    """Each layer's input, from which its other activations are made again on the way back."""
    return activation * spec.hidden * tokens * spec.layers


def compared(hardware: Hardware, spec: ModelSpec, rank: int, rows: Rows) -> Backprop:
    """Recommended wherever it fits: it takes a tenth to a hundredth of the steps."""
    need = needed(hardware, spec, rank, rows.tokens)
    fits = hardware.device == "cuda" and need <= hardware.total_bytes
    why = FITS if fits else "it does not fit here" if hardware.device == "cuda" else "it would take days on a CPU"
    return Backprop(spec.name, need, fits, fits, why)


@dataclass(frozen=True)
class Batch:
    """The largest that gradients are taken of."""

    tokens: int  # of all its sequences
    positions: int  # whose logits are summed over the vocabulary
    queries: int  # tokens that are scored


def learning(spec: ModelSpec, recipe: ResolvedRecipe, device: str, batch: Batch) -> dict[str, int]:
    """Bytes of learn-optimizer by what for: first-order LoRA of a resolved recipe, each layer's activations made again.

    `device` is "cuda" or "cpu". The weights are the ledger's.
    """
    stored = WEIGHT_FORMATS[recipe.model.quant]
    a = stored.activation_bytes(device)
    model = Model(spec, recipe.model.quant, a, fused=False, triton=False, rank=recipe.adapter.rank, adapted=frozenset())
    widths = sum(each.count * (each.inputs + each.outputs) for each in spec.linears)
    expanded = 2 * spec.linear * a // spec.layers if stored.coded else 0  # a layer's weights as products take them
    layer = 2 * batch.tokens * widths * a // spec.layers + expanded
    scored = batch.positions * spec.vocabulary + 3 * sizes.CHUNK_NUMBERS + 3 * batch.queries * spec.hidden
    return {
        "weights": peak(weights(model)),
        "activations": checkpoints(spec, batch.tokens, a) + layer,
        "logits": FLOAT * scored,
        "adapter": trained_numbers(spec, recipe) * (VECTORS * FLOAT + 2 * recipe.train.copies * a),
    }
