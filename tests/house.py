"""The house in numbers. `uv run python tests/house.py` prints them and what breaks a bound; test_house.py asserts them.

Imports are those of the layout that a wheel has, where the app is zolite.tui: all of them, in functions and for types
too. Functions are counted from `def` to their last line.
"""

import ast
import contextlib
import importlib.machinery
import importlib.util
import statistics
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
LONGEST = 60
MEASURED = ("zolite", "tui", "benchmarks")


@dataclass(frozen=True)
class Number:
    """One number of the house with its bound, and what makes it up where it is too large."""

    name: str
    value: float
    bound: float
    why: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return self.value <= self.bound

    def __str__(self) -> str:
        lines = (f"{self.name:<44} {self.value:>4g}   at most {self.bound:g}", *(self.why if not self.good else ()))
        return "\n    ".join(lines)


def numbers(checkout: Path = ROOT) -> list[Number]:
    """All of them."""
    imports = graph(checkout)
    lengths = {folder: list(functions(checkout, folder)) for folder in MEASURED}
    loose = sorted(path.name for path in (checkout / "zolite").glob("*.py"))
    found = cycles(imports)
    wrong = list(upwards(imports, layers(checkout)))
    long = [f"{place}: {lines} lines" for each in lengths.values() for place, lines in each if lines > LONGEST]
    return [
        Number("modules loose in zolite/", len(loose), 3, tuple(loose)),
        Number("cycles of files", len(found), 0, tuple(" ".join(cycle) for cycle in found)),
        Number("imports upwards or to a sibling", len(wrong), 0, tuple(wrong)),
        Number(f"functions above {LONGEST} lines", len(long), 0, tuple(long)),
        Number("median lines of a function in zolite/", median(lengths["zolite"]), 6),
        Number("median lines of a function in tui/", median(lengths["tui"]), 4),
    ]


def graph(checkout: Path) -> grimp.ImportGraph:
    """The imports of a checkout, as `.ci/imports` lays it out. grimp reads files without importing them."""
    with tempfile.TemporaryDirectory() as folder, first_on_path(folder):
        laid_out(checkout, Path(folder))
        return grimp.build_graph("zolite", exclude_type_checking_imports=False, cache_dir=None)


def laid_out(checkout: Path, folder: Path) -> None:
    loader = importlib.machinery.SourceFileLoader("ci_imports", str(ROOT / ".ci" / "imports"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.laid_out(checkout, folder)


@contextlib.contextmanager
def first_on_path(folder: str) -> Iterator[None]:
    """Where grimp finds zolite. A zolite that is imported already would be found instead, so it is put aside."""
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "zolite"}
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        sys.modules.update(aside)


def cycles(imports: grimp.ImportGraph) -> list[list[str]]:
    """Groups of modules that reach each other by their imports."""
    found = set()
    for module in imports.modules:
        group = imports.find_upstream_modules(module) & imports.find_downstream_modules(module)
        if group:
            found.add(tuple(sorted(group | {module})))
    return [list(group) for group in sorted(found)]


def layers(checkout: Path) -> dict[str, int]:
    """The layer of each package, 0 the lowest, by the contract in pyproject.toml."""
    contracts = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (rows,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return {name.strip(): level for level, row in enumerate(reversed(rows)) for name in row.split("|")}


def upwards(imports: grimp.ImportGraph, level: dict[str, int]) -> Iterator[str]:
    """Imports of a package that is not below."""
    for module in sorted(imports.modules):
        for other in sorted(imports.find_modules_directly_imported_by(module)):
            here, there = package(module), package(other)
            if here in level and there in level and here != there and level[there] >= level[here]:
                yield f"{module} imports {other}"


def package(module: str) -> str:
    return ".".join(module.split(".")[1:2])


def functions(checkout: Path, folder: str) -> Iterator[tuple[str, int]]:
    """(where, lines) of each function."""
    for path in sorted((checkout / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{path.relative_to(checkout)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def median(lengths: list[tuple[str, int]]) -> float:
    return statistics.median(lines for _, lines in lengths)


if __name__ == "__main__":
    found = numbers()
    print("\n".join(map(str, found)))
    sys.exit(not all(number.good for number in found))
