"""The README of an export: what it is, how it was made, how it is loaded."""

from zolite.export.source import Trained

CARD = """---
base_model: {base}
{library}tags: [lora, zeroth-order]
---
# {name}

{what}, trained with forward passes alone by zolite {version}:
method {method}, space {space}, {steps} of {batch} rows, learning rate {lr:g}, ε {eps:g}, seed {seed}.
Adapter: rank {rank}, alpha {alpha:g}. The frozen weights were held in {quant} while it was trained ({model}).
{score}{prompt}
{use}"""

PROMPT = "Prompts looked like this, with the answer in place of the last braces: `{template}`\n"

PEFT = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "PATH OF THIS FOLDER")
tokenizer = AutoTokenizer.from_pretrained("{base}")
```
"""
MERGED = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH OF THIS FOLDER", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("PATH OF THIS FOLDER")
```
"""
GGUF = """```
llama-cli -m BASE.gguf --lora adapter.gguf
```
BASE.gguf is {base} as llama.cpp's convert_hf_to_gguf.py makes it, in any quantization.
"""
MERGED_GGUF = """```
llama-cli -m model.gguf
```
"""

# What a format's file is called in the first sentence, the library that the hub shows, how it is loaded.
WORDS = {
    "peft": ("A LoRA adapter for {base}", "library_name: peft\n", PEFT),
    "gguf": ("A LoRA adapter for {base}, for llama.cpp", "", GGUF),
    "merged": ("{base} with a LoRA adapter merged into its weights", "library_name: transformers\n", MERGED),
    "merged-gguf": ("{base} with a LoRA adapter merged into its weights, for llama.cpp", "", MERGED_GGUF),
}


def card(trained: Trained, format_: str) -> str:
    r, facts, base, shown = trained.recipe, trained.facts, trained.source.base, trained.prompt.template
    what, library, use = (text.format(base=base) if "{base}" in text else text for text in WORDS[format_])
    *others, last = [str(step) for step in trained.steps]
    measured = [
        f"Measured: {e.split} {e.metric} {e.value:.4g} on {e.rows} rows at step {e.step}.\n" for e in trained.scores
    ]
    return CARD.format(
        base=base,
        library=library,
        name=trained.name,
        what=what,
        version=facts["versions"]["zolite"],
        method=r.method.name,
        space=r.adapter.space,
        steps=f"the mean of steps {', '.join(others)} and {last}" if others else f"{last} steps",
        batch=r.train.batch,
        lr=r.train.lr,
        eps=r.train.eps,
        seed=r.train.seed,
        rank=r.adapter.rank,
        alpha=r.adapter.alpha,
        quant=r.model.quant,
        model=r.model.name,
        score="".join(measured[-1:]),
        prompt=PROMPT.format(template=shown.replace("\n", "⏎")) if shown else "",
        use=use,
    )
