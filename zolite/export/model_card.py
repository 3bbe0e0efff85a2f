"""The README of an export: what it is, how it was made, what it says, how it is loaded."""

from collections.abc import Sequence

from zolite.common.text import one_line, visible
from zolite.export.parity import Report, answers
from zolite.export.source import Trained
from zolite.export.uses import Place, Use
from zolite.export.writer import Card
from zolite.monitor.log import score_text

CARD = """---
base_model: {base}
{library}tags: [lora, zeroth-order]
---
# {name}

{what}, trained with forward passes alone by zolite {version}:
method {method}, space {space}, {steps} of {batch} rows, learning rate {lr:g}, ε {eps:g}, seed {seed}.
Adapter: rank {rank}, alpha {alpha:g}. The frozen weights were held in {quant} while it was trained ({model}).
{score}{checked}{code}
{prompt}
## Use

THIS_FOLDER is where these files lie; BASE.gguf is {base} as a GGUF file, in any quantization.

{uses}"""

OWN_CODE = """
The base model was loaded with code of its own (`model.trust_code`). What loads it runs that code too: give
`trust_remote_code=True` to `from_pretrained`, `--trust-remote-code` to vLLM and SGLang, once you have read it.
"""

PROMPT = """The prompt ends where the answer begins, as it did in training: no space and no new line behind it.

```
{question}
```
"""


MASKED = """The label is what the mask stands for, as in training; a label of several tokens takes as many masks.

```
{question}
```
"""


def card(trained: Trained, about: Card, at: Place, uses: Sequence[Use], reports: Sequence[Report]) -> str:
    r, facts, base = trained.recipe, trained.facts, one_line(trained.source.base)
    *others, last = [str(step) for step in trained.steps]
    measured = [f"Measured: {score_text(e)}; on {e.rows} rows at step {e.step}.\n" for e in trained.scores]
    return visible(
        CARD.format(
            base=base,
            library=about.library,
            name=trained.name,
            what=about.what.replace("{base}", base),
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
            model=one_line(r.model.name),
            score="".join(measured[-1:]),
            checked="".join(f"Checked with {report.reader}: {answers(report)}.\n" for report in reports),
            code=OWN_CODE if trained.source.trusted else "",
            prompt="" if at.question.messages else (MASKED if at.mask else PROMPT).format(question=at.question.text),
            uses="\n".join(f"{use.program}:\n\n```{use.language}\n{use.text(at)}\n```\n" for use in uses),
        )
    )
