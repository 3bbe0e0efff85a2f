"""How a session's adapter is used: the command that exports it, and those that load what it writes."""

from pathlib import PurePath

from zolite.data.kinds import completion, label
from zolite.data.kinds.kind import Kind
from zolite.data.kinds.registry import KINDS
from zolite.export import uses
from zolite.export.registry import FORMATS
from zolite.report.markup import Markup, joined, tag
from zolite.report.subject import Subject

OPENED = "peft"  # the format whose commands are seen at once


def use(subject: Subject) -> Markup:
    """The command that exports, and those that load what it writes."""
    if not subject.state.saved:
        return Markup()
    name = subject.name
    parts = [tag("p", "Talk to it here: "), tag("pre", f"zolite chat {name}")]
    for format_ in FORMATS.values():
        if format_.encoders or not subject.encoder:
            folder = f"{name}-{format_.name}"
            command = tag("pre", f"zolite export {name} --format {format_.name} --to {folder}")
            body = joined(command, _loaded(subject, format_.name, folder))
            told = tag("summary", f"{format_.name}: {format_.title}, for {format_.readers}")
            parts.append(tag("details", told, body, **({"open": ""} if format_.name == OPENED else {})))
    return joined(parts)


def _loaded(subject: Subject, format_: str, folder: str) -> Markup:
    if subject.encoder:
        return tag("p", "The export prints how it is loaded.", class_="note")
    place = _place(subject, folder)
    return joined(
        (
            tag("h3", f"{each.program}{f', where the export has a {each.needs}' if each.needs else ''}"),
            tag("pre", each.text(place)),
        )
        for each in uses.BY_FORMAT.get(format_, ())
        if not each.encoders
    )


def _place(subject: Subject, folder: str) -> uses.Place:
    r = subject.recipe
    assert r is not None
    kind = _kind(subject)
    asked = uses.blank(kind, r.data.template, kind.prompt(r.data.template))
    base = unplaced(str(subject.facts.get("base", r.model.name)))
    return uses.Place(subject.name, folder, base, "BASE.gguf", r.adapter.rank, uses.SAID, asked)


def _kind(subject: Subject) -> Kind:
    if subject.dataset is not None:
        return KINDS[subject.dataset.kind]
    return label.KIND if subject.facts.get("labels") else completion.KIND


def unplaced(name: str) -> str:
    """Without the folders of this machine."""
    return PurePath(name).name if name.startswith(("/", "~", ".")) or ":\\" in name else name
