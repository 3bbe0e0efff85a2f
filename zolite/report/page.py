"""The report as one HTML page: no script, nothing from elsewhere, light and dark, and fit to be printed.

A section is a function from a subject to markup, empty where there is nothing to say; SECTIONS has their order.
"""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import replace

from zolite.common.text import UNKNOWN, human_bytes, human_number, human_seconds, many, one_line
from zolite.config import catalog
from zolite.config.methods import METHODS
from zolite.config.spaces import SPACES
from zolite.config.weights import WEIGHT_FORMATS
from zolite.data.kinds.registry import KINDS
from zolite.monitor import summary
from zolite.monitor.log import metric_text
from zolite.monitor.outcome import MARKS, before_and_after, card, outcome_of
from zolite.monitor.run_state import RunState
from zolite.monitor.states import STATES
from zolite.planner.memory import by_group, counted
from zolite.report import figures, labels, loading
from zolite.report.curves import drawn
from zolite.report.loading import unplaced
from zolite.report.markup import Markup, joined, table, tag
from zolite.report.style import CHART, PAGE, PALETTE
from zolite.report.subject import Subject

TONES = {"success": "good", "error": "bad", "warning": "warn"}  # classes of states' and verdicts' colours
NAMED = 12  # labels that are listed
MARK = "<!-- zolite report -->"  # near the beginning of every file; what has it may be replaced by a new one


def page(subjects: Sequence[Subject]) -> str:
    """Of one session all that is known; of several what differs, and their curves over each other."""
    names = " · ".join(subject.name for subject in subjects)
    body = _one(subjects[0]) if len(subjects) == 1 else _several(subjects)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>'),
        tag("title", f"{names} – zolite"),
        tag("style", Markup(f"{PALETTE}{CHART}{PAGE}")),
    )
    html = tag("html", tag("head", head), tag("body", tag("main", body)), lang="en")
    return f"<!doctype html>{MARK}\n{html}\n"


# --- one session ------------------------------------------------------------------------------------------------------


def _one(subject: Subject) -> Markup:
    sections = PROBLEMS if subject.status == "damaged" else SECTIONS
    found = ((title, section(subject)) for title, section in sections.items())
    return joined(_heading(subject), (joined(tag("h2", title), body) for title, body in found if body))


def _heading(subject: Subject) -> Markup:
    symbol, word, colour = STATES[subject.status]
    style = TONES.get(colour, "")
    recipe, state = subject.recipe, subject.state
    parts = [tag("span", f"{symbol} {word}", class_=f"state {style}")]
    if recipe:
        model = recipe.model.name.rpartition("/")[2].removeprefix("builtin:")
        when = datetime.datetime.fromtimestamp(subject.created, datetime.UTC)
        progress = "".join(text for text, _ in summary.progress(state))
        parts.append(tag("span", f"{model} · {progress} · begun {when:%Y-%m-%d %H:%M} UTC"))
    return joined(tag("h1", subject.name), tag("p", parts, class_="about"))


def _verdict(subject: Subject) -> Markup:
    """Before and after, and what comes next; nothing while a run goes on."""
    found = outcome_of(subject.state, unplaced(subject.recipe.data.path) if subject.recipe else "")
    if found is None:
        return Markup()
    lines = ["".join(text for text, _ in line) for line in card(replace(found, advice="", commands=""))]
    colour = TONES.get(MARKS.get(found.verdict, MARKS["unknown"])[1])
    head, *numbers = (line.strip() for line in lines if line.strip() != "next")
    parts = [tag("p", head, class_=colour), (tag("p", line) for line in numbers)]
    if found.advice:
        parts += [tag("p", "What to try:"), tag("ul", (tag("li", line) for line in found.advice.splitlines()))]
    return joined(tag("div", parts, class_="verdict"), tag("p", "Next:", class_="note"), tag("pre", found.commands))


def _wrong(subject: Subject) -> Markup:
    items = tag("ul", (tag("li", each) for each in subject.problems))
    hint = "Restore its folder from a copy, or delete it: what is whole in it is not changed by either."
    return joined(items, tag("p", hint, class_="note"))


def _curves(subject: Subject) -> Markup:
    """Loss and scores by step."""
    shown = [(picture, drawn(picture)) for picture in figures.of([subject.state])]
    if not any(svg for _, svg in shown):
        return tag("p", "No step has been taken yet.", class_="note")
    return joined(tag("figure", svg, tag("figcaption", _caption(picture))) for picture, svg in shown if svg)


