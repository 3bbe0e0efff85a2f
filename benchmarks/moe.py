"""Claim: a plan's peak is the run's for models with routed experts, in int8 and nf4: within 5 %.

python benchmarks/moe.py [OUT] [--shapes qwen3_moe,gpt_oss] [--weights int8,nf4] [--layers N] [--experts E]
                         [--batch B] [--tokens T] [--tiny]

Shapes of Qwen3-30B-A3B and gpt-oss-20b at fewer layers, of random weights made on the device: 4 to 8 GB in int8. Each
weight is drawn and quantized before the next, so that never more than a layer's experts are in 16 bits. A row is a run
as training makes it: adapters on all linear layers, an evaluation, then steps. --tiny is for a CPU.

resting_bytes                     the weights alone, and weights_bytes what the plan says of them
predicted_bytes, measured_bytes   the plan's peak without loading, and the most that torch's allocator had in use; on a
                                  CPU the most that the process ever held, which only shows that it runs
ms                                one step
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, write_by_card
from plan import predicted
from torch import nn

from zolite.config import recipe as recipes
from zolite.data.lengths import Rows
from zolite.engine import device_memory
from zolite.model import experts, quant
from zolite.model.load import Loaded, Source, pick_device, quiet
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner.memory import laid_out, ledger, peak, weights
from zolite.tools import bench
from zolite.training.evaluate import evaluate
from zolite.training.prepare import assemble
from zolite.training.run import batches_of, stepper

COMMON = {"vocab_size": 32768, "max_position_embeddings": 4096, "tie_word_embeddings": False}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {
        "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 10,
    },
    "gpt_oss": {
        "hidden_size": 2880, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
        "intermediate_size": 2880, "num_local_experts": 32, "num_experts_per_tok": 4, "num_hidden_layers": 7,
    },
}  # fmt: skip
TINY: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "num_hidden_layers": 2, "num_experts_per_tok": 2,
    "moe_intermediate_size": 64, "intermediate_size": 64,
}  # fmt: skip
COUNTS = {"qwen3_moe": "num_experts", "gpt_oss": "num_local_experts"}
EVALUATED, STEPS, WARMUP = 64, 4, 2


def settings(shape: str, asked: argparse.Namespace) -> dict[str, Any]:
    """The config's numbers, as the command line changes them."""
    made = COMMON | SHAPES[shape] | ({**TINY, COUNTS[shape]: 4} if asked.tiny else {})
    changes = {"num_hidden_layers": asked.layers, COUNTS[shape]: asked.experts}
    return made | {name: value for name, value in changes.items() if value}


def model_of(config: Any, weights: str, device: torch.device) -> Loaded:
    """The architecture at random weights, quantized: a layer's experts at a time are in 16 bits."""
    from transformers import AutoModelForCausalLM

    dtype = quant.activations(weights, device)
    with quiet(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    torch.manual_seed(0)
    for module, name, value in list(experts.tensors(model)):
        drawn = torch.empty(value.shape, dtype=dtype, device=device).normal_(0, bench.SPREAD)
        setattr(module, name, nn.Parameter(drawn, requires_grad=False))
        experts.code_(module, weights, dtype)
        del drawn
    for name in quant.linear_names(model):
        old = model.get_submodule(name)
        made = bench.LAYERS[weights]((old.out_features, old.in_features), dtype, device)
        made.bias = None if old.bias is None else torch.zeros(old.out_features, dtype=dtype, device=device)
        quant.replace_(model, name, made)
    for module in list(model.modules()):
        for name, value in list(module.named_parameters(recurse=False)):
            if value.is_meta:
                setattr(module, name, nn.Parameter(drawn_like(value, module, dtype, device), requires_grad=False))
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    experts.simplify_(model, weights, dtype)
    source = Source(f"random {config.model_type}", "random", None)
    return Loaded(model.eval().requires_grad_(False), device, source.name, source)


def drawn_like(value: torch.Tensor, module: nn.Module, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    made = torch.empty(value.shape, dtype=dtype, device=device)
    return made.fill_(1.0) if "Norm" in type(module).__name__ else made.normal_(0, bench.SPREAD)


def measured(shape: str, quantization: str, device: torch.device, asked: argparse.Namespace) -> dict[str, Any]:
    """One row: predicted, then run."""
    from transformers import AutoConfig

    numbers = settings(shape, asked)
    config = AutoConfig.for_model(shape, **numbers)
    spec = model_spec.from_config(shape, config.to_dict())
    recipe = recipes.resolve(bench.recipe_of(quantization, asked.batch, asked.tokens, ()))
    hardware = machine.here(device.type)
    rows = Rows(asked.tokens, min(bench.ANSWER, asked.tokens), lengths=1)
    lines = ledger(hardware, spec, recipe, rows)
    bench.settle(device)
    loaded = model_of(config, quantization, device)
    bench.settle(device)
    resting = device_memory.used_bytes(device)
    examples = bench.random_rows(config.vocab_size, asked.batch * bench.BATCHES, asked.tokens)
    run = assemble(
        recipe, loaded, {"train": examples, "dev": examples[:EVALUATED]}, {}, (), device_memory.budget_bytes(device)
    )
    evaluate(run.engine, run.examples["dev"], "dev", 0)
    steps = stepper(run)
    for number in range(WARMUP):
        steps(batches_of(run, number), number)
    ms = bench.elapsed_ms(lambda: [steps(batches_of(run, n), n) for n in range(WARMUP, WARMUP + STEPS)], device) / STEPS
    said, found = predicted(lines, device), device_memory.peak_bytes(device)
    return {
        "shape": shape, "weights": quantization, "parameters": spec.parameters, "routed": spec.routed,
        "settings": numbers, "batch": asked.batch, "tokens": asked.tokens, "copies": recipe.train.copies,
        "weights_bytes": peak(weights(laid_out(hardware, spec, recipe))), "resting_bytes": resting,
        "predicted_bytes": said, "measured_bytes": found, "ratio": said / found, "ms": ms,
        "uncaptured": steps.refusal(), "lines": [dataclasses.asdict(line) for line in lines if line.bytes],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--weights", default="int8,nf4")
    for name, default in (("layers", 0), ("experts", 0), ("batch", 8), ("tokens", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    device, found = pick_device("auto"), []
    for shape in asked.shapes.split(","):
        for quantization in asked.weights.split(","):
            row = measured(shape, quantization, device, asked)
            found.append(row)
            text = (
                f"{shape} {quantization}: {row['predicted_bytes'] / 2**20:.0f} of {row['measured_bytes'] / 2**20:.0f}"
            )
            print(
                f"{text} MiB, {row['ratio']:.3f}; weights {row['weights_bytes'] / row['resting_bytes']:.3f}", flush=True
            )
            write_by_card("moe", found, asked.out)
            bench.settle(device)


if __name__ == "__main__":
    main()
