"""Claim: any decoder that transformers loads is measured as it is itself, or refused; none silently as something else.

Every causal architecture of the installed transformers at tiny random weights, saved and loaded from its folder: are
zolite's losses those of transformers' own logits, a row at a time; are those of two points in one forward those of each
alone; do 4 steps train; is the adapter read back as what was trained: for peft, merged into the weights, and as GGUF
where zolite knows llama.cpp's names. Of encoders the same, on rows with labels at their masks.

python benchmarks/models.py [OUT] [MODEL_TYPE …]      adds to OUT/models.json what is not there yet
python benchmarks/models.py OUT --only MODEL_TYPE …   measures those again
python docs/models.py                                 writes docs/models.md of it
"""

import contextlib
import itertools
import json
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from common import RESULTS, provenance

SMALL = {
    "hidden_size": 64, "d_model": 64, "n_embd": 64, "intermediate_size": 128, "ffn_dim": 128,
    "num_attention_heads": 4, "n_head": 4,
    "n_heads": 4, "decoder_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "head_dim": 16,
    "max_position_embeddings": 128, "n_positions": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "moe_intermediate_size": 32, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 16, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "word_embed_proj_dim": 64,
    "shared_expert_intermediate_size": 32, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 300,
    "decoder_ffn_dim": 128, "encoder_ffn_dim": 128, "initializer_range": 0.1, "init_std": 0.1,
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """Which architectures are tried, on which rows."""

    key: str  # of the results
    known: str  # transformers' table of their classes
    encoder: bool
    row: Callable[[int], dict[str, str]]

    @property
    def classes(self) -> dict[str, str]:
        """By model_type; encoders that have a decoder too are refused, and not tried as encoders."""
        from transformers.models.auto import modeling_auto

        found = getattr(modeling_auto, self.known).items()
        table = {kind: name if isinstance(name, str) else name[0] for kind, name in found}
        others = modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES if self.encoder else {}
        return {kind: name for kind, name in sorted(table.items()) if kind not in others}


DECODERS = Form(
    "rows", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", False,
    lambda i: {"prompt": f"Ask {i}" + "?" * (i % 5) + ":", "completion": f" done {i}"},
)  # fmt: skip
ENCODERS = Form(
    "encoders", "MODEL_FOR_MASKED_LM_MAPPING_NAMES", True,
    lambda i: {"text": f"Ask {i}" + "?" * (i % 5), "label": ("a", "b", "of it")[i % 3]},
)  # fmt: skip
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers")
SPECIAL: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4},
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16},
    "granitemoehybrid": {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16},
    "falcon_h1": {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_d_ssm": 128},
    "mamba2": {"num_heads": 8, "state_size": 16},
    "llama4_text": {"moe_layers": [0, 1]},
}
"""Where the numbers of all do not go together."""
LAYERS = (2, 4, 3, 8)  # tried in turn
INNER = ("text_config", "vision_config", "audio_config", "decoder", "thinker_config")
MOST = 40e6  # parameters of a model that has no small form
SECONDS = 240  # an architecture, of a processor; of a busy machine ten times as many
EQUAL = 1e-3  # nats, of a mean log-probability
FORMATS = ("peft", "merged", "gguf")


def numbers(config: Any, layers: int) -> dict[str, Any]:
    """Of the tiny form, those that a config has."""
    special = SPECIAL.get(config.model_type, {})
    small = SMALL | dict.fromkeys(LAYER_COUNTS, layers)
    if has(config, "qk_rope_head_dim"):  # of latent attention, whose rotation is of a part of the head
        small["head_dim"] = small["qk_rope_head_dim"]
    return {name: value for name, value in small.items() if has(config, name)} | special


def has(config: Any, name: str) -> bool:
    try:
        return hasattr(config, name)
    except Exception:  # noqa: BLE001 - a number that layers have of their own
        return False


def constructed(config: Any, layers: int, decoder: bool) -> Any:
    """The same architecture, tiny, as its class makes it of a few numbers."""
    made = type(config)(**numbers(config, layers))
    if has(made, "is_decoder"):
        made.is_decoder = decoder
    return made


