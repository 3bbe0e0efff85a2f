"""The README of an export: what it is, how it was made, how it is loaded."""

from zolite.export.source import Trained
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
{score}{prompt}
{use}"""

PROMPT = "Prompts looked like this, with the answer in place of the last braces: `{template}`\n"


def card(trained: Trained, about: Card) -> str:
    r, facts, base, shown = trained.recipe, trained.facts, trained.source.base, trained.prompt.template
    what, use = (text.replace("{base}", base) for text in (about.what, about.use))
    *others, last = [str(step) for step in trained.steps]
    measured = [f"Measured: {score_text(e)}; on {e.rows} rows at step {e.step}.\n" for e in trained.scores]
    return CARD.format(
        base=base,
        library=about.library,
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
