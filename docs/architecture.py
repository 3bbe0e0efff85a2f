"""Draws docs/pictures/architecture.svg from what the packages import.

python docs/architecture.py [FILE]

Layers, and which packages never load torch, are read from the contracts in pyproject.toml; what a package is for, from
the first line of its __init__.py; arrows, from the imports themselves, as import-linter sees them. An import that
follows from others, by way of another package, has no arrow of its own, but a box lists all of its imports when the
pointer rests on it. tests/test_architecture.py checks that the committed picture is what this draws.
"""

import ast
import runpy
import sys
import tempfile
import textwrap
import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import grimp

REPOSITORY = Path(__file__).resolve().parent.parent
PICTURE = REPOSITORY / "docs" / "pictures" / "architecture.svg"
LEFT_OUT = ("__main__", "profiles")  # two lines, and the catalogues' files
BOX, TALL, GAP, BETWEEN, MARGIN, LETTERS = 216, 66, 24, 44, 24, 32

Imports = dict[str, set[str]]
"""Packages by the package that imports them."""


@dataclass(frozen=True)
class Box:
    name: str
    x: int
    y: int


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    target.write_text(drawn(), encoding="utf-8")
    print(target)


def drawn() -> str:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [[name.strip() for name in row.split("|")] for row in contract(contracts, "layers")["layers"]]
    light = {name.split(".")[1] for name in contract(contracts, "forbidden")["source_modules"]}
    with tempfile.TemporaryDirectory() as folder:
        runpy.run_path(str(REPOSITORY / ".ci" / "imports"))["laid_out"](REPOSITORY, Path(folder))
        sys.path.insert(0, folder)
        imports = imports_of({name for row in layers for name in row})
        purposes = {name: purpose(Path(folder) / "zolite", name) for name in imports}
    boxes = placed(layers)
    lines = arrows(boxes, direct(imports))
    return framed(boxes, lines + [text for box in boxes.values() for text in shown(box, purposes, imports, light)])


def contract(contracts: dict[str, Any], kind: str) -> dict[str, Any]:
    """The first of a kind."""
    found: dict[str, Any] = next(each for each in contracts["contracts"] if each["type"] == kind)
    return found


def imports_of(packages: set[str]) -> Imports:
    """Between packages, wherever in a module they stand; those for type checkers alone do not count."""
    graph = grimp.build_graph("zolite", exclude_type_checking_imports=True, cache_dir=None)
    found: Imports = {name: set() for name in packages}
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            here, there = package(module), package(other)
            if here != there and {here, there} <= packages:
                found[here].add(there)
    return found


def package(module: str) -> str:
    """zolite.data.rows is of data, and zolite itself of nothing."""
    name = module.partition(".")[2].partition(".")[0]
    return "" if name in LEFT_OUT else name


def purpose(root: Path, name: str) -> str:
    """The first line of a package's docstring, or of a module's."""
    path = root / name / "__init__.py"
    text = ast.get_docstring(ast.parse((path if path.exists() else root / f"{name}.py").read_text(encoding="utf-8")))
    return (text or "").partition("\n")[0]


def direct(imports: Imports) -> Imports:
    """Without those that follow from others."""

    def reached(name: str) -> set[str]:
        return imports[name].union(*(reached(other) for other in imports[name]))

    return {name: {o for o in others if not any(o in reached(p) for p in others)} for name, others in imports.items()}


def placed(layers: list[list[str]]) -> dict[str, Box]:
    """A row of boxes a layer, each in the middle."""
    widest = max(map(len, layers)) * (BOX + GAP) - GAP
    boxes = {}
    for row, names in enumerate(layers):
        left = MARGIN + (widest - len(names) * (BOX + GAP) + GAP) // 2
        for column, name in enumerate(names):
            boxes[name] = Box(name, left + column * (BOX + GAP), MARGIN + row * (TALL + BETWEEN))
    return boxes


def arrows(boxes: dict[str, Box], imports: Imports) -> list[str]:
    """Each from a place of its own below one box to a place of its own above another, so that none hides another."""
    ends = sorted((name, other) for name, others in imports.items() for other in others)
    lines = []
    for name, other in ends:
        below = sorted((boxes[o].x, o) for n, o in ends if n == name)
        above = sorted((boxes[n].x, n) for n, o in ends if o == other)
        x = boxes[name].x + port(below.index((boxes[other].x, other)), len(below))
        a = boxes[other].x + port(above.index((boxes[name].x, name)), len(above))
        y, b = boxes[name].y + TALL, boxes[other].y - 3
        lines.append(f'<path d="M{x} {y} C{x} {y + 30} {a} {b - 30} {a} {b}" marker-end="url(#tip)"/>')
    return lines


def port(number: int, count: int) -> int:
    """The place of one of several, evenly along a box."""
    return BOX * (number + 1) // (count + 1)


def shown(box: Box, purposes: dict[str, str], imports: Imports, light: set[str]) -> list[str]:
    kind, mark = ("light", " °") if box.name in light else ("", "")
    rows = textwrap.wrap(purposes[box.name], LETTERS)[:3]
    below = ", ".join(sorted(imports[box.name])) or "no other package"
    return [
        f"<g><title>{box.name} imports {below}</title>",
        f'<rect class="{kind}" x="{box.x}" y="{box.y}" width="{BOX}" height="{TALL}" rx="6"/>',
        f'<text class="name" x="{box.x + 10}" y="{box.y + 19}">{box.name}{mark}</text>',
        *(
            f'<text x="{box.x + 10}" y="{box.y + 34 + 13 * i}">{escape(row, quote=False)}</text>'
            for i, row in enumerate(rows)
        ),
        "</g>",
    ]


STYLE = (
    "svg{background:#fff}text{font:11px sans-serif;fill:#333}.name{font:bold 14px monospace;fill:#111}"
    "rect{fill:#fdf0e3;stroke:#c07a2c}rect.light{fill:#e8f1fa;stroke:#3a76b0}path{fill:none;stroke:#888;stroke-width:1.2}"
    "#tip path{fill:#888;stroke:none}"
)
LEGEND = "Arrows point to what a package imports. Blue, °: never loads torch. Rest on a box for all of its imports."


def framed(boxes: dict[str, Box], lines: list[str]) -> str:
    wide = max(box.x for box in boxes.values()) + BOX + MARGIN
    tall = max(box.y for box in boxes.values()) + TALL + MARGIN
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker></defs>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall + 20}" width="{wide}">'
    legend = f'<text x="{MARGIN}" y="{tall + 8}">{LEGEND}</text>'
    return "\n".join([head, f"<style>{STYLE}</style>", tip, *lines, legend, "</svg>", ""])


if __name__ == "__main__":
    main()
