"""How fast a step is on this machine, measured on a model of random weights: nothing is downloaded.

`zolite bench` is the short form; benchmarks/step.py compares with other ways to fine-tune. Both time a step alike:
WARMUP steps, then three repetitions of up to ten steps back to back; the median repetition, divided by its steps.
"""

import gc
import itertools
import math
import random
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zolite.common.errors import DoesNotFit, UsageError
from zolite.common.text import human_bytes
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.config.weights import WEIGHT_FORMATS
from zolite.data.examples import Example, Query
from zolite.engine import device_memory
from zolite.model import quant
from zolite.model.devices import speed
from zolite.model.load import Loaded, Source, quiet
from zolite.training.prepare import assemble
from zolite.training.run import batches_of, stepper

Step = Callable[[int], object]
"""Takes step number n, counted from 0, without waiting for the device."""

WARMUP = {"cuda": 4, "cpu": 1}  # steps before any is timed: kernels are compiled and graphs captured
STEPS, REPETITIONS = 10, 3
REPETITION_MS = 1500.0  # steps so slow that ten take longer are repeated less often
ANSWER = 16  # tokens at the end of each row that are predicted
BATCHES = 32  # different batches before rows come again
TARGETS = ("q_proj", "v_proj")
SPREAD = 0.02  # standard deviation of the weights, as Llama models start: activations stay far from float16's limit


