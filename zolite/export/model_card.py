"""The README of an export: what it is, how it was made, what it says, how it is loaded."""

from collections.abc import Sequence

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
{score}{checked}
{prompt}
## Use

THIS_FOLDER is where these files lie; BASE.gguf is {base} as a GGUF file, in any quantization.

{uses}"""

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
    r, facts, base = trained.recipe, trained.facts, trained.source.base
    *others, last = [str(step) for step in trained.steps]
    measured = [f"Measured: {score_text(e)}; on {e.rows} rows at step {e.step}.\n" for e in trained.scores]
    return CARD.format(
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
        model=r.model.name,
        score="".join(measured[-1:]),
        checked="".join(f"Checked with {report.reader}: {answers(report)}.\n" for report in reports),
        prompt="" if at.question.messages else (MASKED if at.mask else PROMPT).format(question=at.question.text),
        uses="\n".join(f"{use.program}:\n\n```{use.language}\n{use.text(at)}\n```\n" for use in uses),
    )
