"""Which rows of one file are train, dev and test: by a column, or a part of train held out as dev."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby, repeat

from zolite.config.recipe import DataPart
from zolite.data.kinds.kind import Row
from zolite.data.problems import refuse
from zolite.data.split_names import DEV, NAMES, SPLITS
from zolite.data.table import Table

HELD_OUT = 200  # most rows taken out of train as dev: enough to see a difference of a few per cent


@dataclass(frozen=True)
class Rule:
    """How rows of one file become train, dev and test: the settings of that name in the recipe's `data`."""

    dev_share: float | None = None
    split_seed: int = 0
    split_by: str = ""
    group_by: str = ""
    stratify: bool = True

    @staticmethod
    def of(data: DataPart) -> "Rule":
        return Rule(**{each.name: getattr(data, each.name) for each in fields(Rule)})

    def count(self, rows: int) -> int:
        """How many of so many rows are held out: at least 1, and never all."""
        count = round(rows * self.dev_share) if self.dev_share else min(HELD_OUT, rows // 10)
        return min(max(1, count), rows - 1)


def by_column(rows: Sequence[Row], rule: Rule, file: str) -> dict[str, list[int]]:
    """Split to its rows' places, by what each row says in the column of `rule.split_by`.

    UsageError with all rows that name no split.
    """
    where, problems = f"column {rule.split_by!r}", []
    found: dict[str, list[int]] = {split: [] for split in SPLITS}
    for i, row in enumerate(rows):
        if split := NAMES.get(row.part.lower()):
            found[split].append(i)
        else:
            problems.append(f"{file}: line {row.line}: {where} is {row.part!r}, which names no split")
    refuse(problems, f"write train, test or one of {', '.join(DEV)} there, or leave out --split-by")
    return {split: places for split, places in found.items() if places}


@dataclass(frozen=True)
class HeldOut:
    """Places of rows, ascending. The same rows are held out whatever the order of the file."""

    train: list[int]
    dev: list[int]
    note: str


def hold_out(rows: Table, rule: Rule, label_column: str, file: str) -> HeldOut:
    """UsageError where there are too few rows, or only one group of them."""
    stratified = bool(label_column) and rule.stratify
    groups: Iterable[str] = (row.group for row in rows) if rule.group_by else repeat("", len(rows))
    keys = array("Q", (_key(group, each, rule) for group, each in zip(groups, rows.contents(), strict=True)))
    labels = [row.columns[label_column] for row in rows] if stratified else [""] * len(rows)
    if len(keys) < 2:
        refuse([f"{file}: {len(keys)} row; at least 2 are needed to hold one out as dev"], "add rows or a dev file")
    if rule.group_by and min(keys) == max(keys):
        refuse(
            [f"{file}: column {rule.group_by!r} has one value in all rows"], "leave out --group-by, or add a dev file"
        )
    held = held_out(keys, labels, rule)
    said = [f"dev: {len(held):,} of {len(keys):,} rows held out of {file}"]
    said += ["the same share of every label"] if stratified else []
    said += [f"each {rule.group_by!r} whole"] if rule.group_by else []
    return HeldOut([i for i in range(len(keys)) if i not in held], sorted(held), ", ".join(said))


def divided(row: Row, rule: Rule, file: str) -> tuple[Row, Row, str]:
    """A document alone: all but its last part, that part as dev, and a note. It is cut between two lines or words.

    UsageError where it is too short for that.
    """
    text = row.columns["text"]
    share = rule.dev_share or 0.1
    at = int(len(text) * (1 - share))
    cut = next((end for gap in ("\n", " ") if text[: (end := text.rfind(gap, 0, at) + 1)].strip()), 0)
    if not cut or not text[cut:].strip():
        refuse([f"{file}: one document, too short to hold a part out as dev"], "add text, or a dev file")
    before, behind = (replace(row, columns={"text": part}) for part in (text[:cut], text[cut:]))
    return before, behind, f"dev: the last {share:.0%} of {file}, held out"


def held_out(keys: Sequence[int], labels: Sequence[str], rule: Rule) -> set[int]:
    """The rows that become dev, by their place: those with the lowest keys, as the rule allows.

    Rows of one key are a group where the rule has groups, and else rows that are alike. A label's only row is not
    taken, and a label gets its share of dev to within a row, where no group is in the way. At least one row is taken;
    no other whole group would bring what is taken nearer to the share that was asked for.
    """
    count, order = rule.count(len(keys)), _ascending(keys)
    if not rule.stratify and not rule.group_by:
        return set(order[:count])
    drawn = _Drawn(labels, count)
    drawn.take((tuple(unit) for _, unit in groupby(order, keys.__getitem__)), drawn.quotas())
    if rule.group_by:
        drawn.take((tuple(unit) for _, unit in groupby(order, keys.__getitem__)), drawn.spare())
        drawn.take_nearer(tuple(unit) for _, unit in groupby(order, keys.__getitem__))
    else:
        drawn.take(((i,) for i in order), drawn.quotas())
    return drawn.rows or set(_cheapest(order, keys, labels, count, bool(rule.group_by)))


def _ascending(keys: Sequence[int]) -> list[int]:
    """Places by their keys; equal ones in the order of the rows."""
    import numpy as np

    found: list[int] = np.argsort(np.array(keys, np.uint64), kind="stable").tolist()
    return found


class _Drawn:
    """Rows taken out of all, by their place, and how many of which label."""

    def __init__(self, labels: Sequence[str], count: int) -> None:
        self.labels, self.count = labels, count
        self.all, self.taken = Counter(labels), Counter[str]()
        self.rows: set[int] = set()

    def take(self, units: Iterable[tuple[int, ...]], room: Counter[str]) -> None:
        """Whole units in their order, as long as there is room for each of their labels."""
        for unit in units:
            if len(self.rows) >= self.count:
                return
            need = Counter(self.labels[i] for i in unit)
            if self.rows.isdisjoint(unit) and len(self.rows) + len(unit) <= self.count and need <= room:
                self.rows.update(unit)
                self.taken += need
                room -= need

    def take_nearer(self, units: Iterable[tuple[int, ...]]) -> None:
        """One more unit, where the count is missed by less with it than without; train keeps every label."""
        missing, room = self.count - len(self.rows), self.spare()
        if missing <= 0:
            return
        near = (unit for unit in units if len(unit) < 2 * missing and self.rows.isdisjoint(unit))
        fits = (unit for unit in near if Counter(self.labels[i] for i in unit) <= room)
        nearest: tuple[int, ...] = min(fits, key=lambda unit: abs(len(unit) - missing), default=())
        self.rows.update(nearest)

    def quotas(self) -> Counter[str]:
        """Rows of each label that may still be taken: its share, the largest remainders rounded up."""
        parts = {label: divmod(many * self.count, len(self.labels)) for label, many in self.all.items() if many > 1}
        left = self.count - sum(whole for whole, _ in parts.values())
        up = [label for label, (whole, rest) in parts.items() if rest and whole + 1 < self.all[label]]
        up.sort(key=lambda label: (-parts[label][1], label))
        full = Counter({label: whole for label, (whole, _) in parts.items()}) + Counter(up[:left])
        return full - self.taken

    def spare(self) -> Counter[str]:
        """All but one of each label."""
        return Counter({label: many - 1 for label, many in self.all.items()}) - self.taken


def _cheapest(
    order: Sequence[int], keys: Sequence[int], labels: Sequence[str], count: int, grouped: bool
) -> Iterable[int]:
    """The group, or a row, by which train loses the fewest labels; of several the one whose size is nearest."""
    units = [tuple(unit) for _, unit in groupby(order, keys.__getitem__)] if grouped else [(i,) for i in order]
    counts = Counter(labels)

    def cost(unit: tuple[int, ...]) -> tuple[int, int]:
        own = Counter(labels[i] for i in unit)
        return sum(own[label] == counts[label] for label in own), abs(len(unit) - count)

    return min(units, key=cost)


def _key(group: str, content: bytes, rule: Rule) -> int:
    """Of 8 bytes: rows of a group have the same, and rows that are alike where there are no groups."""
    what = b"group:" + group.encode() if group else content
    seeded = f"{rule.split_seed}:".encode() + what if rule.split_seed else what
    return int.from_bytes(hashlib.sha256(seeded).digest()[:8], "big")