def _caption(picture: figures.Picture) -> str:
    notes = {
        "each step": "Dots are single steps, each on other rows; the line is their smoothed course.",
        "accuracy": "Shares of the rows, with 95 % intervals; the best step is the first of the highest.",
    }
    return f"{picture.title.capitalize()}. {notes.get(picture.metric, 'The best step is the first of the lowest.')}"


def _trained(subject: Subject) -> Markup:
    """What was trained on what, in words."""
    r, state = subject.recipe, subject.state
    assert r is not None
    known = catalog.builtins().get(r.model.name.removeprefix("builtin:"))
    model = f"{known.title} ({known.licence})" if known else unplaced(r.model.name)
    bits = WEIGHT_FORMATS[r.model.quant].bits
    numbers = f", {state.started.trainable:,} numbers" if state.started else ""
    method = METHODS.get(r.method.name)
    passes = _passes(subject)
    lines = {
        "model": f"{model}; its weights are frozen, {bits:g} bits each ({r.model.quant})",
        "adapter": f"LoRA of rank {r.adapter.rank}{numbers}: {SPACES[r.adapter.space].summary} ({r.adapter.space})",
        "method": f"{r.method.name}: {method.summary} ({method.paper}); forward passes alone" if method else "",
        "rows": _rows(subject),
        "labels": _labels(subject),
        "steps": f"{state.step:,} of {state.steps:,}, {many(r.train.batch, 'row')} each{passes}",
        "learning rate": f"{r.train.lr:.3g}, {r.train.schedule}; perturbation scale ε {r.train.eps:.3g}",
        "seed": f"{r.train.seed}",
        "took": human_seconds(state.finished.seconds) if state.finished else "",
    }
    return _terms(lines)


def _terms(lines: dict[str, str]) -> Markup:
    return tag("dl", ((tag("dt", name), tag("dd", value)) for name, value in lines.items() if value))


def _rows(subject: Subject) -> str:
    assert subject.recipe is not None
    path = ", ".join(unplaced(each.strip()) for each in subject.recipe.data.path.split(","))
    if subject.dataset is None:
        return f"{path}, which is not there any more as it was"
    counts = {"train": "to train on", "dev": "for validation", "test": "to test on"}
    found = [f"{len(rows):,} {counts.get(name, name)}" for name, rows in subject.dataset.splits.items()]
    return f"{path}: {', '.join(found)}; {KINDS[subject.dataset.kind].title}"


def _labels(subject: Subject) -> str:
    names = [one_line(str(each)) for each in subject.facts.get("labels") or ()]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)}: {', '.join(names[:NAMED])}{more}" if names else ""


def _passes(subject: Subject) -> str:
    if subject.dataset is None or not len(subject.dataset.splits.get("train", ())) or not subject.recipe:
        return ""
    passes = subject.state.step * subject.recipe.train.batch / len(subject.dataset.splits["train"])
    return f": {passes:.1f} passes over the training rows"


def _memory(subject: Subject) -> Markup:
    """Bars of one scale, and what was in use over the run."""
    state = subject.state
    if not state.peak_bytes:
        return Markup()
    budget = state.started.budget_bytes if state.started else 0
    lines = counted(subject.planned or (), state.started.device if state.started else state.about.device)
    plan = sum(line.bytes for line in lines)
    parts = {f"– {name}": (size, "plan") for name, size in by_group(lines).items() if size}
    sizes = {"free before": (budget, "free"), "peak": (state.peak_bytes, ""), "planned": (plan, "plan"), **parts}
    most = max(size for size, _ in sizes.values())
    bars = [
        joined(
            tag("span", name, class_="part" if name in parts else None),
            tag("b", human_bytes(size)),
            _bar(size, most, kind),
        )
        for name, (size, kind) in sizes.items()
        if size
    ]
    word, style = summary.fits(state.peak_bytes, budget)[0], ""
    verdict = tag(
        "p", f"{word}: at most {human_bytes(state.peak_bytes)} of {human_bytes(budget)}", class_=style or None
    )
    over = drawn(figures.memory(subject.memory)) if len(subject.memory) > 1 else Markup()
    shown = tag("figure", over, tag("figcaption", "Memory in use by step, and the most until then.")) if over else ""
    return joined(verdict if budget else "", tag("div", bars, class_="bars"), shown)


def _bar(size: int, most: int, kind: str) -> Markup:
    return tag("i", class_=kind or None, style=f"width: {100 * size / most:.1f}%")


