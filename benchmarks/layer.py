"""Claim: zolite's decoder layer is the fastest of those at hand, on this GPU.

One decoder layer of each shape on two points' rows (2 × 16 × 256), no adapters, captured into a CUDA graph, so that
what is compared is the device's work: transformers as it is, the same under torch.compile, the same with liger-kernel's
norms, rotations and gate (where it is installed), and model/fused.py with 16-bit weights, with int8 weights expanded,
and with int8 pairs.

python benchmarks/layer.py [OUT]        needs CUDA and Triton
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, write

from zolite.model import fused_decoder
from zolite.model.lora import Active
from zolite.tools import bench

DEVICE = torch.device("cuda")
POINTS, BATCH, TOKENS, CALLS = 2, 16, 256, 20


def one_layer(name: str, weights: str) -> Any:
    """transformers' decoder of that shape with a single layer and a small vocabulary."""
    bench.SHAPES["one layer"] = dataclasses.replace(bench.SHAPES[name], layers=1, vocabulary=1024)
    return bench.random_model("one layer", weights, DEVICE).model.get_decoder()


def theirs(decoder: Any, change: Callable[[Any], Any] = lambda layer: layer) -> Callable[[], object]:
    """transformers' layer on its own, with its causal attention."""
    layer = change(decoder.layers[0])
    x = torch.randn(POINTS * BATCH, TOKENS, decoder.config.hidden_size, device=DEVICE, dtype=torch.bfloat16)
    turns = decoder.rotary_emb(x, position_ids=torch.arange(TOKENS, device=DEVICE)[None])
    return lambda: layer(x, attention_mask=None, position_embeddings=turns)


def ours(decoder: Any, mirrored: bool) -> Callable[[], object]:
    """The same work of model/fused.py: a layer's two halves, in place."""
    made = fused_decoder.assemble(decoder, Active(POINTS, mirrored), TOKENS)
    arithmetic = fused_decoder.Paired(made.kernels, made.stacks) if mirrored else fused_decoder.Dense(made.kernels)
    dtype = decoder.embed_tokens.weight.dtype
    h = torch.randn(POINTS, BATCH * TOKENS, decoder.config.hidden_size, device=DEVICE, dtype=dtype)

    def layer() -> None:
        made._attend(h, decoder.layers[0], arithmetic, TOKENS)
        made._transform(h, decoder.layers[0], arithmetic)

    return layer


def liger(layer: Any) -> Any:
    """Its kernels in the place of a layer's own parts, as its patch of a Llama puts them."""
    from liger_kernel.transformers import apply_liger_kernel_to_llama

    apply_liger_kernel_to_llama(rope=True, rms_norm=True, swiglu=True, cross_entropy=False)
    from transformers.models.llama import modeling_llama as llama

    made = llama.LlamaDecoderLayer(layer.self_attn.config, 0).to(DEVICE, torch.bfloat16)
    made.load_state_dict(layer.state_dict())
    return made.eval()


@torch.inference_mode()
def captured_ms(call: Callable[[], object]) -> float:
    """A call's time on the device, the median of three stretches of CALLS replays."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            call()
        times = [bench.elapsed_ms(lambda: [graph.replay() for _ in range(CALLS)], DEVICE) / CALLS for _ in range(3)]
    return sorted(times)[1]


WAYS: dict[str, Callable[[str], Callable[[], object]]] = {
    "transformers, bf16": lambda name: theirs(one_layer(name, "bf16")),
    "transformers under torch.compile, bf16": lambda name: theirs(one_layer(name, "bf16"), torch.compile),
    "zolite, bf16": lambda name: ours(one_layer(name, "bf16"), mirrored=False),
    "zolite, int8 expanded": lambda name: ours(one_layer(name, "int8"), mirrored=False),
    "zolite, int8 pairs": lambda name: ours(one_layer(name, "int8"), mirrored=True),
    "transformers with liger-kernel, bf16": lambda name: theirs(one_layer(name, "bf16"), liger),  # last: it patches
}


def row(name: str, what: str, build: Callable[[str], Callable[[], object]]) -> dict[str, Any]:
    about = {"shape": name, "batch": BATCH, "tokens": TOKENS, "what": what}
    try:
        return about | {"ms": round(captured_ms(build(name)), 4)}
    except Exception as error:  # noqa: BLE001 - a way that does not run here is a row that says so
        return about | {"ms": None, "reason": f"{type(error).__name__}: {str(error).splitlines()[:1]}"}


if __name__ == "__main__":
    gpu = torch.cuda.get_device_name().lower().replace(" ", "-")
    rows = [row(name, what, build) for what, build in WAYS.items() for name in ("1.7B", "8B")]
    write(f"layer-{gpu}", rows, Path(sys.argv[1]) if sys.argv[1:] else RESULTS)
