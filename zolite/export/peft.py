"""A session's adapter as peft writes it: adapter_config.json, adapter_model.safetensors and a model card."""

import math
import os
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from zolite import disk
from zolite.errors import UsageError
from zolite.model.load import quiet
from zolite.recipe import Recipe
from zolite.replay import factors_at
from zolite.session import Session

CARD = """---
base_model: {base}
library_name: peft
tags: [lora, zeroth-order]
---
# {name}

A LoRA adapter (rank {rank}, alpha {alpha:g}) for {base}, trained with forward passes alone by zolite {version}:
method {method}, space {space}, {step} steps of {batch} rows, learning rate {lr:g}, ε {eps:g}, seed {seed}.
The frozen weights were held in {quant} while it was trained ({model}).
{score}
Prompts looked like this, with the answer in place of the last braces: `{template}`

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "PATH OF THIS FOLDER")
tokenizer = AutoTokenizer.from_pretrained("{base}")
```
"""


def export(session: Session, folder: Path) -> int:
    """Write the adapter at the session's last step to a new folder; that step. Nothing half-written stays."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty", "choose another folder with --to")
    step, factors = factors_at(session)
    with disk.saving("the adapter", folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".zolite-export-") as partial:
            _write(Path(partial), session, step, factors)
            shutil.rmtree(folder, ignore_errors=True)  # it is empty
            os.rename(partial, folder)
            os.mkdir(partial)  # for the context manager to remove
    return step


def _write(folder: Path, session: Session, step: int, factors: dict[str, Tensor]) -> None:
    with quiet():
        from peft import LoraConfig

    recipe = session.recipe
    LoraConfig(
        r=recipe.adapter.rank,
        lora_alpha=_whole(recipe.adapter.alpha),
        target_modules=_targets(factors, recipe),
        base_model_name_or_path=session.facts["base"],
        task_type="CAUSAL_LM",
        inference_mode=True,
    ).save_pretrained(str(folder))
    save_file({_peft_name(name): t.clone() for name, t in factors.items()}, folder / "adapter_model.safetensors")
    (folder / "README.md").write_text(_card(session, step), encoding="utf-8")


def _peft_name(block: str) -> str:
    """model.layers.0.mlp.up_proj.a → base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"""
    layer, _, factor = block.rpartition(".")
    return f"base_model.model.{layer}.lora_{factor.upper()}.weight"


def _targets(factors: dict[str, Tensor], recipe: Recipe) -> list[str]:
    """Last parts of names, as peft's own configs have them, unless single layers were chosen by full name."""
    layers = {name.rpartition(".")[0] for name in factors}
    single = any("." in target for target in recipe.adapter.targets)
    return sorted(layers if single else {layer.rpartition(".")[2] for layer in layers})


def _whole(alpha: float) -> int:
    """lora_alpha is an integer in peft's config; other programs read it as one."""
    return int(alpha) if math.isclose(alpha, int(alpha)) else alpha  # type: ignore[return-value]


def _card(session: Session, step: int) -> str:
    r = session.recipe
    best = [e for e in session.journal.evaluations() if e.split in ("dev", "test")]
    scores = [f"{e.split} {e.metric} {e.value:.4g} on {e.rows} rows at step {e.step}" for e in best[-1:]]
    return CARD.format(
        name=session.name,
        base=session.facts["base"],
        model=r.model.name,
        version=session.facts["versions"]["zolite"],
        step=step,
        score="Measured: " + scores[0] + ".\n" if scores else "",
        method=r.method.name,
        template=r.data.template.replace("\n", "⏎"),
        quant=r.model.quant,
        space=r.adapter.space,
        rank=r.adapter.rank,
        alpha=r.adapter.alpha,
        batch=r.train.batch,
        lr=r.train.lr,
        eps=r.train.eps,
        seed=r.train.seed,
    )
