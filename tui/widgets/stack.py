"""A bar of several parts with its legend: who has the memory, and what for."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import RenderResult
from textual.content import Content
from textual.widget import Widget

from zolite.common.text import human_bytes

from ..paint import flow


@dataclass(frozen=True)
class Part:
    """`fill` tells parts apart without colour."""

    label: str
    bytes: int
    fill: str
    style: str


def widths(sizes: Sequence[int], total: int, width: int) -> list[int]:
    """Whole cells for each size, by their running sum, so that no error adds up. What is there at all gets one, from
    the widest, while that has more than one.
    """
    ends = [round(width * sum(sizes[: i + 1]) / total) if total else 0 for i in range(len(sizes))]
    cells = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    for i, size in enumerate(sizes):
        widest = max(cells)
        if size and not cells[i] and widest > 1:
            cells[cells.index(widest)] -= 1
            cells[i] = 1
    return cells


class Stack(Widget):
    """`total` is where the bar ends; parts beyond it are marked as too much."""

    DEFAULT_CSS = """
    Stack { height: auto; width: 1fr; }
    """

    def __init__(self, *, id: str | None = None, legend: bool = True) -> None:
        super().__init__(id=id)
        self.parts: tuple[Part, ...] = ()
        self.total, self.legend = 0, legend

    def show(self, parts: Sequence[Part], total: int) -> None:
        self.parts, self.total = tuple(parts), total
        self.refresh(layout=True)

    def render(self) -> RenderResult:
        width = self.content_size.width
        return Content("\n").join([self.bar(width), *(self.words(width) if self.legend else [])])

    def bar(self, width: int) -> Content:
        taken = sum(part.bytes for part in self.parts)
        scale = max(self.total, taken)
        pieces = [
            (part.fill * cells, part.style)
            for part, cells in zip(self.parts, widths([p.bytes for p in self.parts], scale, width), strict=True)
        ]
        bar = Content.assemble(*pieces)
        bar = Content.assemble(bar, ("·" * (width - bar.cell_length), "$text-muted"))
        if taken <= self.total or not self.total:
            return bar
        end = min(width - 1, round(width * self.total / scale))
        return Content.assemble(bar[:end], ("┃", "$text-error bold"), bar[end + 1 :])

    def words(self, width: int) -> list[Content]:
        """The legend, flowing over as many lines as it takes."""
        words = [
            Content.assemble((f"{part.fill}{part.fill} ", part.style), f"{part.label} {human_bytes(part.bytes)}")
            for part in self.parts
            if part.bytes
        ]
        return flow(words, width)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return 1 + (len(self.words(width)) if self.legend else 0)