def shrunk(config: Any, layers: int, decoder: bool, depth: int = 0) -> Any:
    """The same architecture, tiny: the numbers of the large one, changed."""
    for name, value in numbers(config, layers).items():
        if has(config, name):
            try_(lambda n=name, v=value: setattr(config, n, v))
    for name in INNER:
        if hasattr(getattr(config, name, None), "to_dict") and depth < 2:
            shrunk(getattr(config, name), layers, decoder, depth + 1)
    if isinstance(kinds := getattr(config, "layer_types", None), list):
        every = [*dict.fromkeys(kinds), *kinds * layers]  # one of each kind first
        try_(lambda: setattr(config, "layer_types", every[:layers]))
    if depth == 0 and hasattr(config, "is_decoder"):
        config.is_decoder = decoder
    return config


def try_(do: Callable[[], Any]) -> None:
    """Some configs refuse some values."""
    with contextlib.suppress(Exception):
        do()


def built(name: str, form: Form) -> Any:
    """A model with random weights, norms and biases, of as few layers as its kinds of layers need."""
    import torch
    import transformers

    made, errors = getattr(transformers, name), []
    for layers, how in itertools.product(LAYERS, (constructed, shrunk)):
        try:
            config = how(made.config_class(), layers, not form.encoder)
            with torch.device("meta"):
                count = sum(p.numel() for p in made(config).parameters())
            if count > MOST:
                raise ValueError(f"{count / 1e6:.0f} million parameters: its config has no small form here")
            torch.manual_seed(0)
            model = made(config).eval().float()
            logits_of(model, list(range(3, 20)))
            return model
        except Exception as error:  # noqa: BLE001 - whatever a config or a model of transformers raises
            errors.append(error)
    raise errors[0]


def logits_of(model: Any, sequence: list[int], rows: int = 1) -> Any:
    """transformers' own, (T, V) float32."""
    import torch

    from zolite.model.load import fills_masks

    ids = torch.tensor([sequence] * rows)
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in signature(model.forward).parameters else {}
    options = {"attention_mask": torch.ones_like(ids)} if fills_masks(model.config) else options
    with torch.inference_mode():
        return model(input_ids=ids, **options).logits[0].float()


