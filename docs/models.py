"""Writes docs/models.md: what becomes of every causal architecture of transformers, by benchmarks/results/models.json.

python docs/models.py [RESULTS]
"""

import json
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
EQUAL = 1e-3  # nats: as benchmarks/models.py has it
EXPORTS = ("peft", "merged", "gguf")

HEAD = """# Models

Which architectures zolite measures as they are themselves. Every causal language model that transformers {transformers}
knows, at tiny random weights: saved, loaded from its folder, compared, trained for 4 steps, exported and read back.
Written by `python docs/models.py` of what `python benchmarks/models.py` found ({date}); what a load proves of any
model, whatever it is called, says zolite/model/proof.py.

**{built} architectures could be built: {equal} of them have equal losses, {refused} are refused, {failed} fail in
another way, {different} differ silently.** {unbuilt} could not be built in a tiny form here, which says nothing of
them.

- *losses*: "equal" where a row's mean log-probability is that of transformers' own logits within {bound} nats, for rows
  beside others, padded, and for two perturbed copies in one forward pass (less what transformers' own logits differ by
  for rows beside others: some architectures make much of rounding). "equal, own logits" where the model does more
  behind its last hidden states than multiply them by its head: the run then takes the model's own logits, and says so.
- *trains*: 4 steps of the default method.
- *peft*: the exported adapter, loaded by peft {peft}, has the session's losses.
- *merged*: so has the model with the adapter in its weights, of 16 bits, loaded by transformers. Empty where that was
  not tried yet.
- *gguf*: so has the adapter as llama.cpp reads it, by the gguf package. Empty where zolite does not know llama.cpp's
  names of the layers: `--format merged` and llama.cpp's own convert_hf_to_gguf.py are the way there.

Layers whose adapters peft would take for those of routed experts, since they were called so before transformers 5, are
named by their weights in `target_parameters` of adapter_config.json.

| architecture | parameters | losses | trains | peft | merged | gguf | why not |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

WEIGHTS = """
## How weights may be stored

In 16 or 32 bits as safetensors, or quantized already: then each layer is dequantized as it is read, and held in what
`--quant` asks for; a note says so. What bitsandbytes saved in int8 or nf4 is kept where `--quant` asks for that.

So is a GGUF file, tensor by tensor, whatever its types (Q4_K_M, Q6_K, Q8_0 …): each is unpacked to 16 bits in memory as
it is read, and none lies on the disk again. Names and layouts are those of transformers' GGUF loader, so that
architectures which it does not read are refused, and so is a file whose tensors are not exactly the model's.

| saved by | which layouts |
| --- | --- |
| bitsandbytes | int8, nf4 and fp4, with quantized scales or without |
| GPTQ | 2, 3, 4 and 8 bits, both versions, with `desc_act` or without; `quantize_config.json` of older saves too |
| AWQ | "gemm", 4 bits |
| FP8 | scales of tensors, of rows, and of blocks (DeepSeek, Qwen3, FBGEMM) |
| MXFP4 | the experts of gpt-oss |
| compressed-tensors | pack-quantized, int-, float- and naive-quantized, NVFP4, MXFP4, MXFP8 |

Any other method or layout is refused by its name. Biases of zeros that GPTQ writes for layers without one are left out,
and so are scales of activations and of key-value caches: activations are never quantized. A merged export needs the
original in 16 bits.

## Code that comes with a model

It is never run, nor is it asked whether it may be: a model of an architecture that transformers lacks is refused by the
names of its files of code, and one that transformers has is loaded without them. `--trust-code` (`model.trust_code`)
runs that code as you, with all that you may do. The session records it, every command that loads the model again runs
the code again, a resume refuses other code than the run began with, and the card of an export says so.
"""


ENCODERS = """
## Encoders

Every model of transformers {transformers} with a masked-language head, at tiny random weights in the same way: on rows
with labels, of one token and of several, which are compared at masks. **{built} could be built: {equal} of them have
equal losses, {refused} are refused, {failed} fail in another way, {different} differ silently.** T5 and other encoders
with a decoder are refused: take a decoder alone, or train them with transformers' Seq2SeqTrainer. llama.cpp has no
masked-language heads, so that no encoder is exported for it; what was not tried is empty.

| architecture | parameters | losses | trains | peft | merged | gguf | why not |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def equal(row: dict[str, Any]) -> bool:
    return row.get("loads", False) and max(row["apart"], row["points_apart"]) <= EQUAL


def losses(row: dict[str, Any]) -> str:
    if not row.get("loads"):
        return "refused" if row.get("refused") else "fails"
    if not equal(row):
        return f"**{max(row['apart'], row['points_apart']):.2g} apart**"
    return "equal, own logits" if row["own_logits"] else "equal"


def line(kind: str, row: dict[str, Any]) -> str:
    why = row.get("why") or "; ".join(f"{kind}: {row[kind]}" for kind in EXPORTS if row.get(kind))
    trains = {True: "yes", False: "no", None: ""}[row.get("trains")]
    exports = ({"": "equal", None: ""}.get(row.get(kind), "no") for kind in EXPORTS)
    cells = (kind, f"{row.get('parameters', 0):,}", losses(row), trains, *exports, why.replace("|", "/"))
    return "| " + " | ".join(cells) + " |"


def counts(rows: dict[str, Any]) -> dict[str, int]:
    built = [row for row in rows.values() if row.get("built")]
    return {
        "built": len(built),
        "equal": sum(map(equal, built)),
        "refused": sum(bool(row.get("refused")) for row in built),
        "failed": sum(not row.get("loads") and not row.get("refused") for row in built),
        "different": sum(bool(row.get("loads")) and not equal(row) for row in built),
        "unbuilt": len(rows) - len(built),
    }


def table(head: str, rows: dict[str, Any]) -> str:
    return head + "".join(line(kind, row) + "\n" for kind, row in rows.items() if row.get("built"))


def page(found: dict[str, Any]) -> str:
    about, encoders = found["provenance"], found.get("encoders", {})
    known: dict[str, Any] = {**about["versions"], "date": about["date"][:10], "bound": EQUAL}
    text = table(HEAD.format(**counts(found["rows"]), **known), found["rows"])
    text += table(ENCODERS.format(**counts(encoders), **known), encoders) if encoders else ""
    every = [*found["rows"].items(), *encoders.items()]
    others = [f"| {kind} | {row['why'].replace('|', '/')} |" for kind, row in every if not row.get("built")]
    rest = "\n## Not built\n\n| architecture | what transformers says of its tiny form |\n| --- | --- |\n"
    return text + WEIGHTS + (rest + "\n".join(others) + "\n" if others else "")


def main() -> None:
    default = DOCS.parent / "benchmarks" / "results" / "models.json"
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    (DOCS / "models.md").write_text(page(json.loads(file.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