def _samples(subject: Subject) -> Markup:
    found = [subject.state.samples[row] for row in sorted(subject.state.samples)]
    if not found:
        return Markup()
    names = ("end of the prompt", "before", f"at step {found[-1].step:,}", "right answer")
    rows = [
        zip(
            names,
            (f"… {each.prompt}", *(text.strip() or "(nothing)" for text in (each.before, each.now, each.reference))),
            strict=True,
        )
        for each in found
    ]
    body = (tag("tr", (tag("td", text, data_of=name) for name, text in row)) for row in rows)
    head = tag("tr", (tag("th", name) for name in names))
    note = "Rows of validation, which were not trained on; written greedily, and cut where … ends them."
    return joined(tag("table", tag("thead", head), tag("tbody", body), class_="texts"), tag("p", note, class_="note"))


def _environment(subject: Subject) -> Markup:
    versions = {str(name): str(version) for name, version in (subject.facts.get("versions") or {}).items()}
    device = subject.state.started.device if subject.state.started else str(subject.facts.get("device", ""))
    return _terms({"device": device} | versions)


def _warned(subject: Subject) -> Markup:
    found = [line for line in subject.state.log if line.level in ("warning", "error")]
    return tag("ul", (tag("li", f"step {line.step:,}: {line.text}") for line in found)) if found else Markup()


# --- several sessions -------------------------------------------------------------------------------------------------


def _several(subjects: Sequence[Subject]) -> Markup:
    sound = [subject for subject in subjects if subject.status != "damaged"]
    broken = [subject for subject in subjects if subject.status == "damaged"]
    pictures = [(picture, drawn(picture)) for picture in figures.of([s.state for s in sound])] if sound else []
    curves = (
        tag("figure", svg, tag("figcaption", f"{picture.title.capitalize()}.")) for picture, svg in pictures if svg
    )
    rows = list(COMPARED.items())
    beside = table(("", *(s.name for s in sound)), [(name, *(show(s) for s in sound)) for name, show in rows])
    problems = [joined(tag("h2", f"{s.name} is damaged"), _wrong(s)) for s in broken]
    heads = [
        tag("h1", f"{len(subjects)} sessions compared"),
        tag("p", ", ".join(s.name for s in subjects), class_="about"),
    ]
    return joined(heads, beside if sound else "", tag("h2", "Curves"), curves, problems)


def _best(state: RunState) -> str:
    best = state.best()
    return f"{metric_text(best)} at step {best.step:,}" if best else UNKNOWN


def _before(state: RunState) -> str:
    before, _ = before_and_after(state.evaluations)
    return metric_text(before) if before else UNKNOWN


def _of_recipe(show: Callable[..., str]) -> Callable[[Subject], str]:
    return lambda subject: show(subject.recipe) if subject.recipe else UNKNOWN


COMPARED: dict[str, Callable[[Subject], str]] = {
    "state": lambda s: " ".join(STATES[s.status][:2]),
    "steps": lambda s: f"{s.state.step:,} of {s.state.steps:,}",
    "best on validation": lambda s: _best(s.state),
    "last on validation": lambda s: metric_text(s.state.dev()[-1]) if s.state.dev() else UNKNOWN,
    "before training": lambda s: _before(s.state),
    "did it work?": lambda s: found.text if (found := outcome_of(s.state)) else UNKNOWN,
    "smoothed loss": lambda s: human_number(s.state.moving.loss),
    "took": lambda s: human_seconds(s.state.finished.seconds) if s.state.finished else UNKNOWN,
    "peak memory": lambda s: human_bytes(s.state.peak_bytes),
    "model": _of_recipe(lambda r: unplaced(r.model.name).removeprefix("builtin:")),
    "weights": _of_recipe(lambda r: r.model.quant),
    "adapter": _of_recipe(lambda r: f"{r.adapter.space}, rank {r.adapter.rank}"),
    "method": _of_recipe(lambda r: r.method.name),
    "rows a step": _of_recipe(lambda r: f"{r.train.batch}"),
    "learning rate": _of_recipe(lambda r: f"{r.train.lr:.3g}"),
    "ε": _of_recipe(lambda r: f"{r.train.eps:.3g}"),
    "seed": _of_recipe(lambda r: f"{r.train.seed}"),
    "device": lambda s: one_line(str(s.facts.get("device", UNKNOWN))),
}
"""What of several sessions stands side by side."""

Section = Callable[[Subject], Markup]
SECTIONS: dict[str, Section] = {
    "Did it work?": _verdict,
    "Curves": _curves,
    "What was trained on what": _trained,
    "Sample answers": _samples,
    "Scores by label": labels.by_label,
    "Memory": _memory,
    "Warnings": _warned,
    "How to use it": loading.use,
    "Environment": _environment,
}
PROBLEMS: dict[str, Section] = {"What is wrong with it": _wrong}