@dataclass(frozen=True)
class Shape:
    """A Llama architecture."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool  # the head is the embedding table

    @property
    def parameters(self) -> int:
        """Weights that every token meets: without embeddings and norms, and without the head, which few meet."""
        kv = self.hidden // self.heads * self.kv_heads
        return self.layers * self.hidden * (2 * self.hidden + 2 * kv + 3 * self.intermediate)

    def weight_bytes(self, weights: str) -> int:
        """At rest, with tables of 16 bits."""
        tables = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return int(self.parameters * WEIGHT_FORMATS[weights].bytes) + 2 * tables


SHAPES = {
    "135M": Shape(576, 1536, 30, 9, 3, 49152, True),  # SmolLM2-135M
    "1.7B": Shape(2048, 8192, 24, 32, 32, 49152, True),  # SmolLM2-1.7B
    "8B": Shape(4096, 14336, 32, 32, 8, 128256, False),  # Llama-3.1-8B
}


@dataclass(frozen=True)
class Rates:
    """What the device reaches where nothing else holds it up."""

    copy_bytes_per_s: float  # device to device, bytes read and bytes written counted
    bf16_flops_per_s: float  # one large product
    float32_flops_per_s: float

    def floor_ms(self, shape: Shape, batch: int, tokens: int, dtype: torch.dtype, forwards: int = 2) -> float:
        """The products of a step's forwards, at the matrix rate of the activations' dtype (float16 has bfloat16's)."""
        rate = self.float32_flops_per_s if dtype == torch.float32 else self.bf16_flops_per_s
        return 1e3 * forwards * 2 * shape.parameters * batch * tokens / rate


@dataclass(frozen=True)
class Measured:
    ms: float  # of one step
    steps: int  # in each repetition
    peak_bytes: int  # from before the step was built to the last repetition; on a CPU, of the process until now


@dataclass(frozen=True)
class Row:
    """What `zolite bench` says of one weight format. Batch · tokens are a step's, though both points read them."""

    weights: str
    ms: float
    forward_ms: float  # one bare forward of the batch
    floor_ms: float
    tokens_per_s: float
    peak_bytes: int
    resting_bytes: int


@dataclass(frozen=True)
class Report:
    shape: str
    device: str
    batch: int
    tokens: int
    rates: Rates
    rows: tuple[Row, ...]


def report(name: str, device: torch.device, formats: Sequence[str] = ("int8", "nf4", "bf16")) -> Report:
    """Rates, and for every format zolite's step on all linear layers, its default, and one bare forward."""
    if name not in SHAPES:
        raise UsageError(f"no shape {name!r}", f"choose one of {', '.join(SHAPES)}")
    need, budget = max(SHAPES[name].weight_bytes(f) for f in formats), device_memory.budget_bytes(device)
    if need > budget:
        text = f"{name} needs {human_bytes(need)} for its weights alone, of {human_bytes(budget)}"
        raise DoesNotFit(text, f"take a smaller one of {', '.join(SHAPES)}")
    batch, tokens = (16 if device.type == "cuda" else 4), 64
    try:
        found = rates(device)
        rows = tuple(_row(name, weights, device, batch, tokens, found) for weights in formats)
    except torch.OutOfMemoryError as error:
        raise DoesNotFit(f"a step of {name} does not fit {human_bytes(budget)}", "free the GPU's memory") from error
    return Report(name, device_memory.device_name(device), batch, tokens, found, rows)


def _row(name: str, weights: str, device: torch.device, batch: int, tokens: int, found: Rates) -> Row:
    settle(device)
    loaded = random_model(name, weights, device)
    resting = device_memory.used_bytes(device)
    rows = random_rows(SHAPES[name].vocabulary, batch * BATCHES, tokens)
    forward = measure(lambda: forward_step(loaded, rows[:batch]), device)
    step = measure(lambda: zolite_step(loaded, recipe_of(weights, batch, tokens, ()), rows), device)
    floor = found.floor_ms(SHAPES[name], batch, tokens, quant.activations(weights, device))
    per_second = batch * tokens / step.ms * 1e3
    return Row(weights, step.ms, forward.ms, floor, per_second, step.peak_bytes, resting)


def recipe_of(weights: str, batch: int, tokens: int, targets: Sequence[str] = TARGETS) -> Recipe:
    """The product's defaults but for what is measured; targets () are all linear layers."""
    changes = {
        "model.quant": weights,
        "adapter.space": "lora-b",
        "adapter.targets": tuple(targets),
        "data.context": max(8, tokens + 1),
        "train.batch": batch,
        "train.lr": 1e-6,  # nothing is learned here: it must only stay finite
        "train.schedule": "constant",
    }
    return recipes.override(Recipe(), changes)


def zolite_step(loaded: Loaded, recipe: Recipe, rows: Sequence[Example]) -> Step:
    """The product's own step, as `train` takes it: puts adapters into the model, and returns what takes step n."""
    budget = device_memory.budget_bytes(loaded.device)
    run = assemble(recipes.resolve(recipe), loaded, {"train": rows}, {}, (), budget)
    steps = stepper(run)

    def step(number: int) -> object:
        estimate = steps(batches_of(run, number), number)
        if reason := steps.refusal():
            warnings.warn(f"timed without a CUDA graph: {reason}", stacklevel=2)
        return estimate

    return step


def forward_step(loaded: Loaded, rows: Sequence[Example]) -> Step:
    """The decoder alone on one batch, without logits, as transformers runs it."""
    ids = torch.tensor([row.sequences[0] for row in rows], device=loaded.device)

    @torch.inference_mode()
    def step(_: int) -> object:
        return loaded.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state

    return step


def random_rows(vocabulary: int, count: int, tokens: int, seed: int = 0) -> list[Example]:
    """Completions: each row's forward reads `tokens` tokens, and the last ANSWER of them predict the token after."""
    draw = random.Random(seed)
    texts = [tuple(draw.randrange(vocabulary) for _ in range(tokens + 1)) for _ in range(count)]
    asked = range(max(0, tokens - ANSWER), tokens)
    return [Example((t[:-1],), tuple(Query(0, i, t[i + 1], 0) for i in asked), 0, 1) for t in texts]


def random_model(name: str, weights: str, device: torch.device) -> Loaded:
    """A model of that shape and format, made on the device a layer at a time: no layer's 16 bits outlive its codes."""
    shape, dtype = SHAPES[name], quant.activations(weights, device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        model = _empty(shape, device)
        for layer in quant.linear_names(model):
            old = model.get_submodule(layer)
            quant.replace_(model, layer, LAYERS[weights]((old.out_features, old.in_features), dtype, device))
        model.model.embed_tokens.weight = _normal((shape.vocabulary, shape.hidden), dtype, device)
        model.lm_head.weight = (
            model.model.embed_tokens.weight if shape.tied else _normal((shape.vocabulary, shape.hidden), dtype, device)
        )
    for module in model.modules():
        if "RMSNorm" in type(module).__name__:
            module.weight = nn.Parameter(torch.ones(shape.hidden, dtype=dtype, device=device))
    source = Source(f"random {name}", "random", None)
    return Loaded(model.eval().requires_grad_(False), device, source.name, source)


def _empty(shape: Shape, device: torch.device) -> Any:
    """The architecture without weights; its rotary angles, which no checkpoint holds, are real."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=shape.tied,
    )
    with quiet(), torch.device("meta"):
        model = LlamaForCausalLM(config)
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model


def _normal(size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    return nn.Parameter(torch.empty(size, dtype=dtype, device=device).normal_(0, SPREAD), requires_grad=False)


def _plain(size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> nn.Module:
    linear = nn.Linear(size[1], size[0], bias=False, device="meta")
    linear.weight = _normal(size, dtype, device)
    return linear


def _int8(size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> nn.Module:
    codes = torch.randint(-127, 128, size, dtype=torch.int8, device=device)
    scales = torch.full((size[0],), SPREAD * math.sqrt(3), device=device)  # uniform codes: deviation largest / √3
    return quant.Int8Linear(codes, scales, None, dtype)


def _nf4(size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> nn.Module:
    from bitsandbytes.functional import quantize_4bit
    from bitsandbytes.nn import Params4bit

    codes, state = quantize_4bit(_normal(size, torch.bfloat16, device).data, blocksize=64, quant_type="nf4")
    weight = Params4bit(codes, False, state, 64, False, "nf4", bnb_quantized=True)
    return quant.Nf4Linear(weight, None, dtype)


LAYERS = {"int8": _int8, "nf4": _nf4, "bf16": _plain, "float32": _plain}


def measure(build: Callable[[], Step], device: torch.device) -> Measured:
    """Build a step and time it; the peak includes what building it takes."""
    settle(device)
    step, numbers = build(), itertools.count()

    def several(count: int) -> float:
        return elapsed_ms(lambda: [step(next(numbers)) for _ in range(count)], device) / count

    rough = [several(1) for _ in range(WARMUP[speed(device)])][-1]
    steps = min(STEPS, max(1, int(REPETITION_MS / rough)))
    ms = statistics.median(several(steps) for _ in range(REPETITIONS))
    return Measured(ms, steps, device_memory.peak_bytes(device))


def elapsed_ms(work: Callable[[], object], device: torch.device) -> float:
    """By the device's own clock, from an idle device to an idle device."""
    if device.type != "cuda":
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) * 1e3
    torch.cuda.synchronize(device)
    event, stream = partial(torch.cuda.Event, enable_timing=True), torch.cuda.current_stream(device)
    start, end = event(), event()
    start.record(stream)
    work()
    end.record(stream)
    end.synchronize()
    return float(start.elapsed_time(end))


def settle(device: torch.device) -> None:
    """Let go of everything that is no longer used, and count the peak from here."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch._C._cuda_clearCublasWorkspaces()  # they would count as the next one's memory
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def rates(device: torch.device) -> Rates:
    """The best of several, each on buffers larger than any cache."""
    large = device.type == "cuda"
    source = torch.zeros(2**30 if large else 2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.numel() / _best_s(lambda: target.copy_(source), device)
    return Rates(copied, *(_product_rate(8192 if large else 2048, d, device) for d in (torch.bfloat16, torch.float32)))


def _product_rate(n: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP a second of an n × n × n product."""
    a, b = (torch.empty(n, n, dtype=dtype, device=device).normal_() for _ in range(2))
    out: Tensor = torch.empty_like(a)
    return 2 * n**3 / _best_s(lambda: torch.mm(a, b, out=out), device)


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    calls = 10 if device.type == "cuda" else 1
    times = [elapsed_ms(lambda: [work() for _ in range(calls)], device) for _ in range(6)]
    return min(times[1:]) / calls / 1e3
