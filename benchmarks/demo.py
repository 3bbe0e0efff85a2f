"""Claim: the demo learns, in every weight format. Seconds, steps a second, peak memory, accuracy.

python benchmarks/demo.py [OUT]
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from common import RESULTS, write, zolite


def one(quant: str) -> dict[str, Any]:
    """One demo, as a user runs it."""
    began = time.monotonic()
    events = zolite("demo", "--quant", quant)
    steps = [e for e in events if e["event"] == "stepdone"]
    tests = [e["value"] for e in events if e["event"] == "evaluated" and e["split"].startswith("test")]
    return {
        "quant": quant,
        "seconds": round(time.monotonic() - began, 1),
        "training_seconds": next(round(e["seconds"], 1) for e in events if e["event"] == "finished"),
        "steps_per_second": round(1 / statistics.median(e["seconds"] for e in steps), 2),
        "peak_mib": max(e["peak_bytes"] for e in steps) >> 20,
        "accuracy_before": round(tests[0], 4),
        "accuracy_after": round(tests[1], 4),
        "accuracy_reloaded": round(tests[2], 4),
        "skipped": sum(e["skipped"] for e in steps),
    }


if __name__ == "__main__":
    zolite("demo", "--steps", "2")  # unpacks the weights, fills the caches
    write("demo", [one(quant) for quant in ("int8", "nf4", "bf16")], Path(sys.argv[1]) if sys.argv[1:] else RESULTS)