def save(name: str, form: Form, folder: Path) -> int:
    """The model, and its tokenizer: the number of its parameters."""
    import torch

    model = built(name, form)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(3.0)  # so that caps and scales matter
            elif p.numel() > 1:
                p.add_(torch.randn_like(p) * 0.05)
            p.copy_(p.bfloat16())  # so that merging, which writes 16 bits, rounds what it adds alone
    model.save_pretrained(folder)
    tokenizer(form.encoder).save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def tokenizer(encoder: bool) -> Any:
    """A token a byte; an encoder's has a mask."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(letters[:3])
    inner.add_special_tokens(["<mask>"] if encoder else [])
    more = {"mask_token": "<mask>"} if encoder else {}
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", **more)


def measured(name: str, form: Form, folder: Path) -> dict[str, Any]:
    """What becomes of an architecture, until it is refused."""
    row: dict[str, Any] = {"class": name}
    try:
        row |= {"parameters": save(name, form, folder / "model"), "built": True}
    except Exception as error:  # noqa: BLE001 - whatever a config or a model of transformers raises
        return row | {"built": False, "why": said(error)}
    try:
        row |= of_run(form, folder)
    except Exception as error:  # noqa: BLE001 - the table says what happens
        from zolite.common.errors import ZoliteError

        row |= {"loads": False, "why": said(error), "refused": isinstance(error, ZoliteError)}
    return row


def said(error: BaseException) -> str:
    text = re.sub(r"/\S*/tmp\w+/model\b|/tmp/\S*?/model\b", "it", (str(error).strip().splitlines() or [""])[0])[:240]
    known = type(error).__name__ in ("ZoliteError", "UsageError", "DoesNotFit")
    return text if known else f"{type(error).__name__}: {text}"


def of_run(form: Form, folder: Path) -> dict[str, Any]:
    """Losses of its rows, and then what trains and is exported; a key that a failure comes before is left out."""
    from zolite.api import prepare, train
    from zolite.config.architectures import ARCHITECTURES
    from zolite.config.recipe import Recipe

    rows = [form.row(i) for i in range(16)]
    (folder / "data").mkdir()
    for split in ("train", "dev"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / f"{split}.jsonl").write_text(text, encoding="utf-8")
    recipe = Recipe.of({
        "model.name": str(folder / "model"), "model.quant": "float32", "data.path": str(folder / "data"),
        "train.steps": 4, "train.lr": 0.05, "train.eps": 0.01, "train.batch": 8, "train.copies": 2,
        "adapter.space": "lora", "data.template": "{text} It was {label}.",
    })  # fmt: skip
    run = prepare(recipe)
    own = bool(run.engine.loaded.own_logits) and not form.encoder  # whose logits always are its own
    found: dict[str, Any] = {"loads": True, "own_logits": own}
    found |= {"apart": apart(run, folder / "model"), "points_apart": points_apart(run)}
    if max(found["apart"], found["points_apart"]) > EQUAL:
        return found
    try:
        list(train(run, "made"))
        found["trains"] = True
    except Exception as error:  # noqa: BLE001 - as above
        return found | {"trains": False, "why": said(error)}
    gguf = ARCHITECTURES.get(run.engine.loaded.model.config.model_type)
    kinds = [kind for kind in FORMATS if kind != "gguf" or (gguf and gguf.llama_cpp)]
    return found | {kind: exported(kind, folder) for kind in kinds}


def apart(run: Any, folder: Path) -> float:
    """Distance of zolite's mean log-probabilities from those of transformers' logits, a row at a time: the greatest.

    Less what transformers' own differ by for a row beside another: some architectures make much of rounding.
    """
    import torch

    from zolite.export.readers import in_float32

    model = in_float32(folder, torch.device("cpu"))
    examples = run.examples["train"]
    found = []
    with torch.inference_mode():
        ours = run.engine.scores(examples)
        for row, our in zip(examples, ours, strict=True):
            for candidate in range(row.candidates):
                asked = [q for q in row.queries if q.candidate == candidate]
                sequence = list(row.sequences[asked[0].sequence])
                alone, beside = (logits_of(model, sequence, rows).log_softmax(-1) for rows in (1, 3))
                theirs, others = (
                    torch.stack([logs[q.position, q.token] for q in asked]).mean() for logs in (alone, beside)
                )
                found.append(float((our[candidate] - theirs).abs() - (others - theirs).abs()))
    return max(0.0, *found)


def points_apart(run: Any) -> float:
    """Of the losses at two points in one forward, from those in a forward each."""
    import torch

    from zolite.zo.direction import Combo, Noise
    from zolite.zo.rng import Key

    theta = run.engine.adapter.space.theta
    kept = theta.clone()
    points = [Combo(((0.05 * (i + 1), Noise(Key(i, 0, ("check", i)))),)) for i in range(2)]
    with torch.inference_mode():
        theta.add_(torch.randn(theta.shape, generator=torch.Generator().manual_seed(0)) * 0.05)
        objective = run.engine.bind(run.examples["train"][:8])
        together, alone = objective(points), torch.cat([objective([point]) for point in points])
        theta.copy_(kept)
    return float((together - alone).abs().max())


def exported(kind: str, folder: Path) -> str:
    """ "" where it was read back as what was trained, else why not."""
    from zolite.export.export import export
    from zolite.sessions import session as sessions

    try:
        with sessions.open_("made") as session:
            export(session, folder / kind, kind)
    except Exception as error:  # noqa: BLE001 - as above
        return said(error)
    return ""


def here(name: str, form: Form) -> dict[str, Any]:
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(ZOLITE_HOME=f"{folder}/home", ZOLITE_CACHE=f"{folder}/cache")
        return measured(name, form, Path(folder))


def child(name: str, form: Form, end: Any) -> None:
    """In a process of its own, which may hang or be killed."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    end.send(here(name, form))


def limited(name: str, form: Form) -> dict[str, Any]:
    mine, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(name, form, theirs))
    process.start()
    theirs.close()
    try:
        if mine.poll(10 * SECONDS):
            return dict(mine.recv())
        return {"class": name, "built": True, "loads": False, "why": f"took more than {10 * SECONDS} s"}
    except EOFError:
        why = f"took more than {SECONDS} s of a processor, or was killed"
        return {"class": name, "built": True, "loads": False, "why": why}
    finally:
        process.kill()
        process.join()


def main() -> None:
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    words = sys.argv[1:]
    out = Path(words.pop(0)) if words else RESULTS
    again = "--only" in words
    asked = [word for word in words if word != "--only"]
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    here("LlamaForCausalLM", DECODERS)  # so that all is imported, and no child has to
    file = out / "models.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for form in (DECODERS, ENCODERS):
        rows = found.get(form.key, {})
        for kind, name in form.classes.items():
            if (asked and kind not in asked) or (kind in rows and not again):
                continue
            rows[kind] = limited(name, form)
            print(kind, json.dumps(rows[kind], ensure_ascii=False), flush=True)
            found = {"provenance": provenance()} | found | {form.key: dict(sorted(rows.items()))}
            file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
