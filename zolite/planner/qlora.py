"""What QLoRA with gradient checkpointing would need for the same model, adapter and rows: so that people may choose it.

As transformers and peft do it: nf4 weights, a row at a time with gradients summed over the batch, AdamW in float32.
The 12 bytes a logit (float32 logits, their log-softmax and its gradient) are what a 1.7B took on one H100: 12.2 and
12.7 by benchmarks/results/step-nvidia-h100-80gb-hbm3.json. Checked at no other size.
"""

from dataclasses import dataclass

from zolite.data.lengths import Rows
from zolite.planner.hardware import Hardware
from zolite.planner.memory import CODES
from zolite.planner.model_spec import ModelSpec

LOGIT_BYTES = 12
ADAPTER_BYTES = 16  # a number, its gradient and Adam's two moments in float32
SAVED = (
    16,
    7,
)  # bytes of D and of I that a layer saves for its backward pass, a row: 88 kB a row of a 1.7B were measured
FITS = "it fits, and needs 10 to 100 times fewer steps, each about twice as expensive: take it unless rows get longer"
GRADIENTS = 1.25  # and what its gradients take beside them


@dataclass(frozen=True)
class Backprop:
    model: str
    peak_bytes: int
    fits: bool
    recommended: bool
    why: str


def needed(hardware: Hardware, spec: ModelSpec, rank: int, tokens: int) -> int:
    """Bytes of the card, other processes included."""
    a, checkpoint = 2, 2 * spec.hidden * tokens * spec.layers
    weights = int(spec.linear * CODES["nf4"]) + a * (spec.embedding + spec.head + spec.other)
    adapter = ADAPTER_BYTES * rank * sum(each.count * (each.inputs + each.outputs) for each in spec.linears)
    layer = int(GRADIENTS * tokens * (SAVED[0] * spec.hidden + SAVED[1] * spec.intermediate))
    expanded = a * max(each.inputs * each.outputs for each in spec.linears)
    logits = LOGIT_BYTES * tokens * spec.vocabulary
    work = checkpoint + max(logits, layer + expanded)
    return hardware.context_bytes + hardware.others_bytes + weights + adapter + work


def compared(hardware: Hardware, spec: ModelSpec, rank: int, rows: Rows) -> Backprop:
    """Recommended wherever it fits: it takes a tenth to a hundredth of the steps."""
    peak = needed(hardware, spec, rank, rows.tokens)
    fits = hardware.device == "cuda" and peak <= hardware.total_bytes
    why = FITS if fits else "it does not fit here" if hardware.device == "cuda" else "it would take days on a CPU"
    return Backprop(spec.name, peak, fits, fits, why)
