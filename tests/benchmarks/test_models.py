"""Claims about docs/models.md: it is what docs/models.py writes, and no architecture is silently another one."""

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_written_of_its_results_and_nothing_differs_silently() -> None:
    models = runpy.run_path(str(ROOT / "docs" / "models.py"))
    found = json.loads((ROOT / "benchmarks" / "results" / "models.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "models.md").read_text(encoding="utf-8") == models["page"](found)
    built = [row for row in found["rows"].values() if row.get("built")]
    assert [row for row in built if row.get("loads") and not models["equal"](row)] == []
    assert sum(map(models["equal"], built)) >= 150
